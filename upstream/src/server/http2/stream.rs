//! Runs on: network thread.
//!
//! A request of HTTP/2 and its response.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::{spawn_local, yield_now};
use tokio::time::timeout;

use super::account::{Account, SENT, SOON, TAKEN_BACK};
use crate::server::network::Clock;
use crate::server::{Ends, Exchange, Flow, HELD, Network, PAUSE, Piece, ResponseHead};

/// Bytes that may wait for a client's window before the client is slow.
const HIGH: usize = 64 * 1024;

/// Frames of DATA that so many bytes are at least.
fn frames(bytes: usize) -> u64 {
    // RFC 9113, section 6.5.2, SETTINGS_MAX_FRAME_SIZE.
    const FRAME: u64 = 16_384;
    (bytes as u64).div_ceil(FRAME)
}

/// Takes what a client still sends behind its response. To drop it would reset the stream, and many clients then have
/// nothing of the response (RFC 9113, section 8.1).
async fn throw_away(mut body: RecvStream) {
    let all = async {
        while let Ok(Some(Ok(piece))) = timeout(PAUSE, body.data()).await {
            let _ = body.flow_control().release_capacity(piece.len());
        }
    };
    let _ = timeout(HELD, all).await;
}

/// A request on a connection.
#[derive(Clone)]
pub(in crate::server) struct Stream(Rc<Inner>);

struct Inner {
    network: Rc<Network>,
    ends: Rc<Ends>,
    account: Rc<Account>,
    since: Instant,
    task: RefCell<Option<Waker>>,
    state: RefCell<State>,
}

struct State {
    send: Send,
    /// None once it has ended.
    body: Option<RecvStream>,
    /// None once the response has ended.
    exchange: Option<Rc<dyn Exchange>>,
    paused: bool,
    /// What the client's window has no room for yet.
    pending: VecDeque<Bytes>,
    waiting: usize,
    /// When the window has had room last, if something waits for it.
    stuck_since: Option<Instant>,
    /// To look at that.
    clock: Option<Rc<Clock>>,
    /// What comes behind it.
    end: Option<HeaderMap>,
    slow: bool,
    /// The service has said all of the response.
    answered: bool,
    /// The stream has ended, for whichever side.
    is_reset: bool,
}

enum Send {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    Over,
}

impl State {
    fn is_done(&self) -> bool {
        matches!(self.send, Send::Over)
    }

    /// Gives away what there is room for.
    fn pump(&mut self, inner: &Inner) {
        let Send::Body(stream) = &mut self.send else {
            return;
        };
        while let Some(first) = self.pending.front_mut() {
            let room = stream.capacity();
            if room == 0 {
                stream.reserve_capacity(self.waiting);
                self.stuck_since.get_or_insert(inner.network.now());
                return;
            }
            self.stuck_since = None;
            let piece = first.split_to(room.min(first.len()));
            inner.account.earn(SENT * frames(piece.len()));
            if first.is_empty() {
                self.pending.pop_front();
            }
            self.waiting -= piece.len();
            let is_last = self.waiting == 0 && self.end.as_ref().is_some_and(HeaderMap::is_empty);
            if stream.send_data(piece, is_last).is_err() || is_last {
                self.send = Send::Over;
                return;
            }
        }
        match self.end.take() {
            Some(trailers) if trailers.is_empty() => drop(stream.send_data(Bytes::new(), true)),
            Some(trailers) => drop(stream.send_trailers(trailers)),
            None => return,
        }
        self.send = Send::Over;
    }

    fn push(&mut self, piece: Piece<'_>) {
        let piece = match piece {
            Piece::Copied(bytes) => Bytes::copy_from_slice(bytes),
            Piece::Kept(bytes) => bytes,
        };
        if piece.is_empty() {
            return;
        }
        self.waiting += piece.len();
        self.pending.push_back(piece);
        if let Send::Body(stream) = &mut self.send {
            stream.reserve_capacity(self.waiting);
        }
    }
}

impl Stream {
    /// A request whose head has come.
    pub(super) fn new(
        network: &Rc<Network>,
        ends: &Rc<Ends>,
        account: &Rc<Account>,
        respond: SendResponse<Bytes>,
        body: Option<RecvStream>,
    ) -> Self {
        let state = State {
            send: Send::Head(respond),
            body,
            exchange: None,
            paused: false,
            pending: VecDeque::new(),
            waiting: 0,
            stuck_since: None,
            clock: None,
            end: None,
            slow: false,
            answered: false,
            is_reset: false,
        };
        Self(Rc::new(Inner {
            network: network.clone(),
            ends: ends.clone(),
            account: account.clone(),
            since: network.now(),
            task: RefCell::default(),
            state: RefCell::new(state),
        }))
    }

    /// The service has seen the head. Returns whether there is more to do.
    pub(super) fn begins(&self, exchange: Rc<dyn Exchange>) -> bool {
        let mut state = self.0.state.borrow_mut();
        if state.is_done() && state.body.is_none() {
            return false;
        }
        if !state.answered {
            state.exchange = Some(exchange);
        }
        true
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        *self.0.task.borrow_mut() = Some(context.waker().clone());
        self.poll_body(context);
        self.poll_room(context);
        if self.poll_reset(context).is_ready() {
            self.count_reset();
            self.gone();
        }
        self.look_at_clock(context);
        let mut state = self.0.state.borrow_mut();
        if !state.is_done() {
            return Poll::Pending;
        }
        if let Some(body) = state.body.take()
            && !state.is_reset
        {
            spawn_local(throw_away(body));
        }
        Poll::Ready(())
    }

    fn poll_body(&self, context: &mut Context<'_>) {
        loop {
            let (piece, end, exchange) = {
                let mut state = self.0.state.borrow_mut();
                let State {
                    body: body @ Some(_),
                    paused: false,
                    exchange: Some(exchange),
                    ..
                } = &mut *state
                else {
                    return;
                };
                let exchange = exchange.clone();
                let Some(stream) = body else { return };
                match stream.poll_data(context) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(piece))) => {
                        // It is the service that says when no more may come.
                        let _ = stream.flow_control().release_capacity(piece.len());
                        let end = stream.is_end_stream();
                        if end {
                            *body = None;
                        }
                        (piece, end, exchange)
                    }
                    Poll::Ready(None) => {
                        *body = None;
                        (Bytes::new(), true, exchange)
                    }
                    // `poll_reset` tells it.
                    Poll::Ready(Some(Err(_))) => {
                        *body = None;
                        drop(state);
                        return self.gone();
                    }
                }
            };
            if exchange.on_body(Cow::Borrowed(&piece), end) == Flow::Pause {
                self.0.state.borrow_mut().paused = true;
            }
        }
    }

    fn poll_room(&self, context: &mut Context<'_>) {
        let writable = {
            let mut state = self.0.state.borrow_mut();
            loop {
                state.pump(&self.0);
                let waiting = state.waiting;
                match &mut state.send {
                    Send::Body(stream) if waiting > 0 => match stream.poll_capacity(context) {
                        Poll::Ready(Some(Ok(_))) => {}
                        _ => break,
                    },
                    _ => break,
                }
            }
            let writable = state.slow && state.waiting <= HIGH / 4;
            state.slow &= !writable;
            state.exchange.clone().filter(|_| writable)
        };
        if let Some(exchange) = writable {
            exchange.on_writable();
        }
    }

    /// Counts a request that is taken back at once.
    fn count_reset(&self) {
        let passed = self.0.network.now().duration_since(self.0.since);
        if !self.0.state.borrow().answered && passed < SOON {
            self.0.account.spend(TAKEN_BACK);
        }
    }

    /// Gives up a client that takes nothing of the end of a response: nobody else waits for it.
    fn look_at_clock(&self, context: &Context<'_>) {
        let mut state = self.0.state.borrow_mut();
        let network = &self.0.network;
        let limit = network.settings.timeout_idle;
        let (Some(since), true, false) = (state.stuck_since, state.answered, limit.is_zero())
        else {
            state.clock = None;
            return;
        };
        if network.now().duration_since(since) >= limit {
            drop(state);
            return self.reset();
        }
        let clock = state.clock.get_or_insert_with(|| network.ticks());
        clock.wakes(context.waker());
    }

    fn poll_reset(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.state.borrow_mut();
        let reset = match &mut state.send {
            Send::Head(respond) => respond.poll_reset(context),
            Send::Body(stream) => stream.poll_reset(context),
            Send::Over => return Poll::Pending,
        };
        reset.map(drop)
    }

    /// The client has gone.
    fn gone(&self) {
        let exchange = {
            let mut state = self.0.state.borrow_mut();
            state.send = Send::Over;
            state.is_reset = true;
            state.body = None;
            state.pending.clear();
            state.waiting = 0;
            state.stuck_since = None;
            state.answered = true;
            state.exchange.take()
        };
        if let Some(exchange) = exchange {
            exchange.on_gone();
        }
    }

    pub(in crate::server) fn ends(&self) -> &Ends {
        &self.0.ends
    }

    pub(in crate::server) fn is_slow(&self) -> bool {
        self.0.state.borrow().slow
    }

    pub(in crate::server) fn start(&self, head: ResponseHead<'_, '_>, body: Piece<'_>, end: bool) {
        let mut state = self.0.state.borrow_mut();
        let Send::Head(respond) = &mut state.send else {
            return;
        };
        // A tunnel begins with 200 (RFC 8441, section 5).
        let status = if head.status == 101 { 200 } else { head.status };
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        *response.headers_mut() = map(head.fields);
        if !response.headers().contains_key(http::header::DATE)
            && let Ok(date) = HeaderValue::from_bytes(&self.0.network.date())
        {
            response.headers_mut().insert(http::header::DATE, date);
        }
        let is_all = end && body.is_empty();
        match respond.send_response(response, is_all) {
            Ok(stream) => {
                self.0.account.earn(SENT);
                state.send = match is_all {
                    true => Send::Over,
                    false => Send::Body(stream),
                };
            }
            Err(_) => {
                drop(state);
                return self.gone();
            }
        }
        drop(state);
        self.send(body, end);
    }

    pub(in crate::server) fn send(&self, body: Piece<'_>, end: bool) {
        let mut state = self.0.state.borrow_mut();
        state.push(body);
        if end {
            state.end = Some(HeaderMap::new());
        }
        self.pump(state, end);
    }

    pub(in crate::server) fn send_trailers<'a>(
        &self,
        trailers: &mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a),
    ) {
        let mut state = self.0.state.borrow_mut();
        state.end = Some(map(trailers));
        self.pump(state, true);
    }

    fn pump(&self, mut state: std::cell::RefMut<'_, State>, end: bool) {
        state.pump(&self.0);
        let wakes = state.waiting > 0 || end;
        state.slow = state.waiting > HIGH;
        let exchange = if end {
            state.answered = true;
            state.exchange.take()
        } else {
            None
        };
        drop(state);
        drop(exchange);
        if wakes {
            self.wake();
        }
    }

    pub(in crate::server) fn send_interim<'a>(
        &self,
        status: u16,
        fields: &mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a),
    ) {
        if let Send::Head(respond) = &mut self.0.state.borrow_mut().send {
            let mut response = http::Response::new(());
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
            *response.headers_mut() = map(fields);
            let _ = respond.send_informational(response);
        }
    }

    pub(in crate::server) fn reset(&self) {
        self.end(Reason::INTERNAL_ERROR);
    }

    pub(in crate::server) fn turn_back(&self) {
        self.end(Reason::REFUSED_STREAM);
    }

    fn end(&self, reason: Reason) {
        let mut state = self.0.state.borrow_mut();
        match std::mem::replace(&mut state.send, Send::Over) {
            Send::Head(mut respond) => respond.send_reset(reason),
            Send::Body(mut stream) => {
                // It would take back what was said before, and has not gone out. The connection's task runs first.
                spawn_local(async move {
                    yield_now().await;
                    stream.send_reset(reason);
                });
            }
            Send::Over => {}
        }
        state.exchange = None;
        drop(state);
        self.gone();
        self.wake();
    }

    pub(in crate::server) fn resume(&self) {
        self.0.state.borrow_mut().paused = false;
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = &*self.0.task.borrow() {
            task.wake_by_ref();
        }
    }
}

/// Fields as `h2` has them. What can't be said is left out: the service has checked names and values.
fn map<'a>(fields: &mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a)) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(8);
    for (name, value) in fields {
        if matches!(
            name,
            b"connection" | b"upgrade" | b"keep-alive" | b"transfer-encoding"
        ) {
            continue;
        }
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

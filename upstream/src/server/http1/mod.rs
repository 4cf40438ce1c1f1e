//! Runs on: network thread.
//!
//! A connection of HTTP/1.
//!
//! ```text
//!           head, no body                        response ends
//!  Head ──────────────────────────▶ Complete ────────────────────▶ Head, or Closing
//!   │  head        last of the body ▲   │ 101
//!   └──────▶ Body ──────────────────┘   └─────▶ Raw
//!             │ response ends       last of the body
//!             └───────────▶ Discard ─────────────▶ Head, or Closing
//!
//!  Closing ── all is written ──▶ Linger ── the client has closed, or has had its time ──▶ over
//! ```

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use super::io::Io;
use super::{Ends, Exchange, Flow, HELD, Network, PAUSE, Refusal, Version};
use chunks::{BadChunks, Chunks};
use head::{Framing, Parsed, Progress, Said};
use input::{Decoder, Next};
use lines::Lines;
use output::Output;

pub(super) use stream::Stream;

mod chunks;
mod file;
mod head;
mod input;
mod lines;
mod output;
mod stream;

/// Bytes that may wait for a client before it is slow.
const HIGH: usize = 64 * 1024;
/// Bytes at which it no longer is.
const LOW: usize = 16 * 1024;
/// Bytes that may come behind a request that is not answered yet.
const AHEAD: usize = 64 * 1024;
/// A connection.
pub(super) struct Connection {
    network: Rc<Network>,
    /// Where it stands among the thread's.
    pub(super) place: Cell<usize>,
    ends: Ends,
    /// None once it is over.
    io: RefCell<Option<Io>>,
    task: RefCell<Option<Waker>>,
    state: RefCell<State>,
    /// Something below is parsing, and goes on with what comes of it.
    parsing: Cell<bool>,
}

struct State {
    phase: Phase,
    /// What has come and is not parsed.
    unread: Vec<u8>,
    /// How much of it was looked at, if it is a head.
    head: Progress,
    /// Which request it is.
    number: u64,
    said: Said,
    exchange: Option<Rc<dyn Exchange>>,
    paused: bool,
    response: Response,
    /// The connection ends with the response.
    closes: bool,
    out: Output,
    /// To be written at the end of the turn.
    queued: bool,
    slow: bool,
    /// The client sends nothing more.
    ended: bool,
    /// The socket takes nothing any more.
    failed: bool,
    /// When something has come or left last, by the clock of ticks.
    active: Instant,
    /// When the phase has begun.
    since: Instant,
}

enum Phase {
    Head,
    Body(Decoder),
    Complete,
    Raw,
    Discard(Decoder),
    Closing,
    Linger,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    Waiting,
    Started(Body),
    Ended,
}

/// How a response's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// By its length, or by the end of the connection.
    Plain,
    Chunked,
    /// There is none.
    None,
}

/// The life of a connection, which has begun with `first`.
pub(super) async fn serve(network: Rc<Network>, io: Io, ends: Ends, first: &[u8]) {
    let connection = Connection::new(&network, io, ends);
    network.know(connection.clone());
    connection.receive_some(first);
    poll_fn(|context| connection.poll(context)).await;
    network.forget(&connection);
}

impl Connection {
    fn new(network: &Rc<Network>, io: Io, ends: Ends) -> Rc<Self> {
        let now = network.now();
        Rc::new(Self {
            network: network.clone(),
            place: Cell::default(),
            ends,
            io: RefCell::new(Some(io)),
            task: RefCell::default(),
            parsing: Cell::default(),
            state: RefCell::new(State {
                phase: Phase::Head,
                unread: Vec::new(),
                head: Progress::default(),
                number: 0,
                said: Said {
                    framing: Framing::Length(0),
                    keep_alive: true,
                    head_only: false,
                    version: Version::Http11,
                    expects_continue: false,
                    websocket: false,
                },
                exchange: None,
                paused: false,
                response: Response::Waiting,
                closes: false,
                out: Output::default(),
                queued: false,
                slow: false,
                ended: false,
                failed: false,
                active: now,
                since: now,
            }),
        })
    }

    /// The life of the connection.
    fn poll(self: &Rc<Self>, context: &mut Context<'_>) -> Poll<()> {
        self.know_task(context);
        loop {
            self.flush();
            // There may be room for the next response now.
            self.go_on();
            if self.is_over() {
                return Poll::Ready(());
            }
            if self.state.borrow().out.waits() && self.poll_writable(context) {
                self.lend();
                continue;
            }
            if !self.state.borrow().wants_input() {
                return Poll::Pending;
            }
            let network = self.network.clone();
            let has_read = network.read(|buffer| {
                let read = ready!(self.poll_read(context, buffer));
                match read {
                    Ok(0) => self.end_of_input(),
                    Ok(_) => self.receive(buffer),
                    Err(_) => self.give_up(),
                }
                Poll::Ready(())
            });
            if has_read.is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn know_task(&self, context: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task
            .as_ref()
            .is_some_and(|task| task.will_wake(context.waker()))
        {
            *task = Some(context.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    fn is_over(&self) -> bool {
        self.io.borrow().is_none()
    }

    fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        match &mut *self.io.borrow_mut() {
            Some(io) => io.poll_read(context, buffer),
            None => Poll::Ready(Ok(0)),
        }
    }

    fn poll_writable(&self, context: &mut Context<'_>) -> bool {
        let ready = self
            .io
            .borrow()
            .as_ref()
            .map(|io| io.poll_write_ready(context));
        matches!(ready, Some(Poll::Ready(_)))
    }

    /// The client sends nothing more.
    fn end_of_input(self: &Rc<Self>) {
        // What was said before that, and what is no head, however little of it was looked at.
        self.state.borrow_mut().head = Progress::default();
        self.go_on();
        self.flush();
        let mut state = self.state.borrow_mut();
        state.ended = true;
        if state.exchange.is_none() && state.out.len() > 0 {
            // It may still read.
            state.phase = Phase::Closing;
            return;
        }
        drop(state);
        self.give_up();
    }

    /// A response ends where it stands. What was said of it goes out, as far as the client takes it now; if its end
    /// would be the connection's, the connection is reset instead.
    fn cut(self: &Rc<Self>, ends_by_closing: bool) {
        self.flush();
        if ends_by_closing && let Some(io) = &*self.io.borrow() {
            io.drop_unsent();
        }
        self.give_up();
    }

    /// The client takes or sends nothing any more, nor is anything kept for it.
    fn cut_off(&self) {
        if self.state.borrow().out.len() > 0
            && let Some(io) = &*self.io.borrow()
        {
            io.drop_unsent();
        }
        self.give_up();
    }

    /// The connection is over.
    fn give_up(&self) {
        // Closed now, however long somebody has a handle of it.
        drop(self.io.take());
        let exchange = {
            let mut state = self.state.borrow_mut();
            state.number += 1;
            state.out = Output::default();
            state.unread = Vec::new();
            state.exchange.take()
        };
        self.wake();
        if let Some(exchange) = exchange {
            exchange.on_gone();
        }
    }

    /// Something has come. It is taken whole where that saves a copy.
    fn receive(self: &Rc<Self>, bytes: &mut Vec<u8>) {
        let is_last = {
            let mut state = self.state.borrow_mut();
            if !matches!(state.phase, Phase::Head) {
                // A head has its own time, however little of it comes at a time.
                state.active = self.network.now();
            }
            state.is_of_body(bytes)
        };
        match is_last {
            Some(end) => self.give(Cow::Owned(std::mem::take(bytes)), end),
            None => self.receive_some(bytes),
        }
    }

    fn receive_some(self: &Rc<Self>, bytes: &[u8]) {
        let mut unread = std::mem::take(&mut self.state.borrow_mut().unread);
        if unread.is_empty() {
            let rest = self.parse(bytes);
            if !rest.is_empty() {
                unread.extend_from_slice(rest);
                self.state.borrow_mut().since = self.network.now();
            }
        } else {
            unread.extend_from_slice(bytes);
            self.parse_unread(&mut unread);
        }
        self.state.borrow_mut().unread = unread;
    }

    /// Goes on with what has come and was not parsed.
    fn go_on(self: &Rc<Self>) {
        let mut unread = {
            let mut state = self.state.borrow_mut();
            if state.unread.is_empty() || self.parsing.get() {
                return;
            }
            std::mem::take(&mut state.unread)
        };
        self.parse_unread(&mut unread);
        self.state.borrow_mut().unread = unread;
    }

    fn parse_unread(self: &Rc<Self>, unread: &mut Vec<u8>) {
        let left = self.parse(unread).len();
        match left {
            // An idle connection has no buffer.
            0 => *unread = Vec::new(),
            _ => drop(unread.drain(..unread.len() - left)),
        }
    }

    /// Parses what can be parsed now, and returns the rest.
    fn parse<'a>(self: &Rc<Self>, mut bytes: &'a [u8]) -> &'a [u8] {
        self.parsing.set(true);
        while self.parse_next(&mut bytes) {}
        self.parsing.set(false);
        bytes
    }

    /// Parses the next of `bytes`. Returns whether there may be more to do.
    fn parse_next(self: &Rc<Self>, bytes: &mut &[u8]) -> bool {
        let next = self.state.borrow_mut().next(bytes);
        match next {
            Next::Nothing => return false,
            Next::Head => return self.parse_head(bytes),
            Next::Give(piece, end) => self.give(Cow::Borrowed(piece), end),
            Next::Thrown => self.next_request(),
            Next::Bad(BadChunks::Malformed) => self.refuse(Refusal::bad("bad_chunks")),
            Next::Bad(BadChunks::TooLarge) => self.refuse(Refusal::HEAD_TOO_LARGE),
        }
        true
    }

    fn parse_head(self: &Rc<Self>, bytes: &mut &[u8]) -> bool {
        *bytes = head::skip_empty_lines(bytes);
        if !self.state.borrow_mut().head.is_due(bytes) {
            return false;
        }
        let limit = self.network.settings.head_bytes;
        match head::parse(bytes, limit, |head, said| self.begin(head, said)) {
            Ok(Parsed::Complete(length, ())) => {
                *bytes = &bytes[length..];
                true
            }
            Ok(Parsed::Partial) => false,
            Err(refusal) => {
                self.refuse(refusal);
                true
            }
        }
    }

    /// A request has come.
    fn begin(self: &Rc<Self>, head: &super::Head<'_>, said: Said) {
        let head = &super::Head {
            websocket: head.websocket && self.network.settings.websockets,
            fields: head.fields,
            ..*head
        };
        let number = {
            let mut state = self.state.borrow_mut();
            state.said = said;
            state.head = Progress::default();
            state.active = self.network.now();
            state.response = Response::Waiting;
            state.paused = false;
            state.closes = !said.keep_alive;
            state.phase = match said.framing {
                Framing::Length(0) => Phase::Complete,
                Framing::Length(length) => Phase::Body(Decoder::Length(length)),
                Framing::Chunked => Phase::Body(Decoder::Chunks(Chunks::default())),
            };
            state.number
        };
        let stream = self.stream(number);
        let exchange = self.network.service.begin(head, &stream);
        let mut state = self.state.borrow_mut();
        if state.number == number {
            state.exchange = Some(exchange);
        }
    }

    fn stream(self: &Rc<Self>, number: u64) -> super::Stream {
        super::Stream(super::Kind::Http1(Stream {
            connection: self.clone(),
            number,
        }))
    }

    fn give(self: &Rc<Self>, piece: Cow<'_, [u8]>, end: bool) {
        let (exchange, number) = {
            let state = self.state.borrow();
            (state.exchange.clone(), state.number)
        };
        let Some(exchange) = exchange else {
            return;
        };
        let flow = exchange.on_body(piece, end);
        let mut state = self.state.borrow_mut();
        if flow == Flow::Pause && state.number == number {
            state.paused = true;
        }
    }

    /// Answers what is no request, or no body of one, and closes.
    fn refuse(self: &Rc<Self>, refusal: Refusal) {
        let exchange = {
            let mut state = self.state.borrow_mut();
            if state.response == Response::Waiting {
                let Refusal { status, .. } = refusal;
                state.closes = true;
                let head = Lines {
                    status,
                    closes: true,
                    ..Lines::default()
                };
                let network = &self.network;
                state.out.append(network, |out| {
                    head.write(out, &mut std::iter::empty(), &network.date());
                });
            }
            state.number += 1;
            state.response = Response::Ended;
            state.phase = Phase::Closing;
            state.active = self.network.now();
            state.exchange.take()
        };
        self.queue();
        self.network.service.refused(&self.ends, refusal);
        if let Some(exchange) = exchange {
            exchange.on_gone();
        }
    }

    /// The response has ended, and so has its request.
    fn next_request(&self) {
        let mut state = self.state.borrow_mut();
        state.response = Response::Waiting;
        state.phase = if state.closes {
            Phase::Closing
        } else {
            Phase::Head
        };
        state.since = self.network.now();
    }

    /// All of the response has been said.
    fn finish(self: &Rc<Self>) {
        let (exchange, is_complete) = {
            let mut state = self.state.borrow_mut();
            state.number += 1;
            state.response = Response::Ended;
            state.since = self.network.now();
            state.active = state.since;
            let phase = std::mem::replace(&mut state.phase, Phase::Complete);
            let is_complete = match phase {
                Phase::Body(decoder) if !state.closes => {
                    state.phase = Phase::Discard(decoder);
                    false
                }
                Phase::Body(_) | Phase::Raw => {
                    state.closes = true;
                    true
                }
                _ => true,
            };
            state.paused = false;
            (state.exchange.take(), is_complete)
        };
        drop(exchange);
        if is_complete {
            self.next_request();
        }
        if !self.parsing.get() {
            // For what has come behind it.
            self.wake();
        }
    }

    /// Has what is to be written be written at the end of the turn, or at once if it is much.
    fn queue(self: &Rc<Self>) {
        let (much, queued) = {
            let mut state = self.state.borrow_mut();
            (
                state.out.len() > HIGH,
                std::mem::replace(&mut state.queued, true),
            )
        };
        if !queued {
            self.network.writes(self.clone());
        }
        if much {
            self.flush();
            let mut state = self.state.borrow_mut();
            state.slow = state.out.len() > HIGH;
        }
    }

    /// Writes what was queued.
    pub(super) fn write(self: &Rc<Self>) {
        self.state.borrow_mut().queued = false;
        self.flush();
        let state = self.state.borrow();
        if state.out.len() > 0 || matches!(state.phase, Phase::Linger) {
            // It waits for the socket, which is for the task to do.
            self.wake();
        }
    }

    /// Writes what the socket takes.
    fn flush(self: &Rc<Self>) {
        let writable = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let io = self.io.borrow();
            let Some(io) = &*io else {
                return;
            };
            if state.out.len() > 0 {
                match state.out.write(&self.network, io) {
                    Ok(0) => {}
                    Ok(_) => {
                        state.active = self.network.now();
                        if state.out.len() == 0 {
                            // The next request has its time from here on.
                            state.since = state.active;
                        }
                    }
                    Err(_) => state.failed = true,
                }
            }
            if state.out.len() == 0 && matches!(state.phase, Phase::Closing) {
                io.shut_down_writing();
                state.phase = Phase::Linger;
                state.since = self.network.now();
                state.active = state.since;
                state.failed |= state.ended;
            }
            let writable = state.slow && state.out.len() <= LOW;
            state.slow &= !writable;
            writable
        };
        if self.state.borrow().failed {
            return self.give_up();
        }
        if writable {
            let exchange = self.state.borrow().exchange.clone();
            if let Some(exchange) = exchange {
                exchange.on_writable();
            }
        }
    }

    /// Whether the client has gone while nothing is read that could say so.
    fn has_gone_unseen(&self) -> bool {
        let state = self.state.borrow();
        if state.exchange.is_none() || state.wants_input() {
            return false;
        }
        let io = self.io.borrow();
        io.as_ref().is_some_and(|io| match state.phase {
            // What has come before the end may be messages that count.
            Phase::Raw => io.is_reset(),
            _ => io.is_ended(),
        })
    }

    /// Bytes that the client has not taken yet.
    pub(super) fn unwritten(&self) -> usize {
        self.state.borrow().out.len()
    }

    /// Time has passed.
    pub(super) fn tick(self: &Rc<Self>, now: Instant) {
        if self.has_gone_unseen() {
            return self.give_up();
        }
        let settings = &self.network.settings;
        let is_over = |since: Instant, limit: Duration| {
            !limit.is_zero() && now.duration_since(since) >= limit
        };
        let state = self.state.borrow();
        let late = match state.phase {
            Phase::Head if state.out.len() > 0 => is_over(state.active, settings.timeout_idle),
            Phase::Head if state.is_between() => is_over(state.active, settings.timeout_keep_alive),
            Phase::Head => is_over(state.since, settings.timeout_head),
            Phase::Closing => is_over(state.active, settings.timeout_idle),
            Phase::Discard(_) | Phase::Linger => {
                is_over(state.active, PAUSE) || is_over(state.since, HELD)
            }
            Phase::Body(_) | Phase::Complete | Phase::Raw => false,
        };
        let is_amid_head =
            matches!(state.phase, Phase::Head) && !state.is_between() && state.out.len() == 0;
        drop(state);
        match (late, is_amid_head) {
            (true, true) => self.refuse(Refusal::SLOW_HEAD),
            (true, false) => self.cut_off(),
            (false, _) => {}
        }
    }
}

//! Runs on: Envoy worker thread.
//!
//! One stream: Envoy's hooks in, messages to the loop out, and the other way round. It decides
//! nothing about ASGI; what it is told to send was checked on the loop's side.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use envoy::{
    AttributeId, DataStatus, EnvoyFilter, FilterRef, Header, HeadersStatus, HttpFilter,
    HttpFilterConfig, ResetReason, Scheduler, TrailersStatus,
};
use smallvec::SmallVec;
use upstream::router::{Front, UnderWay};

use super::request;
use super::streams::Streams;
use crate::admission::Refusal;
use crate::exchange::{
    ExchangeId, Fields, HttpVersion, Inbound, Outbound, Process, REQUEST_WINDOW, Request,
    RequestHead, ResponseHead, WINDOW_STEP, interim_cost, piece_cost,
};
use crate::websocket::handshake::Handshake;
use crate::websocket::read_handshake;
use end::HeldEnd;
use websocket::WebSocket;

mod access_log;
mod answer;
mod end;
mod refusal_log;
mod router;
mod websocket;

/// One filter chain's configuration: where its filters stand. All else is the process's, since the
/// application and its event loops are.
pub(crate) struct FilterConfig {
    process: Arc<Process>,
    place: Place,
}

/// Where a filter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the client's filter chain, as its last filter.
    Direct,
    /// In the client's filter chain, in front of the router.
    Front,
    /// Behind the router, as the last filter of an internal listener's chain.
    Behind,
}

impl Place {
    /// The place that a configuration means by the filter's name.
    ///
    /// # Errors
    /// If it is the name of none.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        match name {
            "aiovoy" => Ok(Self::Direct),
            "aiovoy_front" => Ok(Self::Front),
            "aiovoy_behind" => Ok(Self::Behind),
            _ => Err(
                "`filter_name` is one of `aiovoy`, `aiovoy_front` and `aiovoy_behind`\n\
                 hint: `aiovoy`, unless requests go through Envoy's router: see docs/router.md"
                    .into(),
            ),
        }
    }
}

impl FilterConfig {
    pub(crate) fn new(process: Arc<Process>, place: Place) -> Self {
        Self { process, place }
    }
}

impl HttpFilterConfig for FilterConfig {
    fn new_filter(&self, envoy: &EnvoyFilter<'_>) -> Option<Rc<dyn HttpFilter>> {
        let streams = Streams::of_thread(&self.process, envoy.worker_index());
        let handover = streams.handover.clone();
        let (place, envoy) = (self.place, envoy.filter_ref());
        let filter = streams.clone().add(|id| {
            Rc::new(Filter {
                id,
                place,
                streams,
                under_way: OnceCell::new(),
                envoy,
                waits_at: Cell::default(),
                posted: Cell::default(),
                since: Cell::default(),
                version: Cell::default(),
                given_up: Cell::default(),
                closes: Cell::default(),
                held_end: RefCell::default(),
                tls: Cell::default(),
                request: Cell::default(),
                response: Cell::default(),
                websocket: OnceCell::new(),
            })
        });
        Some(match place {
            Place::Front => Rc::new(Front::new(filter, handover)),
            Place::Direct | Place::Behind => filter,
        })
    }
}

/// A request that is let in.
struct Admitted {
    head: RequestHead,
    /// If it asks for a WebSocket.
    handshake: Option<Handshake>,
}

/// One stream.
pub(crate) struct Filter {
    id: ExchangeId,
    place: Place,
    streams: Rc<Streams>,
    envoy: FilterRef,
    /// Behind the router, what was handed over in front of it.
    under_way: OnceCell<Rc<UnderWay>>,
    /// Where the request waits until it is given to the loop: its body may still grow.
    waits_at: Cell<usize>,
    /// The request was let in, so the exchange counts.
    posted: Cell<bool>,
    /// The last tick before that, which is the stream's age at no cost.
    since: Cell<Option<Instant>>,
    version: Cell<HttpVersion>,
    /// The loop has been told that Envoy has given the stream up, and is to hear no more of it.
    given_up: Cell<bool>,
    /// The client's connection is to close, but not in this hook.
    closes: Cell<bool>,
    /// The end of a response that waits for the end of its request.
    held_end: RefCell<Option<HeldEnd>>,
    /// The connection is encrypted; known only if `alt_svc` asks for it.
    tls: Cell<bool>,
    request: Cell<RequestBody>,
    response: Cell<ResponseBody>,
    /// What the stream is besides, if it is one.
    websocket: OnceCell<Box<WebSocket>>,
}

/// How much of the request body has gone to the loop.
#[derive(Debug, Clone, Copy, Default)]
struct RequestBody {
    /// Bytes that the client has announced.
    length: u64,
    /// Bytes that have come.
    received: u64,
    /// Bytes given to the loop and not yet taken by the application.
    unread: usize,
    /// Bytes that have come and that Envoy keeps for us. They are the first in its buffer, which it
    /// has for all filters: what is behind them is another filter's, and not ours yet.
    kept: usize,
    /// The client is to send nothing before it is answered: it waits to be told to go on, or for a
    /// WebSocket.
    waits: bool,
    /// Envoy has shown us the end, or we want no more.
    ended: bool,
    /// The loop has been told of the end, or never will be.
    end_posted: bool,
}

/// How far the response has got.
#[derive(Debug, Clone, Copy, Default)]
struct ResponseBody {
    /// An interim head was sent.
    announced: bool,
    started: bool,
    ended: bool,
    /// Marks that Envoy's write buffer is above, which nest.
    above_watermark: u32,
    /// Bytes given to Envoy of which the loop has not been told.
    unreported: usize,
    /// While the request goes on: when the last burst began, and its bytes.
    burst: Option<(Instant, usize)>,
}

impl HttpFilter for Filter {
    fn on_request_headers(
        &self,
        envoy: &mut EnvoyFilter<'_>,
        end_of_stream: bool,
    ) -> HeadersStatus {
        let admitted = match self.place {
            Place::Behind => self.take_over(envoy, end_of_stream),
            Place::Direct | Place::Front => self.let_in(envoy, end_of_stream),
        };
        if let Some(admitted) = admitted {
            self.begin(envoy, admitted, end_of_stream);
        }
        HeadersStatus::StopIteration
    }

    fn on_request_body(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> DataStatus {
        if self.given_up.get() {
            return DataStatus::StopIterationNoBuffer;
        }
        let mut body = self.request.get();
        body.ended |= end_of_stream;
        let mut length = envoy.received_request_body_len();
        // A filter before ours goes on with a request that it has held back: the piece is Envoy's
        // whole buffer, with what we know of it at the front. It stays there, whatever we answer.
        let resumed = envoy.received_is_buffered_request_body();
        if resumed {
            length = length.saturating_sub(body.kept);
            body.kept += length;
        }
        self.request.set(body);
        if self.held_end.borrow().is_some() {
            if resumed {
                self.drop_kept(envoy);
            }
            if end_of_stream {
                self.release_end(envoy);
            } else {
                self.discard();
            }
            return DataStatus::StopIterationNoBuffer;
        }
        if let Some(socket) = self.websocket.get() {
            if !resumed {
                return self.on_frames(socket, envoy, length);
            }
            self.pull_frames(socket, envoy, 0);
            return self.keeps();
        }
        body.received += length as u64;
        self.request.set(body);
        if self.streams.rules.limits_body(body.received) {
            return self.refuse_body(envoy);
        }
        if resumed {
            self.pull(envoy, 0);
        } else if body.kept > 0 || (length > 0 && body.unread >= REQUEST_WINDOW) {
            // Envoy stops reading above its buffer limit, until the application has read: see `pull`.
            self.keep(length);
        } else {
            self.give_body(envoy, envoy.received_request_body().iter(), length);
        }
        self.keeps()
    }

    fn on_request_trailers(&self, envoy: &mut EnvoyFilter<'_>) -> TrailersStatus {
        if self.given_up.get() {
            return TrailersStatus::StopIteration;
        }
        if self.held_end.borrow().is_some() {
            self.release_end(envoy);
            return TrailersStatus::StopIteration;
        }
        let mut body = self.request.get();
        body.ended = true;
        self.request.set(body);
        match self.websocket.get() {
            Some(socket) => self.pull_frames(socket, envoy, 0),
            None => self.pull(envoy, 0),
        }
        TrailersStatus::StopIteration
    }

    fn on_scheduled(&self, envoy: &mut EnvoyFilter<'_>, _: u64) {
        self.streams.turn(envoy);
    }

    fn on_downstream_above_write_buffer_high_watermark(&self, _: &EnvoyFilter<'_>) {
        let mut response = self.response.get();
        response.above_watermark += 1;
        self.response.set(response);
    }

    fn on_downstream_below_write_buffer_low_watermark(&self, envoy: &EnvoyFilter<'_>) {
        let mut response = self.response.get();
        response.above_watermark = response.above_watermark.saturating_sub(1);
        self.response.set(response);
        self.report_room(envoy);
        if let Some(held) = &mut *self.held_end.borrow_mut() {
            held.give_time();
        }
        if self.websocket.get().is_some() {
            self.streams.resume(self.id);
        }
    }

    /// Without our own end of stream before it, this is how Envoy says that the client has gone,
    /// or that it has itself answered or reset the stream.
    fn on_stream_complete(&self, envoy: &EnvoyFilter<'_>) {
        let cut = !self.response.get().ended;
        // Behind the router neither is ours to tell.
        let tells = cut && self.place != Place::Behind;
        if tells {
            self.log_end(envoy, self.response.get().started);
        }
        if !self.posted.replace(false) {
            // It was refused; or Envoy or a filter before ours ended it before we saw it.
            if tells && !self.streams.rules.access_log.is_empty() {
                let (head, _) = self.streams.read_head(envoy, true);
                self.tell_access_log(envoy, &head);
            }
            self.streams.remove(envoy, self.id, []);
            return;
        }
        // A request that came is a call of the application, also if its client is gone already: it stays
        // where it waits.
        let cut = cut && !self.given_up.get();
        let socket = self.websocket.get().filter(|_| cut);
        let left = socket.map_or_else(Vec::new, |socket| self.messages_left(socket, envoy));
        let disconnect = cut.then(|| self.cut_off(envoy));
        // It may be sending right now: nothing more is reported.
        self.end_response();
        let last = left.into_iter().chain(disconnect);
        self.streams.remove(envoy, self.id, last);
        self.streams.process.in_flight.complete_stream();
    }
}

impl Filter {
    /// Reads the request of a client. `None` if it is not let in: then it has been answered.
    fn let_in(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> Option<Admitted> {
        if self.streams.is_closing(|| connection_id(envoy)) {
            // RFC 9112, section 9.6: no more of them is processed.
            self.end_response();
            envoy.reset_stream(ResetReason::LocalReset, "aiovoy_connection_closes");
            return None;
        }
        let (head, refusal) = self.streams.read_head(envoy, end_of_stream);
        self.tell_access_log(envoy, &head);
        self.know(&head, end_of_stream);
        if head.version <= HttpVersion::Http11 && head.server.port.is_some() {
            self.streams.believe_probe(|| is_reset(envoy));
        }
        if let Some(refusal) = refusal {
            if refusal.closes() && head.version <= HttpVersion::Http11 {
                self.answer_and_close(envoy, refusal);
            } else {
                self.turn_away(envoy, refusal);
            }
            return None;
        }
        self.with_handshake(envoy, head)
    }

    /// Reads the handshake in `head`, if there is one. `None` if it is wrong: then it has been answered.
    fn with_handshake(&self, envoy: &mut EnvoyFilter<'_>, head: RequestHead) -> Option<Admitted> {
        match read_handshake(&head).transpose() {
            Ok(handshake) => Some(Admitted { head, handshake }),
            Err(refusal) => {
                self.refuse_handshake(envoy, &refusal);
                None
            }
        }
    }

    /// What the loop is told of a stream that is cut off: whether it was Envoy's will, or the client's.
    fn cut_off(&self, envoy: &EnvoyFilter<'_>) -> Inbound {
        let given_up = match self.under_way.get() {
            Some(under_way) => under_way.is_given_up(),
            None => is_timed_out(envoy),
        };
        match given_up {
            true => Inbound::GivenUp(self.id),
            false => Inbound::Disconnect(self.id),
        }
    }

    /// Keeps what of the head bears on the rest of the stream.
    fn know(&self, head: &RequestHead, end_of_stream: bool) {
        self.version.set(head.version);
        self.request.set(RequestBody {
            length: head.length,
            waits: head.expects_continue || head.websocket,
            ended: end_of_stream,
            end_posted: end_of_stream,
            ..RequestBody::default()
        });
    }

    /// Gives the request to the application, unless it has enough to do.
    fn begin(&self, envoy: &mut EnvoyFilter<'_>, admitted: Admitted, complete: bool) {
        let (Admitted { head, handshake }, rules) = (admitted, &self.streams.rules);
        let in_flight = &self.streams.process.in_flight;
        if !in_flight.arrive(rules.limit_concurrency) {
            return self.turn_away(envoy, Refusal::BUSY);
        }
        if rules.alt_svc.is_some() && head.version < HttpVersion::Http3 {
            self.tls.set(head.tls.is_some());
        }
        self.posted.set(true);
        let websocket = handshake.map(|handshake| self.offer_websocket(handshake));
        let request = Request {
            head: Arc::new(head),
            body: Vec::new(),
            complete,
            websocket,
            sends_files: false,
        };
        let place = self
            .streams
            .post(envoy, self.id, Inbound::Start(self.id, request));
        self.waits_at.set(place);
        self.since.set(self.streams.last_tick());
    }

    /// A new scheduler for this stream; `None` if it is over.
    pub(crate) fn scheduler(&self, current: &EnvoyFilter<'_>) -> Option<(ExchangeId, Scheduler)> {
        self.envoy
            .read(current, |envoy| (self.id, envoy.new_scheduler()))
    }

    /// The last tick before the request was let in; `None` if it was not.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since.get()
    }

    /// What the log calls the request; `None` if the stream is over.
    pub(crate) fn name(&self, current: &EnvoyFilter<'_>) -> Option<String> {
        let name = |envoy: &EnvoyFilter<'_>| Some(self.read_head_again(envoy)?.name());
        self.envoy.read(current, name).flatten()
    }

    /// The head of the request. Who needs it as a rule is the loop, which may have it by now.
    fn read_head_again(&self, envoy: &EnvoyFilter<'_>) -> Option<RequestHead> {
        let read = |envoy: &EnvoyFilter<'_>| self.streams.read_head(envoy, true).0;
        match self.under_way.get() {
            // Without a first stream there is no client.
            Some(under_way) => under_way.front().read(envoy, read),
            None => Some(read(envoy)),
        }
    }

    /// Does what the loop asks for.
    pub(crate) fn deliver(&self, current: &mut EnvoyFilter<'_>, message: Outbound) {
        if self.response.get().ended || self.is_over_in_front() {
            // Sent before the loop has heard of an answer in the application's place, or of the end.
            return;
        }
        self.envoy.with(current, |envoy| match message {
            Outbound::Start {
                head, body, end, ..
            } => self.send_head(envoy, &head, &body, end),
            Outbound::Body { data, end, .. } => self.send_body(envoy, &data, end),
            Outbound::Read(_, bytes) => match self.websocket.get() {
                Some(socket) => self.pull_frames(socket, envoy, bytes),
                None => self.pull(envoy, bytes),
            },
            Outbound::Accept { .. } | Outbound::Message(..) | Outbound::Close { .. } => {
                if let Some(socket) = self.websocket.get() {
                    self.deliver_to_socket(socket, envoy, message);
                }
            }
            // Not of one stream: see `Streams`.
            Outbound::Tick | Outbound::Running(_) => {}
            // Envoy has bytes alone: see `Request::sends_files`.
            Outbound::File(..) => {}
            Outbound::Interim { status, fields, .. } => self.send_interim(envoy, status, &fields),
            Outbound::Trailers(_, fields) => self.finish(envoy, b"", fields),
            Outbound::Fail(_, failure) => self.fail(envoy, failure),
        });
    }

    fn send_head(&self, envoy: &mut EnvoyFilter<'_>, head: &ResponseHead, body: &[u8], end: bool) {
        self.start_response();
        // On HTTP/2 and 3 the connection is not this response's alone (RFC 9113, section 8.2.2).
        let closes = head.close && self.version.get() <= HttpVersion::Http11;
        if closes || self.streams.process.in_flight.draining() {
            self.close_connection(envoy);
        }
        let status = status_digits(head.status);
        let mut headers = headers(&status, &head.fields);
        if let Some(services) = &self.streams.rules.alt_svc
            && self.tls.get()
            && head.fields.iter().all(|(name, _)| name != b"alt-svc")
        {
            headers.push(Header::new(b"alt-svc", services.as_bytes()));
        }
        if body.is_empty() {
            // Without the end Envoy would announce chunks in a 304, unlike in other heads without body.
            let holds = end && head.status != 304 && self.holds_end(0);
            let ends = end && !holds;
            if ends {
                self.end_response();
            }
            envoy.send_response_headers(&headers, ends);
            if holds {
                self.finish(envoy, b"", Fields::default());
            }
        } else {
            envoy.send_response_headers(&headers, false);
            self.send_body(envoy, body, end);
        }
    }

    fn send_body(&self, envoy: &mut EnvoyFilter<'_>, data: &[u8], end: bool) {
        if end {
            return self.finish(envoy, data, Fields::default());
        }
        let mut response = self.response.get();
        response.unreported += data.len();
        self.response.set(response);
        self.send_data(envoy, data);
        self.report_room(envoy);
    }

    /// Goes on with what Envoy has kept of the request, and with the response if there is room again.
    pub(crate) fn resume(&self, current: &mut EnvoyFilter<'_>) {
        if self.given_up.get() {
            return;
        }
        self.envoy.with(current, |envoy| {
            if self.closes.take() {
                self.close_connection(envoy);
            }
            if self.is_too_large() && !self.response.get().ended {
                self.refuse_body(envoy);
                return;
            }
            self.report_room(envoy);
            if self.held_end.borrow().is_some() {
                self.drop_kept(envoy);
            } else if let Some(socket) = self.websocket.get() {
                socket.borrow_mut().has_room();
                self.pull_frames(socket, envoy, 0);
            }
        });
    }

    /// Time has passed.
    pub(crate) fn tick(&self, current: &mut EnvoyFilter<'_>, now: Instant) {
        if self.given_up.get() {
            return;
        }
        self.envoy.with(current, |envoy| {
            let may_be_reset = self.place != Place::Behind
                && self.version.get() <= HttpVersion::Http11
                && self.streams.believes_probe();
            if may_be_reset && is_reset(envoy) {
                return envoy.reset_stream(ResetReason::LocalReset, "aiovoy_connection_reset");
            }
            if let Some(socket) = self.websocket.get() {
                self.look_at_clock(socket, envoy, now);
            }
            self.look_at_held_end(envoy, now);
        });
    }

    /// Has the client use another connection for its next request.
    fn close_connection(&self, envoy: &mut EnvoyFilter<'_>) {
        let close = |connection: &mut EnvoyFilter<'_>| {
            connection.send_go_away_and_close(true);
            if self.version.get() <= HttpVersion::Http11
                && let Some(id) = connection_id(connection)
            {
                self.streams.closes(id);
            }
        };
        match self.under_way.get() {
            // If it is over, so is its connection.
            Some(under_way) => drop(under_way.front().with(envoy, close)),
            None => close(envoy),
        }
    }

    fn send_interim(&self, envoy: &mut EnvoyFilter<'_>, status: u16, fields: &Fields) {
        let mut response = self.response.get();
        response.announced = true;
        response.unreported += interim_cost(fields);
        self.response.set(response);
        if status == 100 {
            let mut request = self.request.get();
            request.waits = false;
            self.request.set(request);
        }
        let status = status_digits(status);
        let headers = headers(&status, fields);
        match self.under_way.get() {
            // A router lets one interim head through, and drops the others. So they go past it.
            Some(under_way) => drop(under_way.front().with(envoy, |front| {
                front.send_response_headers(&headers, false);
            })),
            None => envoy.send_response_headers(&headers, false),
        }
        self.report_room(envoy);
    }

    /// From here on the response is the application's.
    fn start_response(&self) {
        let mut response = self.response.get();
        response.started = true;
        self.response.set(response);
        self.tell_front();
    }

    /// From here on the end of the stream is of our making.
    fn end_response(&self) {
        let mut response = self.response.get();
        response.ended = true;
        self.response.set(response);
    }

    /// Whether the client does not take what it is sent.
    fn is_slow(&self) -> bool {
        self.response.get().above_watermark > 0
    }

    /// Tells the loop how much Envoy has taken, unless the client is slow in reading.
    fn report_room(&self, envoy: &EnvoyFilter<'_>) {
        let mut response = self.response.get();
        let slow = self.is_slow() || (response.announced && self.is_slow_past_router());
        if response.ended || self.given_up.get() || slow || response.unreported < WINDOW_STEP {
            return;
        }
        let room = std::mem::take(&mut response.unreported);
        self.response.set(response);
        self.streams
            .post(envoy, self.id, Inbound::Room(self.id, room));
    }

    /// Gives the loop more of the body that Envoy has kept, as far as the window allows, after
    /// the application has taken `read` bytes.
    fn pull(&self, envoy: &mut EnvoyFilter<'_>, read: usize) {
        let mut body = self.request.get();
        body.unread = body.unread.saturating_sub(read);
        let room = REQUEST_WINDOW.saturating_sub(body.unread);
        let chunks = envoy.buffered_request_body();
        let kept = body.kept.min(chunks.len());
        let taken = kept.min(room);
        body.kept = kept - taken;
        self.request.set(body);
        self.give_body(envoy, chunks.first(taken), taken);
        // Last, since Envoy may read on and run `on_request_body` in the call.
        if taken > 0 {
            envoy.drain_buffered_request_body(taken);
        }
    }

    /// Gives the loop the next `length` bytes of the body, and its end if that was the last of it.
    fn give_body<'a>(
        &self,
        envoy: &EnvoyFilter<'_>,
        chunks: impl Iterator<Item = &'a [u8]>,
        length: usize,
    ) {
        let (id, mut body) = (self.id, self.request.get());
        let end = body.ended && !body.end_posted && body.kept == 0;
        body.end_posted |= end;
        let waiting = &self.streams.gathered;
        if let Some(mut request) = waiting.request(id, self.waits_at.get()) {
            body.unread += length;
            request::append(&mut request.body, chunks);
            request.complete |= end;
        } else if length > 0 || end {
            body.unread += piece_cost(length);
            let mut data = Vec::with_capacity(length);
            request::append(&mut data, chunks);
            self.streams
                .post(envoy, id, Inbound::Body { id, data, end });
        }
        self.request.set(body);
    }

    /// Leaves the last `length` bytes of a piece of the body with Envoy: see [`keeps`](Self::keeps).
    fn keep(&self, length: usize) {
        let mut body = self.request.get();
        body.kept += length;
        self.request.set(body);
    }

    /// What the body hook answers: whether Envoy has something to keep.
    fn keeps(&self) -> DataStatus {
        match self.request.get().kept {
            0 => DataStatus::StopIterationNoBuffer,
            _ => DataStatus::StopIterationAndWatermark,
        }
    }

    /// Throws away what Envoy has kept of the body.
    fn drop_kept(&self, envoy: &mut EnvoyFilter<'_>) {
        let mut body = self.request.get();
        let kept = std::mem::take(&mut body.kept);
        self.request.set(body);
        if kept > 0 {
            envoy.drain_buffered_request_body(kept);
        }
    }
}

/// Whether the client has reset the connection. Envoy does not hear of it while it does not read,
/// as it does on HTTP/1 when more has come than one request. Linux allows `TCP_FASTOPEN` only on a
/// socket that listens, or is closed; so this changes none that is in use.
fn is_reset(envoy: &mut EnvoyFilter<'_>) -> bool {
    const IPPROTO_TCP: i64 = 6;
    const TCP_FASTOPEN: i64 = 23;
    envoy.set_downstream_socket_option(IPPROTO_TCP, TCP_FASTOPEN, 0)
}

/// Whether Envoy has ended the stream because its time was up.
fn is_timed_out(envoy: &EnvoyFilter<'_>) -> bool {
    /// Envoy's flags `UT`, `SI`, `UMSDR` and `DT` among those of a response.
    const TIMED_OUT: u64 = 1 << 2 | 1 << 16 | 1 << 19 | 1 << 22;
    let flags = envoy.attribute_int(AttributeId::ResponseFlags);
    flags.is_some_and(|flags| flags & TIMED_OUT != 0)
}

fn connection_id(envoy: &EnvoyFilter<'_>) -> Option<u64> {
    envoy.attribute_int(AttributeId::ConnectionId)
}

fn status_digits(status: u16) -> [u8; 3] {
    let digit = |value: u16| b'0' + u8::try_from(value % 10).expect("one digit");
    [digit(status / 100), digit(status / 10), digit(status)]
}

fn headers<'a>(status: &'a [u8; 3], fields: &'a Fields) -> SmallVec<[Header<'a>; 16]> {
    let mut headers = SmallVec::with_capacity(fields.iter().len() + 1);
    headers.push(Header::new(b":status", status));
    headers.extend(pairs(fields));
    headers
}

fn pairs(fields: &Fields) -> impl Iterator<Item = Header<'_>> {
    let fields = fields.iter();
    fields.map(|(name, value)| Header::new(name, value))
}

#[cfg(test)]
mod tests;

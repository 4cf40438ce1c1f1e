//! Runs on: network thread.
//!
//! One request: what comes of it in, messages to the loop out, and the other way round.

use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use upstream::server::{Exchange, Flow, Piece, ResponseHead, Stream};

use super::access_log::Entry;
use super::front::Front;
use super::websocket::WebSocket;
use crate::admission::Refusal;
use crate::exchange::file::FilePart;
use crate::exchange::{
    self, Data, ExchangeId, Failure, Fields, Inbound, Outbound, REQUEST_WINDOW, Request,
    RequestHead, WINDOW_STEP, interim_cost, piece_cost,
};
use crate::websocket::handshake;

/// One request that was let in.
pub(super) struct Served {
    pub(super) id: ExchangeId,
    front: Weak<Front>,
    pub(super) stream: Stream,
    /// For the log.
    head: Arc<RequestHead>,
    /// When it came.
    pub(super) since: Instant,
    /// Where the request waits until it is given to the loop: its body may still grow.
    waits_at: usize,
    body: Cell<Body>,
    response: Cell<Response>,
    is_complete: Cell<bool>,
    /// Its line in the access log, if there is one.
    entry: Option<Box<Entry>>,
    /// What the stream is besides, if it is one.
    websocket: Option<Box<WebSocket>>,
}

/// How much of the request's body has gone to the loop.
#[derive(Debug, Clone, Copy, Default)]
struct Body {
    /// Bytes that have come.
    received: u64,
    /// Bytes given to the loop and not yet taken by the application.
    unread: usize,
    paused: bool,
}

/// How far the response has got.
#[derive(Debug, Clone, Copy, Default)]
struct Response {
    started: bool,
    ended: bool,
    /// Bytes given to the connection of which the loop has not been told.
    unreported: usize,
    /// 0 before there is one.
    status: u16,
    /// Bytes of its body, or of what has gone over the WebSocket.
    bytes: u64,
}

impl Served {
    /// A request that is let in, of which the loop hears when the turn comes.
    pub(super) fn new(
        id: ExchangeId,
        front: &Front,
        stream: Stream,
        request: Request,
        websocket: Option<Box<WebSocket>>,
        entry: Option<Box<Entry>>,
        since: Instant,
    ) -> Self {
        Self {
            id,
            front: front.this.clone(),
            stream,
            head: request.head.clone(),
            since,
            waits_at: front.post(Inbound::Start(id, request)),
            body: Cell::default(),
            response: Cell::default(),
            is_complete: Cell::default(),
            entry,
            websocket,
        }
    }

    /// What the log calls the request.
    pub(super) fn name(&self) -> String {
        self.head.name()
    }

    fn front(&self) -> Option<Rc<Front>> {
        self.front.upgrade()
    }

    /// So much was given to the connection.
    pub(super) fn has_sent(&self, cost: usize) {
        let mut response = self.response.get();
        response.unreported += cost;
        self.response.set(response);
    }

    /// The client is to wait.
    pub(super) fn pauses(&self) {
        let mut body = self.body.get();
        body.paused = true;
        self.body.set(body);
    }

    /// The client may go on, if it waits.
    pub(super) fn resumes(&self) {
        let mut body = self.body.get();
        if std::mem::replace(&mut body.paused, false) {
            self.body.set(body);
            self.stream.resume();
        }
    }

    /// From here on the response is the application's.
    pub(super) fn start_response(&self, status: u16) {
        let mut response = self.response.get();
        response.started = true;
        response.status = status;
        self.response.set(response);
    }

    /// From here on the end of the stream is of our making.
    pub(super) fn end_response(&self) {
        let mut response = self.response.get();
        response.ended = true;
        self.response.set(response);
    }

    /// Time has passed.
    pub(super) fn tick(&self, now: Instant) {
        if let Some(socket) = &self.websocket
            && !self.response.get().ended
        {
            self.look_at_clock(socket, now);
        }
    }

    pub(super) fn post(&self, message: Inbound) {
        if let Some(front) = self.front.upgrade() {
            front.post(message);
        }
    }

    /// Does what the loop asks for.
    pub(super) fn deliver(&self, message: Outbound) {
        if self.response.get().ended {
            return;
        }
        match message {
            Outbound::Start {
                head, body, end, ..
            } => {
                self.start_response(head.status);
                self.begin_response(end, body.len());
                let length = head
                    .fields
                    .iter()
                    .find(|(name, _)| *name == b"content-length")
                    .and_then(|(_, value)| exchange::decimal(value));
                let mut fields = head.fields.iter();
                let lines = ResponseHead {
                    status: head.status,
                    fields: &mut fields,
                    length,
                    close: head.close,
                };
                self.send(body, |stream, piece| stream.start(lines, piece, end));
                self.sent(end);
            }
            Outbound::Body { data, end, .. } => {
                self.begin_response(end, data.len());
                self.send(data, |stream, piece| stream.send(piece, end));
                self.sent(end);
            }
            Outbound::Read(_, bytes) => match &self.websocket {
                Some(socket) => self.pull_frames(socket, bytes),
                None => self.read(bytes),
            },
            Outbound::Interim { status, fields, .. } => {
                let mut response = self.response.get();
                response.unreported += interim_cost(&fields);
                self.response.set(response);
                self.stream.send_interim(status, &mut fields.iter());
                self.report_room();
            }
            Outbound::File(
                _,
                FilePart {
                    file,
                    offset,
                    length,
                },
            ) => {
                self.stream.send_file(file, offset, length);
            }
            Outbound::Trailers(_, fields) => {
                self.begin_response(true, 0);
                self.stream.send_trailers(&mut fields.iter());
                self.sent(true);
            }
            Outbound::Fail(_, failure) => self.fail(failure),
            Outbound::Accept { .. } | Outbound::Message(..) | Outbound::Close { .. } => {
                if let Some(socket) = &self.websocket {
                    self.deliver_to_socket(socket, message);
                }
            }
            // Not of one stream.
            Outbound::Tick | Outbound::Running(_) => {}
        }
    }

    fn begin_response(&self, end: bool, bytes: usize) {
        let mut response = self.response.get();
        response.started = true;
        response.ended |= end;
        response.unreported += bytes;
        response.bytes += bytes as u64;
        self.response.set(response);
    }

    /// Sends frames of a WebSocket.
    pub(super) fn send_frames(&self, piece: Piece<'_>) {
        let mut response = self.response.get();
        response.bytes += piece.len() as u64;
        self.response.set(response);
        self.stream.send(piece, false);
    }

    fn send(&self, data: Data, say: impl FnOnce(&Stream, Piece<'_>)) {
        match data {
            Data::Own(bytes) if bytes.len() < Data::WORTH_KEEPING => {
                say(&self.stream, Piece::Copied(&bytes));
            }
            Data::Own(bytes) => say(&self.stream, Piece::Kept(Bytes::from(bytes))),
            Data::Kept(bytes) => say(&self.stream, Piece::Kept(Bytes::from_owner(Owned(bytes)))),
        }
    }

    fn sent(&self, end: bool) {
        if end {
            self.complete();
        } else {
            self.report_room();
        }
    }

    /// The response will not be completed by the application.
    fn fail(&self, failure: Failure) {
        let refusal = match failure {
            Failure::Application => Refusal::FAILED,
            Failure::Idle => Refusal::IDLE,
            Failure::Refused => Refusal::FORBIDDEN,
            Failure::Stopping | Failure::TooLate => Refusal::STOPPING,
        };
        let started = self.response.get().started;
        self.end_response();
        if started {
            self.stream.reset();
        } else if failure == Failure::TooLate {
            self.log_refusal(None, refusal);
            self.stream.turn_back();
        } else {
            self.answer(refusal, failure != Failure::Idle);
        }
        self.complete();
    }

    /// Answers in the application's place; see [`answer`].
    fn answer(&self, refusal: Refusal, whole: bool) {
        let mut response = self.response.get();
        response.status = refusal.status;
        response.bytes = refusal.text.len() as u64;
        self.response.set(response);
        answer(&self.stream, refusal, whole);
    }

    /// Says in the log that it is refused; `status` is none if the stream is reset.
    fn log_refusal(&self, status: Option<u16>, refusal: Refusal) {
        if let Some(front) = self.front() {
            let (status, reason) = (status.map(u64::from), refusal.details.as_bytes());
            let refusals = &front.refusals;
            refusals.log(status, reason, || Some(&*self.head));
        }
    }

    /// Ends an exchange whose request has more body than it may.
    fn refuse_body(&self) {
        let Some(front) = self.front() else {
            return;
        };
        if front.gathered.take_back(self.id) {
            // The application has not heard of it, and won't.
            front.process.in_flight.return_call();
        } else {
            front.post(Inbound::Disconnect(self.id));
        }
        let started = self.response.get().started;
        self.end_response();
        let status = (!started).then_some(Refusal::BODY.status);
        self.log_refusal(status, Refusal::BODY);
        match started {
            true => self.stream.reset(),
            false => self.answer(Refusal::BODY, false),
        }
        self.complete();
    }

    /// Nothing more is said of this request. A stream that ends while something is said to it has been completed already.
    pub(super) fn complete(&self) {
        if let Some(front) = self.front.upgrade()
            && !self.is_complete.replace(true)
        {
            if let (Some(entry), Some(log)) = (&self.entry, &front.access_log) {
                let Response { status, bytes, .. } = self.response.get();
                log.end(entry, status, bytes);
            }
            front.remove(self.id);
            front.process.in_flight.complete_stream();
        }
    }

    /// Tells the loop how much was taken, unless the client is slow in reading.
    pub(super) fn report_room(&self) {
        let mut response = self.response.get();
        if response.ended || response.unreported < WINDOW_STEP || self.stream.is_slow() {
            return;
        }
        let room = std::mem::take(&mut response.unreported);
        self.response.set(response);
        self.post(Inbound::Room(self.id, room));
    }

    /// The application has taken so much.
    fn read(&self, bytes: usize) {
        let mut body = self.body.get();
        body.unread = body.unread.saturating_sub(bytes);
        self.body.set(body);
        if body.unread < REQUEST_WINDOW {
            self.resumes();
        }
    }
}

impl Exchange for Served {
    fn on_body(&self, piece: Cow<'_, [u8]>, end: bool) -> Flow {
        if let Some(socket) = &self.websocket {
            return self.on_frames(socket, &piece, end);
        }
        let (id, mut body) = (self.id, self.body.get());
        body.received += piece.len() as u64;
        let Some(front) = self.front() else {
            return Flow::Go;
        };
        if front.rules.limits_body(body.received) {
            self.refuse_body();
            return Flow::Go;
        }
        if let Some(mut request) = front.gathered.request(id, self.waits_at) {
            body.unread += piece.len();
            request.body.extend_from_slice(&piece);
            request.complete |= end;
        } else if !piece.is_empty() || end {
            body.unread += piece_cost(piece.len());
            let data = piece.into_owned();
            self.post(Inbound::Body { id, data, end });
        }
        body.paused = body.unread >= REQUEST_WINDOW && !end;
        self.body.set(body);
        match body.paused {
            true => Flow::Pause,
            false => Flow::Go,
        }
    }

    fn on_writable(&self) {
        self.report_room();
        if let Some(socket) = &self.websocket {
            socket.has_room();
            self.pull_frames(socket, 0);
        }
    }

    fn on_file(&self, sent: io::Result<usize>, is_all: bool) {
        let mut response = self.response.get();
        let sent = sent.map(|bytes| {
            response.bytes += bytes as u64;
            self.post(Inbound::Room(self.id, bytes));
        });
        self.response.set(response);
        if is_all || sent.is_err() {
            self.post(Inbound::FileSent(self.id, sent));
        }
    }

    fn on_gone(&self) {
        let mut response = self.response.get();
        response.ended = true;
        self.response.set(response);
        if let Some(front) = self.front.upgrade() {
            let socket = self.websocket.as_ref();
            let left = socket.map_or_else(Vec::new, |socket| socket.messages_left());
            for message in left {
                front.post(message);
            }
            front.post(Inbound::Disconnect(self.id));
            self.complete();
        }
    }
}

/// Answers in the application's place.
///
/// `whole` says whether all of the request is there.
pub(super) fn answer(stream: &Stream, refusal: Refusal, whole: bool) {
    let mut fields = Fields::default();
    fields.push(b"content-type", b"text/plain");
    fields.push(b"content-length", refusal.text.len().to_string().as_bytes());
    if refusal.passes() {
        fields.push(b"retry-after", b"1");
    }
    let head = ResponseHead {
        status: refusal.status,
        fields: &mut fields.iter(),
        length: Some(refusal.text.len() as u64),
        // Whether the rest of the request is wanted, the client can't know.
        close: refusal.closes() || !whole,
    };
    stream.start(head, Piece::Copied(refusal.text.as_bytes()), true);
}

/// Answers a handshake that is wrong, with `text`.
pub(super) fn answer_handshake(stream: &Stream, refusal: &handshake::Refusal, text: &str) {
    let mut fields = Fields::default();
    fields.push(b"content-type", b"text/plain");
    fields.push(b"content-length", text.len().to_string().as_bytes());
    if let Some((name, value)) = refusal.field() {
        fields.push(name.as_bytes(), value.as_bytes());
        // RFC 9110, section 15.5.22. HTTP/2 has neither, and leaves them out.
        fields.push(b"upgrade", b"websocket");
        fields.push(b"connection", b"Upgrade");
    }
    let head = ResponseHead {
        status: refusal.status(),
        fields: &mut fields.iter(),
        length: Some(text.len() as u64),
        close: false,
    };
    stream.start(head, Piece::Copied(text.as_bytes()), true);
}

/// Bytes that the loop's side keeps until they have left.
struct Owned(Box<dyn AsRef<[u8]> + Send>);

thread_local!(static DROPPED: Cell<usize> = const { Cell::new(0) });

/// Whether this thread has dropped so much of what the loop's side keeps that the loop is to be told, which frees it.
pub(super) fn take_dropped() -> bool {
    /// So many bytes may have been dropped without the loop's being told.
    const MOST: usize = 64 * 1024;
    let dropped = DROPPED.get();
    DROPPED.set(dropped % MOST);
    dropped >= MOST
}

impl Drop for Owned {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + self.as_ref().len());
    }
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

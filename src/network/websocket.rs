//! Runs on: network thread.
//!
//! A WebSocket on its stream: after the handshake the request's body is what the client sends and the
//! response's body what it gets. Frames become messages here, so that pings, closing and broken frames
//! do not wait for the application as long as there is room for what is before them.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use upstream::server::{Flow, Piece, ResponseHead};

use super::stream::Served;
use crate::exchange::{Fields, Inbound, Payload, REQUEST_WINDOW};
use crate::websocket::connection::Connection;
use crate::websocket::event::Event;
use crate::websocket::handshake::Handshake;
use crate::websocket::{ANSWERS, CLOSE_TIMEOUT, Due, PING_TIMEOUT_CODE};

/// One WebSocket. No borrow is held across a call into its stream.
pub(super) struct WebSocket {
    phase: RefCell<Phase>,
    /// What the client has sent, and there was no room for.
    kept: RefCell<Vec<u8>>,
    /// The client has ended its side.
    ended: Cell<bool>,
    /// When a ping was sent last, or a part of a frame came, or the WebSocket opened.
    pinged: Cell<Instant>,
    /// The client owes an answer to that ping.
    owes_pong: Cell<bool>,
    /// Since when the client owes a close frame.
    closing: Cell<Option<Instant>>,
    /// Bytes of answers to a client that does not take what it is sent.
    answered: Cell<usize>,
}

enum Phase {
    /// The application has not decided yet.
    Offered(Box<Handshake>),
    Open(Box<Connection>),
    /// Neither side sends any more.
    Over,
}

impl WebSocket {
    pub(super) fn new(handshake: Handshake) -> Self {
        Self {
            phase: RefCell::new(Phase::Offered(Box::new(handshake))),
            kept: RefCell::default(),
            ended: Cell::default(),
            pinged: Cell::new(Instant::now()),
            owes_pong: Cell::default(),
            closing: Cell::default(),
            answered: Cell::default(),
        }
    }

    /// The client takes its answers again.
    pub(super) fn has_room(&self) {
        self.answered.set(0);
    }

    /// Does something with the connection, if it is open.
    fn connection<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        match &mut *self.phase.borrow_mut() {
            Phase::Open(connection) => Some(act(connection)),
            _ => None,
        }
    }
}

impl Served {
    /// A piece has come.
    pub(super) fn on_frames(&self, socket: &WebSocket, piece: &[u8], end: bool) -> Flow {
        socket.ended.set(socket.ended.get() || end);
        if socket.kept.borrow().is_empty() {
            let mut rest = piece;
            self.take_frames(socket, &mut rest);
            socket.kept.borrow_mut().extend_from_slice(rest);
        } else {
            socket.kept.borrow_mut().extend_from_slice(piece);
        }
        if socket.connection(|connection| connection.is_amid_frame()) == Some(true) {
            // No pong can come before the frame's end.
            socket.pinged.set(Instant::now());
        }
        if socket.kept.borrow().is_empty() {
            self.see_end(socket);
            return Flow::Go;
        }
        self.pauses();
        Flow::Pause
    }

    /// Goes on with what was kept, after the application has taken messages of cost `read`.
    pub(super) fn pull_frames(&self, socket: &WebSocket, read: usize) {
        self.has_read(read);
        let kept = socket.kept.take();
        let mut rest = kept.as_slice();
        self.take_frames(socket, &mut rest);
        if rest.is_empty() {
            self.see_end(socket);
            self.resumes();
        } else {
            *socket.kept.borrow_mut() = rest.to_vec();
        }
    }

    /// Parses what is to be parsed now.
    fn take_frames(&self, socket: &WebSocket, rest: &mut &[u8]) {
        let mut out = Vec::new();
        while !rest.is_empty() && !self.is_full(socket, out.len()) {
            let event = match &mut *socket.phase.borrow_mut() {
                Phase::Offered(_) => break,
                Phase::Open(connection) => connection.receive(rest, &mut out),
                Phase::Over => {
                    *rest = &[];
                    None
                }
            };
            if let Some(event) = event {
                self.happened(socket, event);
            }
        }
        self.answer_frames(socket, &out);
    }

    /// What the client had sent before it went, and there was no room for. Of what was compressed
    /// no more than is kept of what was not, for nobody would wait any more: the rest is lost.
    pub(super) fn messages_left(&self, socket: &WebSocket) -> Vec<Inbound> {
        let (id, mut left, mut out) = (self.id, Vec::new(), Vec::new());
        let kept = socket.kept.take();
        let mut room = kept.len().max(REQUEST_WINDOW);
        let mut rest = kept.as_slice();
        while room > 0
            && let Some(Some(event)) =
                socket.connection(|connection| connection.receive(&mut rest, &mut out))
        {
            let payload = match event {
                Event::Text(text) => Payload::Text(text),
                Event::Binary(data) => Payload::Binary(data),
                Event::Close { code, reason } => {
                    left.push(Inbound::Closed { id, code, reason });
                    continue;
                }
                Event::Pong | Event::Failed(_) => continue,
            };
            room = room.saturating_sub(payload.len());
            left.push(Inbound::Message(id, payload));
        }
        left
    }

    /// Whether the client is to wait: for the application, or until it takes the answers to its
    /// pings, of which `more` bytes are about to be sent.
    fn is_full(&self, socket: &WebSocket, more: usize) -> bool {
        let slow = self.stream.is_slow();
        self.unread() >= REQUEST_WINDOW || (slow && socket.answered.get() + more >= ANSWERS)
    }

    fn happened(&self, socket: &WebSocket, event: Event) {
        let message = match event {
            Event::Text(text) => Payload::Text(text),
            Event::Binary(data) => Payload::Binary(data),
            Event::Pong => return socket.owes_pong.set(false),
            Event::Close { code, reason } => return self.tell_closed(code, reason),
            Event::Failed(failure) => {
                return self.tell_closed(failure.code, failure.reason.to_owned());
            }
        };
        self.has_given(message.request_cost(self.least_cost()));
        self.post(Inbound::Message(self.id, message));
    }

    fn tell_closed(&self, code: u16, reason: String) {
        let id = self.id;
        self.post(Inbound::Closed { id, code, reason });
    }

    /// Sends what the connection has written, and ends the stream if that was the last of it.
    fn answer_frames(&self, socket: &WebSocket, out: &[u8]) {
        if !out.is_empty() {
            let before = if self.stream.is_slow() {
                socket.answered.get()
            } else {
                0
            };
            socket.answered.set(before + out.len());
            self.send_frames(Piece::Copied(out));
        }
        if socket.connection(|connection| connection.is_closed()) == Some(true) {
            self.end_websocket(socket);
        }
    }

    fn end_websocket(&self, socket: &WebSocket) {
        *socket.phase.borrow_mut() = Phase::Over;
        self.end_response();
        self.stream.send(Piece::Copied(b""), true);
        self.complete();
    }

    /// Ends a WebSocket whose client has ended its side without a close frame.
    fn see_end(&self, socket: &WebSocket) {
        let open = matches!(*socket.phase.borrow(), Phase::Open(_));
        if socket.ended.get() && open {
            self.post(Inbound::Disconnect(self.id));
            self.end_websocket(socket);
        }
    }

    /// The application accepts the handshake.
    pub(super) fn accept_websocket(
        &self,
        socket: &WebSocket,
        subprotocol: Option<&str>,
        fields: &Fields,
    ) {
        let Some(front) = self.front() else {
            return;
        };
        let offer = match socket.phase.replace(Phase::Over) {
            Phase::Offered(offer) => offer,
            // The stream is over.
            other => {
                *socket.phase.borrow_mut() = other;
                return;
            }
        };
        let (connection, own) = front.websockets.open(*offer, subprotocol);
        let own: Vec<_> = own.collect();
        let upgrade = [("upgrade", "websocket"), ("connection", "Upgrade")];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let own = upgrade.into_iter().chain(own);
        let own = own.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        *socket.phase.borrow_mut() = Phase::Open(Box::new(connection));
        socket.pinged.set(Instant::now());
        self.start_response(101);
        let head = ResponseHead {
            status: 101,
            fields: &mut own.chain(fields.iter()),
            length: None,
            close: false,
        };
        self.stream.start(head, Piece::Copied(b""), false);
        self.pull_frames(socket, 0);
    }

    /// A message of the application's.
    pub(super) fn send_message(&self, socket: &WebSocket, payload: Payload) {
        let mut out = Vec::new();
        let rest = socket.connection(|connection| match &payload {
            Payload::Text(text) => connection.send_text(text, &mut out).len(),
            Payload::Binary(data) => connection.send_binary(data, &mut out).len(),
        });
        if out.is_empty() {
            return;
        }
        self.has_sent(payload.response_cost());
        self.send_frames(Piece::Copied(&out));
        if rest.is_some_and(|rest| rest > 0) {
            let (Payload::Text(data) | Payload::Binary(data)) = payload;
            self.send_frames(Piece::Kept(data.into()));
        }
        self.report_room();
    }

    /// Begins the closing handshake.
    pub(super) fn close_websocket(&self, socket: &WebSocket, code: u16, reason: &str) {
        let mut out = Vec::new();
        let sent = socket.connection(|connection| connection.close(code, reason, &mut out));
        if let Some(Err(error)) = sent {
            log::error!("a WebSocket is not closed: {error}");
        }
        socket.closing.set(Some(Instant::now()));
        self.answer_frames(socket, &out);
        // What is left unread is for nobody any more; the client's close frame is behind it.
        self.has_read(usize::MAX);
        self.pull_frames(socket, 0);
    }

    pub(super) fn look_at_clock(&self, socket: &WebSocket, now: Instant) {
        if let Some(since) = socket.closing.get() {
            let open = matches!(*socket.phase.borrow(), Phase::Open(_));
            if open && now.duration_since(since) >= CLOSE_TIMEOUT {
                self.end_websocket(socket);
            }
            return;
        }
        if self.is_full(socket, 0) {
            // Its pong may be behind what there is no room for. A client that has gone is found by
            // TCP, for which there are pings still.
            socket.owes_pong.set(false);
        }
        let Some(front) = self.front() else {
            return;
        };
        let waited = now.duration_since(socket.pinged.get());
        let mut out = Vec::new();
        match front.websockets.due(socket.owes_pong.get(), waited) {
            Due::Nothing => {}
            Due::Ping => {
                let pinged = socket.connection(|connection| connection.ping(b"", &mut out));
                if pinged.is_some() {
                    socket.pinged.set(now);
                    socket.owes_pong.set(true);
                    self.send_frames(Piece::Copied(&out));
                }
            }
            Due::End => {
                let reason = "keepalive ping timeout";
                let closed = socket
                    .connection(|connection| connection.close(PING_TIMEOUT_CODE, reason, &mut out));
                if matches!(closed, Some(Ok(()))) {
                    self.send_frames(Piece::Copied(&out));
                    self.tell_closed(PING_TIMEOUT_CODE, reason.to_owned());
                    // It will not answer this either.
                    self.end_websocket(socket);
                }
            }
        }
    }
}

//! Runs on: Envoy worker thread.
//!
//! A WebSocket on its stream: after the handshake, which is a response head with status 101 on
//! every protocol, the request's body is what the client sends and the response's body what it
//! gets. Frames become messages here, so that pings, closing and broken frames do not wait for the
//! application as long as there is room for what is before them.
//!
//! What the client sends is taken while the application has room for messages
//! ([`REQUEST_WINDOW`]) and while the client takes the answers to its pings ([`ANSWERS`]). The rest
//! stays in Envoy, which stops reading above its buffer limit.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use envoy::{DataStatus, EnvoyFilter, Header};

use super::{Filter, pairs};
use crate::admission::clock::now;
use crate::exchange::{Fields, Inbound, Payload, REQUEST_WINDOW, WebSocketOffer};
use crate::websocket::connection::Connection;
use crate::websocket::event::Event;
use crate::websocket::handshake::{Handshake, Refusal};
use crate::websocket::{ANSWERS, CLOSE_TIMEOUT, Due, PING_TIMEOUT_CODE};

/// One WebSocket. No borrow is held across a call into Envoy.
pub(super) struct WebSocket {
    phase: RefCell<Phase>,
    /// When a ping was sent last, or a part of a frame came, or the WebSocket opened.
    pinged: Cell<Instant>,
    /// The client owes an answer to that ping.
    pong_due: Cell<bool>,
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
    fn new(handshake: Handshake) -> Self {
        Self {
            phase: RefCell::new(Phase::Offered(Box::new(handshake))),
            pinged: Cell::new(now()),
            pong_due: Cell::default(),
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

impl Filter {
    /// Makes the stream a WebSocket. Gives what the loop is to know of it.
    pub(super) fn offer_websocket(&self, handshake: Handshake) -> Box<WebSocketOffer> {
        let told = WebSocketOffer {
            subprotocols: handshake.subprotocols.clone(),
            least_cost: self.streams.websockets.least_cost,
        };
        // Set once: a stream has one request.
        let _ = self.websocket.set(Box::new(WebSocket::new(handshake)));
        Box::new(told)
    }

    /// Answers a handshake that is wrong.
    pub(super) fn refuse_handshake(&self, envoy: &mut EnvoyFilter<'_>, refusal: &Refusal) {
        const DETAILS: &str = "aiovoy_websocket_handshake";
        let (status, text) = (refusal.status(), refusal.to_string());
        self.log_refusal(envoy, Some(status.into()), text.as_bytes());
        self.end_response();
        let field = refusal.field();
        let headers: Vec<_> = field
            .iter()
            .map(|(name, value)| Header::new(name.as_bytes(), value.as_bytes()))
            .collect();
        envoy.send_response(status.into(), &headers, text.as_bytes(), DETAILS);
    }

    /// A piece of `length` bytes has come.
    pub(super) fn on_frames(
        &self,
        socket: &WebSocket,
        envoy: &mut EnvoyFilter<'_>,
        length: usize,
    ) -> DataStatus {
        if self.request.get().kept > 0 {
            self.keep(length);
            return self.keeps();
        }
        let mut out = self.streams.scratch();
        let taken = self.take_frames(
            socket,
            envoy,
            envoy.received_request_body().iter(),
            &mut out,
        );
        if taken < length {
            envoy.drain_received_request_body(taken);
            self.keep(length - taken);
        }
        if socket.connection(|connection| connection.is_amid_frame()) == Some(true) {
            // No pong can come before the frame's end.
            socket.pinged.set(now());
        }
        self.answer_frames(socket, envoy, out);
        if taken == length {
            self.see_end(envoy);
        }
        self.keeps()
    }

    /// Goes on with what Envoy has kept, after the application has taken messages of cost `read`.
    pub(super) fn pull_frames(&self, socket: &WebSocket, envoy: &mut EnvoyFilter<'_>, read: usize) {
        let mut body = self.request.get();
        body.unread = body.unread.saturating_sub(read);
        self.request.set(body);
        let mut out = self.streams.scratch();
        let chunks = envoy.buffered_request_body();
        let kept = body.kept.min(chunks.len());
        let taken = self.take_frames(socket, envoy, chunks.first(kept), &mut out);
        let mut body = self.request.get();
        body.kept = kept - taken;
        self.request.set(body);
        self.answer_frames(socket, envoy, out);
        if taken == kept {
            self.see_end(envoy);
        }
        // Last, since Envoy may read on and run `on_request_body` in the call.
        if taken > 0 {
            envoy.drain_buffered_request_body(taken);
        }
    }

    /// Parses what is to be parsed now. Returns how many bytes that were.
    fn take_frames<'a>(
        &self,
        socket: &WebSocket,
        envoy: &EnvoyFilter<'_>,
        chunks: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut taken = 0;
        for mut chunk in chunks {
            let length = chunk.len();
            while !chunk.is_empty() && !self.is_full(socket, out.len()) {
                let event = match &mut *socket.phase.borrow_mut() {
                    Phase::Offered(_) => return taken,
                    Phase::Open(connection) => connection.receive(&mut chunk, out),
                    Phase::Over => {
                        chunk = &[];
                        None
                    }
                };
                if let Some(event) = event {
                    self.happened(socket, envoy, event);
                }
            }
            taken += length - chunk.len();
            if !chunk.is_empty() {
                break;
            }
        }
        taken
    }

    /// What the client had sent before it went, and there was no room for. Of what was compressed
    /// no more than is kept of what was not, for nobody would wait any more: the rest is lost.
    pub(super) fn messages_left(
        &self,
        socket: &WebSocket,
        envoy: &EnvoyFilter<'_>,
    ) -> Vec<Inbound> {
        let (id, mut left, mut out) = (self.id, Vec::new(), Vec::new());
        let Phase::Open(connection) = &mut *socket.phase.borrow_mut() else {
            return left;
        };
        let kept = self.request.get().kept;
        let mut room = kept.max(REQUEST_WINDOW);
        for mut chunk in envoy.buffered_request_body().first(kept) {
            while room > 0
                && let Some(event) = connection.receive(&mut chunk, &mut out)
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
        }
        left
    }

    /// Whether the client is to wait: for the application, or until it takes the answers to its
    /// pings, of which `more` bytes are about to be sent.
    fn is_full(&self, socket: &WebSocket, more: usize) -> bool {
        let slow = self.response.get().above_watermark > 0;
        self.request.get().unread >= REQUEST_WINDOW
            || (slow && socket.answered.get() + more >= ANSWERS)
    }

    fn happened(&self, socket: &WebSocket, envoy: &EnvoyFilter<'_>, event: Event) {
        let message = match event {
            Event::Text(text) => Payload::Text(text),
            Event::Binary(data) => Payload::Binary(data),
            Event::Pong => return socket.pong_due.set(false),
            Event::Close { code, reason } => return self.tell_closed(envoy, code, reason),
            Event::Failed(failure) => {
                return self.tell_closed(envoy, failure.code, failure.reason.to_owned());
            }
        };
        let mut body = self.request.get();
        body.unread += message.request_cost(self.streams.websockets.least_cost);
        self.request.set(body);
        self.streams
            .post(envoy, self.id, Inbound::Message(self.id, message));
    }

    fn tell_closed(&self, envoy: &EnvoyFilter<'_>, code: u16, reason: String) {
        let id = self.id;
        self.streams
            .post(envoy, id, Inbound::Closed { id, code, reason });
    }

    /// Sends what the connection has written, and ends the stream if that was the last of it.
    fn answer_frames(&self, socket: &WebSocket, envoy: &mut EnvoyFilter<'_>, out: Vec<u8>) {
        if !out.is_empty() {
            let slow = self.response.get().above_watermark > 0;
            let before = if slow { socket.answered.get() } else { 0 };
            socket.answered.set(before + out.len());
            envoy.send_response_data(&out, false);
        }
        self.streams.give_back(out);
        if socket.connection(|connection| connection.is_closed()) == Some(true) {
            self.end_websocket(socket, envoy);
        }
    }

    fn end_websocket(&self, socket: &WebSocket, envoy: &mut EnvoyFilter<'_>) {
        *socket.phase.borrow_mut() = Phase::Over;
        if socket.closing.get().is_some() {
            // The client has answered our close frame, hence has all that was sent before, or has
            // had its time.
            self.end_response();
            return envoy.send_response_data(b"", true);
        }
        self.finish(envoy, b"", Fields::default());
    }

    /// Ends a WebSocket whose client has ended its side without a close frame.
    fn see_end(&self, envoy: &mut EnvoyFilter<'_>) {
        let Some(socket) = self.websocket.get() else {
            return;
        };
        let open = matches!(*socket.phase.borrow(), Phase::Open(_));
        if self.request.get().ended && open {
            self.end_websocket(socket, envoy);
            self.streams
                .post(envoy, self.id, Inbound::Disconnect(self.id));
        }
    }

    /// The application accepts the handshake.
    pub(super) fn accept_websocket(
        &self,
        envoy: &mut EnvoyFilter<'_>,
        subprotocol: Option<&str>,
        fields: &Fields,
    ) {
        let Some(socket) = self.websocket.get() else {
            return;
        };
        let settings = &self.streams.websockets;
        let phase = socket.phase.replace(Phase::Over);
        let offer = match phase {
            Phase::Offered(offer) => offer,
            // The stream is over.
            other => {
                *socket.phase.borrow_mut() = other;
                return;
            }
        };
        let (connection, own) = settings.open(*offer, subprotocol);
        let own: Vec<_> = own.collect();
        let mut headers = vec![
            Header::new(b":status", b"101"),
            Header::new(b"upgrade", b"websocket"),
            Header::new(b"connection", b"Upgrade"),
        ];
        let own = own.iter();
        headers.extend(own.map(|(name, value)| Header::new(name.as_bytes(), value.as_bytes())));
        headers.extend(pairs(fields));
        *socket.phase.borrow_mut() = Phase::Open(Box::new(connection));
        socket.pinged.set(now());
        self.start_response();
        envoy.send_response_headers(&headers, false);
        self.pull_frames(socket, envoy, 0);
    }

    /// A message of the application's.
    pub(super) fn send_message(&self, envoy: &mut EnvoyFilter<'_>, payload: &Payload) {
        let Some(socket) = self.websocket.get() else {
            return;
        };
        let mut out = self.streams.scratch();
        let rest = socket.connection(|connection| match payload {
            Payload::Text(text) => connection.send_text(text, &mut out),
            Payload::Binary(data) => connection.send_binary(data, &mut out),
        });
        if !out.is_empty() {
            let mut response = self.response.get();
            response.unreported += payload.response_cost();
            self.response.set(response);
            self.send_data(envoy, &out);
            if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                self.send_data(envoy, rest);
            }
            self.report_room(envoy);
        }
        self.streams.give_back(out);
    }

    /// Begins the closing handshake.
    pub(super) fn close_websocket(&self, envoy: &mut EnvoyFilter<'_>, code: u16, reason: &str) {
        let Some(socket) = self.websocket.get() else {
            return;
        };
        let mut out = self.streams.scratch();
        let sent = socket.connection(|connection| connection.close(code, reason, &mut out));
        if let Some(Err(error)) = sent {
            log::error!("a WebSocket is not closed: {error}");
        }
        socket.closing.set(Some(now()));
        self.answer_frames(socket, envoy, out);
        // What is left unread is for nobody any more; the client's close frame is behind it.
        let mut body = self.request.get();
        body.unread = 0;
        self.request.set(body);
        self.pull_frames(socket, envoy, 0);
    }

    pub(crate) fn is_websocket(&self) -> bool {
        self.websocket.get().is_some()
    }

    pub(super) fn look_at_clock(
        &self,
        socket: &WebSocket,
        envoy: &mut EnvoyFilter<'_>,
        now: Instant,
    ) {
        if let Some(since) = socket.closing.get() {
            let open = matches!(*socket.phase.borrow(), Phase::Open(_));
            if open && now.duration_since(since) >= CLOSE_TIMEOUT {
                self.end_websocket(socket, envoy);
            }
            return;
        }
        if self.is_full(socket, 0) {
            // Its pong may be behind what there is no room for. A client that has gone is found by
            // TCP, for which there are pings still.
            socket.pong_due.set(false);
        }
        let waited = now.duration_since(socket.pinged.get());
        let mut out = self.streams.scratch();
        match self.streams.websockets.due(socket.pong_due.get(), waited) {
            Due::Nothing => {}
            Due::Ping => {
                let pinged = socket.connection(|connection| connection.ping(b"", &mut out));
                if pinged.is_some() {
                    socket.pinged.set(now);
                    socket.pong_due.set(true);
                    envoy.send_response_data(&out, false);
                }
            }
            Due::End => {
                let reason = "keepalive ping timeout";
                let closed = socket
                    .connection(|connection| connection.close(PING_TIMEOUT_CODE, reason, &mut out));
                if matches!(closed, Some(Ok(()))) {
                    envoy.send_response_data(&out, false);
                    self.tell_closed(envoy, PING_TIMEOUT_CODE, reason.to_owned());
                    // It will not answer this either.
                    self.end_websocket(socket, envoy);
                }
            }
        }
        self.streams.give_back(out);
    }
}

//! Runs on: network thread.
//!
//! A WebSocket on its stream: after the handshake the request's body is what the client sends and the
//! response's body what it gets.

use std::cell::{Cell, RefCell};
use std::iter::once;
use std::time::Instant;

use upstream::server::{Flow, Piece, ResponseHead};

use super::stream::Served;
use crate::exchange::{Inbound, Outbound, Payload};
use crate::websocket::Session;

/// One WebSocket. No borrow is held across a call into its stream.
pub(super) struct WebSocket {
    session: RefCell<Session>,
    /// What the client has sent, and there was no room for.
    kept: RefCell<Vec<u8>>,
    /// The client has ended its side.
    ended: Cell<bool>,
}

impl WebSocket {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session: session.into(),
            kept: RefCell::default(),
            ended: Cell::default(),
        }
    }

    /// The client takes its answers again.
    pub(super) fn has_room(&self) {
        self.session.borrow_mut().has_room();
    }

    /// What the client had sent before it went.
    pub(super) fn messages_left(&self) -> Vec<Inbound> {
        let kept = self.kept.take();
        let chunks = once(kept.as_slice());
        self.session.borrow_mut().left(kept.len(), chunks)
    }
}

impl Served {
    /// A piece has come.
    pub(super) fn on_frames(&self, socket: &WebSocket, piece: &[u8], end: bool) -> Flow {
        socket.ended.set(socket.ended.get() || end);
        if socket.kept.borrow().is_empty() {
            self.take_frames(socket, piece);
            socket.session.borrow_mut().has_come(Instant::now);
        } else {
            socket.kept.borrow_mut().extend_from_slice(piece);
        }
        if socket.kept.borrow().is_empty() {
            return Flow::Go;
        }
        self.pauses();
        Flow::Pause
    }

    /// Goes on with what was kept, after the application has taken messages of cost `read`.
    pub(super) fn pull_frames(&self, socket: &WebSocket, read: usize) {
        socket.session.borrow_mut().has_read(read);
        self.take_frames(socket, &socket.kept.take());
        if socket.kept.borrow().is_empty() {
            self.resumes();
        }
    }

    /// Takes what is to be taken now, and keeps the rest.
    fn take_frames(&self, socket: &WebSocket, mut data: &[u8]) {
        let (is_slow, mut out) = (self.stream.is_slow(), Vec::new());
        loop {
            let mut session = socket.session.borrow_mut();
            let message = session.receive(&mut data, is_slow, &mut out);
            drop(session);
            let Some(message) = message else { break };
            self.post(message);
        }
        *socket.kept.borrow_mut() = data.to_vec();
        self.answer_frames(socket, &out);
    }

    /// Sends what the WebSocket has written, and ends the stream if that was the last of it. That happens once: an ended
    /// stream hears nothing.
    fn answer_frames(&self, socket: &WebSocket, out: &[u8]) {
        if !out.is_empty() {
            self.send_frames(Piece::Copied(out));
        }
        if socket.ended.get() && socket.kept.borrow().is_empty() {
            let gone = socket.session.borrow_mut().client_ends();
            gone.into_iter().for_each(|gone| self.post(gone));
        }
        if socket.session.borrow().is_over() {
            self.end_response();
            self.stream.send(Piece::Copied(b""), true);
            self.complete();
        }
    }

    /// Does what the loop asks for.
    pub(super) fn deliver_to_socket(&self, socket: &WebSocket, message: Outbound) {
        match message {
            Outbound::Accept {
                subprotocol,
                fields,
                ..
            } => {
                let (subprotocol, now) = (subprotocol.as_deref(), Instant::now());
                let fields = socket
                    .session
                    .borrow_mut()
                    .accept(subprotocol, &fields, now);
                let Some(fields) = fields else { return };
                self.start_response(101);
                let head = ResponseHead {
                    status: 101,
                    fields: &mut fields.iter(),
                    length: None,
                    close: false,
                };
                self.stream.start(head, Piece::Copied(b""), false);
                self.pull_frames(socket, 0);
            }
            Outbound::Message(_, payload) => self.send_message(socket, payload),
            Outbound::Close { code, reason, .. } => {
                let (mut out, now) = (Vec::new(), Instant::now());
                socket
                    .session
                    .borrow_mut()
                    .close(code, &reason, now, &mut out);
                self.answer_frames(socket, &out);
                self.pull_frames(socket, 0);
            }
            _ => {}
        }
    }

    /// A message of the application's.
    fn send_message(&self, socket: &WebSocket, payload: Payload) {
        let mut out = Vec::new();
        let rest = socket.session.borrow_mut().send(&payload, &mut out).len();
        if out.is_empty() {
            return;
        }
        self.has_sent(payload.response_cost());
        self.send_frames(Piece::Copied(&out));
        if rest > 0 {
            let (Payload::Text(data) | Payload::Binary(data)) = payload;
            self.send_frames(Piece::Kept(data.into()));
        }
        self.report_room();
    }

    pub(super) fn look_at_clock(&self, socket: &WebSocket, now: Instant) {
        let (is_slow, mut out) = (self.stream.is_slow(), Vec::new());
        let told = socket.session.borrow_mut().tick(now, is_slow, &mut out);
        told.into_iter().for_each(|told| self.post(told));
        self.answer_frames(socket, &out);
    }
}

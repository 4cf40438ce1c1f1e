//! Runs on: Envoy worker thread.
//!
//! A WebSocket on its stream: after the handshake, which is a response head with status 101 on
//! every protocol, the request's body is what the client sends and the response's body what it
//! gets. What there is no room for stays in Envoy, which stops reading above its buffer limit.

use std::cell::RefCell;
use std::time::Instant;

use envoy::{DataStatus, EnvoyFilter, Header};

use super::{Filter, headers, status_digits};
use crate::admission::clock::now;
use crate::exchange::{Fields, Inbound, Outbound, Payload, WebSocketOffer};
use crate::websocket::Session;
use crate::websocket::handshake::{Handshake, Refusal};

/// One WebSocket. No borrow is held across a call into Envoy.
pub(super) type WebSocket = RefCell<Session>;

impl Filter {
    /// Makes the stream a WebSocket. Gives what the loop is to know of it.
    pub(super) fn offer_websocket(&self, handshake: Handshake) -> Box<WebSocketOffer> {
        let settings = &self.streams.websockets;
        let told = settings.offer(&handshake);
        let session = Session::new(self.id, settings.clone(), handshake, now());
        // Set once: a stream has one request.
        let _ = self.websocket.set(Box::new(session.into()));
        told
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
        let pieces = envoy.received_request_body();
        let taken = self.take_frames(socket, envoy, pieces.iter(), &mut out);
        if taken < length {
            envoy.drain_received_request_body(taken);
            self.keep(length - taken);
        }
        socket.borrow_mut().has_come(now);
        self.send_frames(socket, envoy, out);
        self.keeps()
    }

    /// Goes on with what Envoy has kept, after the application has taken messages of cost `read`.
    pub(super) fn pull_frames(&self, socket: &WebSocket, envoy: &mut EnvoyFilter<'_>, read: usize) {
        socket.borrow_mut().has_read(read);
        let mut out = self.streams.scratch();
        let chunks = envoy.buffered_request_body();
        let mut body = self.request.get();
        let kept = body.kept.min(chunks.len());
        let taken = self.take_frames(socket, envoy, chunks.first(kept), &mut out);
        body.kept = kept - taken;
        self.request.set(body);
        self.send_frames(socket, envoy, out);
        // Last, since Envoy may read on and run `on_request_body` in the call.
        if taken > 0 {
            envoy.drain_buffered_request_body(taken);
        }
    }

    /// Takes what is to be taken now. Returns how many bytes that were.
    fn take_frames<'a>(
        &self,
        socket: &WebSocket,
        envoy: &EnvoyFilter<'_>,
        chunks: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> usize {
        let is_slow = self.is_slow();
        let mut taken = 0;
        for mut chunk in chunks {
            let length = chunk.len();
            loop {
                let message = socket.borrow_mut().receive(&mut chunk, is_slow, out);
                let Some(message) = message else { break };
                self.streams.post(envoy, self.id, message);
            }
            taken += length - chunk.len();
            if !chunk.is_empty() {
                break;
            }
        }
        taken
    }

    /// Sends what the WebSocket has written, and ends the stream if that was the last of it.
    fn send_frames(&self, socket: &WebSocket, envoy: &mut EnvoyFilter<'_>, out: Vec<u8>) {
        if !out.is_empty() {
            envoy.send_response_data(&out, false);
        }
        self.streams.give_back(out);
        let body = self.request.get();
        if body.ended && body.kept == 0 {
            let gone = socket.borrow_mut().client_ends();
            if let Some(gone) = gone {
                self.streams.post(envoy, self.id, gone);
            }
        }
        if !socket.borrow().is_over() || self.response.get().ended {
            return;
        }
        if socket.borrow().is_closing() {
            self.end_response();
            return envoy.send_response_data(b"", true);
        }
        self.finish(envoy, b"", Fields::default());
    }

    /// What the client had sent before it went.
    pub(super) fn messages_left(
        &self,
        socket: &WebSocket,
        envoy: &EnvoyFilter<'_>,
    ) -> Vec<Inbound> {
        let kept = self.request.get().kept;
        let chunks = envoy.buffered_request_body();
        socket.borrow_mut().left(kept, chunks.first(kept))
    }

    /// Does what the loop asks for.
    pub(super) fn deliver_to_socket(
        &self,
        socket: &WebSocket,
        envoy: &mut EnvoyFilter<'_>,
        message: Outbound,
    ) {
        match message {
            Outbound::Accept {
                subprotocol,
                fields,
                ..
            } => {
                let subprotocol = subprotocol.as_deref();
                let fields = socket.borrow_mut().accept(subprotocol, &fields, now());
                if let Some(fields) = fields {
                    self.start_response();
                    envoy.send_response_headers(&headers(&status_digits(101), &fields), false);
                    self.pull_frames(socket, envoy, 0);
                }
            }
            Outbound::Message(_, payload) => self.send_message(socket, envoy, &payload),
            Outbound::Close { code, reason, .. } => {
                let mut out = self.streams.scratch();
                socket.borrow_mut().close(code, &reason, now(), &mut out);
                self.send_frames(socket, envoy, out);
                self.pull_frames(socket, envoy, 0);
            }
            _ => {}
        }
    }

    /// A message of the application's.
    fn send_message(&self, socket: &WebSocket, envoy: &mut EnvoyFilter<'_>, payload: &Payload) {
        let mut out = self.streams.scratch();
        let rest = socket.borrow_mut().send(payload, &mut out);
        if !out.is_empty() {
            let mut response = self.response.get();
            response.unreported += payload.response_cost();
            self.response.set(response);
            self.send_data(envoy, &out);
            if !rest.is_empty() {
                self.send_data(envoy, rest);
            }
            self.report_room(envoy);
        }
        self.streams.give_back(out);
    }

    pub(super) fn look_at_clock(
        &self,
        socket: &WebSocket,
        envoy: &mut EnvoyFilter<'_>,
        now: Instant,
    ) {
        let mut out = self.streams.scratch();
        let told = socket.borrow_mut().tick(now, self.is_slow(), &mut out);
        if let Some(told) = told {
            self.streams.post(envoy, self.id, told);
        }
        self.send_frames(socket, envoy, out);
    }
}

//! Runs on: network thread.
//!
//! What a service can say to a request of HTTP/1.

use std::fs::File;
use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use super::file::Part;
use super::lines::{Framed, Lines, write_field, write_status};
use super::{Body, Connection, Phase, Response, State};
use crate::server::{Ends, Network, Piece, ResponseHead, Version};

/// A request on a connection.
#[derive(Clone)]
pub(in crate::server) struct Stream {
    pub(super) connection: Rc<Connection>,
    pub(super) number: u64,
}

impl Stream {
    /// Does something with the connection, if this is still its request.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.connection.state.borrow_mut();
        (state.number == self.number).then(|| act(&mut state))
    }

    pub(in crate::server) fn ends(&self) -> &Ends {
        &self.connection.ends
    }

    pub(in crate::server) fn is_slow(&self) -> bool {
        self.connection.state.borrow().slow
    }

    pub(in crate::server) fn start(&self, head: ResponseHead<'_, '_>, body: Piece<'_>, end: bool) {
        let network = &self.connection.network;
        let upgrades = head.status == 101;
        let started = self.with(|state| {
            if state.response != Response::Waiting {
                return false;
            }
            state.closes |= head.close || network.service.drains();
            // What its client may have sent already is no request.
            state.closes |= state.said.websocket && !upgrades;
            if matches!(state.phase, Phase::Body(_)) && state.said.expects_continue {
                // Whether it will send the body is not to be known (RFC 9110, section 10.1.1).
                state.closes = true;
            }
            let is_new = state.said.version != Version::Http10;
            let (framing, added) = match head.status {
                101 => {
                    state.phase = Phase::Raw;
                    (Body::Plain, Framed::Upgraded)
                }
                204 | 304 => (Body::None, Framed::Already),
                _ if state.said.head_only => (Body::None, Framed::Already),
                _ if head.length.is_some() => (Body::Plain, Framed::Already),
                _ if end => (Body::Plain, Framed::Length(body.len())),
                _ if is_new => (Body::Chunked, Framed::Chunks),
                _ => {
                    state.closes = true;
                    (Body::Plain, Framed::Already)
                }
            };
            state.response = Response::Started(framing);
            let lines = Lines {
                status: head.status,
                framed: added,
                closes: state.closes,
                keeps: !is_new,
            };
            let date = network.date();
            state
                .out
                .append(network, |out| lines.write(out, head.fields, &date));
            state.push(network, body, end);
            true
        });
        if started == Some(true) {
            self.sent(end);
        }
        if upgrades && !self.connection.parsing.get() {
            // For what has come behind the request.
            self.connection.wake();
        }
    }

    pub(in crate::server) fn send(&self, body: Piece<'_>, end: bool) {
        let network = &self.connection.network;
        if self.with(|state| state.push(network, body, end)).is_some() {
            self.sent(end);
        }
    }

    pub(in crate::server) fn send_file(&self, file: File, offset: u64, length: usize) {
        let network = &self.connection.network;
        let sent = self.with(|state| {
            let Response::Started(body @ (Body::Plain | Body::Chunked)) = state.response else {
                return;
            };
            let part = Part {
                file: Arc::new(file),
                offset,
                length,
            };
            if body == Body::Plain {
                return state.out.push_file(part);
            }
            state.out.append(network, |out| write_chunk(out, length));
            state.out.push_file(part);
            let end = |out: &mut Vec<u8>| out.extend_from_slice(b"\r\n");
            state.out.append(network, end);
        });
        if sent.is_some() {
            self.sent(false);
        }
    }

    pub(in crate::server) fn send_trailers<'a>(
        &self,
        trailers: &mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a),
    ) {
        let network = &self.connection.network;
        let sent = self.with(|state| {
            if state.response == Response::Started(Body::Chunked) {
                state.out.append(network, |out| {
                    out.extend_from_slice(b"0\r\n");
                    trailers.for_each(|(name, value)| write_field(out, name, value));
                    out.extend_from_slice(b"\r\n");
                });
            }
        });
        if sent.is_some() {
            self.sent(true);
        }
    }

    pub(in crate::server) fn send_interim<'a>(
        &self,
        status: u16,
        fields: &mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a),
    ) {
        let network = &self.connection.network;
        let sent = self.with(|state| {
            if state.response != Response::Waiting || state.said.version == Version::Http10 {
                return;
            }
            state.said.expects_continue &= status != 100;
            state.out.append(network, |out| {
                write_status(out, status);
                fields.for_each(|(name, value)| write_field(out, name, value));
                out.extend_from_slice(b"\r\n");
            });
        });
        if sent.is_some() {
            self.connection.queue();
        }
    }

    pub(in crate::server) fn reset(&self) {
        let ends_by_closing = self.with(|state| {
            drop(state.exchange.take());
            state.ends_by_closing()
        });
        if let Some(ends_by_closing) = ends_by_closing {
            self.connection.cut(ends_by_closing);
        }
    }

    pub(in crate::server) fn resume(&self) {
        if self.with(|state| state.paused = false).is_some() && !self.connection.parsing.get() {
            self.connection.go_on();
            self.connection.wake();
        }
    }

    fn sent(&self, end: bool) {
        if end {
            self.connection.finish();
        }
        self.connection.queue();
    }
}

/// The line before a chunk.
fn write_chunk(out: &mut Vec<u8>, length: usize) {
    // Writing to memory can't fail.
    let _ = write!(out, "{length:x}\r\n");
}

impl State {
    /// Whether the end of the connection would be taken for that of the response.
    pub(super) fn ends_by_closing(&self) -> bool {
        self.response == Response::Started(Body::Plain) && self.said.version == Version::Http10
    }

    /// Appends a piece of the response's body, and its end.
    fn push(&mut self, network: &Network, body: Piece<'_>, end: bool) {
        match self.response {
            Response::Started(Body::Plain) if !body.is_empty() => self.out.push(network, body),
            Response::Started(Body::Chunked) => {
                let length = body.len();
                if length > 0 {
                    self.out.append(network, |out| write_chunk(out, length));
                    self.out.push(network, body);
                }
                let last: &[u8] = match (length > 0, end) {
                    (true, true) => b"\r\n0\r\n\r\n",
                    (true, false) => b"\r\n",
                    (false, true) => b"0\r\n\r\n",
                    (false, false) => b"",
                };
                if !last.is_empty() {
                    self.out.append(network, |out| out.extend_from_slice(last));
                }
            }
            _ => {}
        }
    }
}

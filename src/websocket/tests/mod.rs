//! The protocol from outside: bytes of a client in, events and the server's frames out.

mod closing;
mod compression;
mod framing;
mod random;
mod text;

use super::close::Failure;
use super::connection::Connection;
use super::event::Event;
use super::frame::Opcode;
use super::negotiation::{Agreement, negotiate};

pub(crate) const FIN: u8 = 0x80;
pub(crate) const RSV1: u8 = 0x40;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

const MAX_LEN: usize = 1 << 20;

/// A masked frame, `first` its first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = Vec::new();
    super::frame::write(Opcode::Text, false, payload, &mut frame);
    let head_len = frame.len() - payload.len();
    frame[0] = first;
    frame[1] |= 0x80;
    for (byte, mask) in frame[head_len..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    frame.splice(head_len..head_len, mask);
    frame
}

pub(crate) fn script(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|(first, payload)| frame(*first, payload))
        .collect()
}

/// What a connection makes of its input.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    out: Vec<u8>,
}

impl Outcome {
    fn receive(&mut self, connection: &mut Connection, mut data: &[u8]) {
        while let Some(event) = connection.receive(&mut data, &mut self.out) {
            self.events.push(event);
        }
        assert!(data.is_empty(), "all is taken");
    }

    /// The server's frames: first byte and payload.
    fn frames(&self) -> Vec<(u8, Vec<u8>)> {
        frames(&self.out)
    }
}

/// What `connection` makes of `pieces`.
fn receive<'a>(connection: &mut Connection, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut outcome = Outcome::default();
    for piece in pieces {
        outcome.receive(connection, piece);
    }
    outcome
}

/// What a new connection makes of `frames`: the same, in whatever pieces they come.
fn outcome(frames: &[(u8, &[u8])]) -> Outcome {
    outcome_of(&script(frames))
}

fn outcome_of(input: &[u8]) -> Outcome {
    let new = || Connection::new(MAX_LEN, None);
    let whole = receive(&mut new(), [input]);
    for piece in [1, 2, 3, 7, 1000] {
        let pieces = receive(&mut new(), input.chunks(piece));
        assert_eq!(pieces, whole, "in pieces of {piece}");
    }
    whole
}

/// The code by which a new connection fails after `events` events.
fn failure(input: &[u8], events: usize) -> u16 {
    let Outcome { events: all, out } = outcome_of(input);
    let Some(Event::Failed(Failure { code, reason })) = all.get(events) else {
        panic!("no failure after {events} events: {all:?}");
    };
    assert_eq!(all.len(), events + 1, "nothing follows");
    let close = [&code.to_be_bytes(), reason.as_bytes()].concat();
    assert_eq!(frames(&out).last(), Some(&(FIN | CLOSE, close)));
    *code
}

/// The unmasked frames in `bytes`: first byte and payload.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let [first, short, rest @ ..] = bytes {
        let (len, rest) = match short {
            126 => (usize::from(rest[0]) << 8 | usize::from(rest[1]), &rest[2..]),
            127 => {
                let (len, rest) = rest.split_first_chunk().expect("a length");
                (u64::from_be_bytes(*len) as usize, rest)
            }
            len => (usize::from(*len), rest),
        };
        let (payload, rest) = rest.split_at(len);
        frames.push((*first, payload.to_vec()));
        bytes = rest;
    }
    frames
}

fn text(text: &str) -> Event {
    Event::Text(text.into())
}

fn binary(data: &[u8]) -> Event {
    Event::Binary(data.into())
}

fn agreement(parameters: &str) -> Agreement {
    let value = format!("permessage-deflate{parameters}");
    let fields = [
        (&b"sec-websocket-version"[..], &b"13"[..]),
        (b"sec-websocket-extensions", value.as_bytes()),
    ];
    let handshake = super::handshake::Handshake::read(fields.into_iter(), false);
    negotiate(&handshake.expect("well-formed").extensions)
        .expect("an offer to take")
        .0
}

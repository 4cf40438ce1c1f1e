//! Runs on: no thread of its own; pure.
//!
//! The WebSocket protocol as a server speaks it: RFC 6455 with RFC 7692, and RFC 8441 and 9220 as
//! far as they change the handshake. Bytes go in and out, and the time is told: it knows no clock and
//! no socket.
//!
//! - [`settings`], what WebSockets go by
//! - [`session`], a WebSocket from its handshake to its end, whoever carries its bytes
//! - [`handshake`], what a request says of WebSocket
//! - [`negotiation`], the parameters of compression
//! - [`connection`], bytes to events and messages to bytes
//! - [`event`], what comes out of the client's bytes
//! - [`message`], messages put together from frames
//! - [`frame`], one frame
//! - [`close`], codes and reasons of close frames
//! - [`deflate`], compression of messages

mod close;
mod connection;
mod deflate;
mod event;
mod frame;
pub(crate) mod handshake;
mod message;
mod negotiation;
mod session;
mod settings;

pub(crate) use session::Session;
pub(crate) use settings::{WebSockets, read_handshake};

#[cfg(test)]
pub(crate) mod tests;

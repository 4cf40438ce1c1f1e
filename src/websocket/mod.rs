//! Runs on: no thread of its own; pure.
//!
//! The WebSocket protocol as a server speaks it: RFC 6455 with RFC 7692, and RFC 8441 and 9220 as
//! far as they change the handshake. Bytes go in and out; who carries them, when to ping and how
//! long to wait is the caller's business. It knows no other room, no clock and no socket.
//!
//! - [`handshake`], what a request says of WebSocket
//! - [`negotiation`], the parameters of compression
//! - [`connection`], bytes to events and messages to bytes
//! - [`event`], what comes out of the client's bytes
//! - [`message`], messages put together from frames
//! - [`frame`], one frame
//! - [`close`], codes and reasons of close frames
//! - [`deflate`], compression of messages

pub(crate) mod close;
pub(crate) mod connection;
mod deflate;
pub(crate) mod event;
mod frame;
pub(crate) mod handshake;
mod message;
pub(crate) mod negotiation;

#[cfg(test)]
pub(crate) mod tests;

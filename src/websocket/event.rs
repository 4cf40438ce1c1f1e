//! Runs on: any thread; pure.
//!
//! What comes out of the bytes of a client.

use super::close::Failure;

/// What the client did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message, which is UTF-8.
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// It is there: the answer to a ping, or a sign of its own accord.
    Pong,
    /// A close frame, the first or the answer to ours; [`super::close::NO_STATUS`] if it has no code.
    Close {
        code: u16,
        reason: String,
    },
    /// It broke the protocol.
    Failed(Failure),
}

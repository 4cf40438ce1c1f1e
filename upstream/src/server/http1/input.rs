//! Runs on: network thread; pure.
//!
//! What has come on a connection, by its phase.

use super::chunks::{BadChunks, Chunk, Chunks};
use super::{AHEAD, HIGH, Phase, State};

/// What is next in what has come.
pub(super) enum Next<'a> {
    /// Nothing, until something changes.
    Nothing,
    /// A head.
    Head,
    /// A piece of a body, and whether it is the last.
    Give(&'a [u8], bool),
    /// The end of a body that nobody reads.
    Thrown,
    /// What is not to be understood.
    Bad(BadChunks),
}

impl State {
    /// The next of `bytes`, which is advanced.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Next<'a> {
        match &mut self.phase {
            Phase::Complete => Next::Nothing,
            Phase::Closing | Phase::Linger => {
                *bytes = &[];
                Next::Nothing
            }
            _ if bytes.is_empty() => Next::Nothing,
            // Who does not take the responses may not ask for more of them.
            Phase::Head if self.out.len() > HIGH => Next::Nothing,
            Phase::Head => Next::Head,
            Phase::Body(_) | Phase::Raw if self.paused => Next::Nothing,
            Phase::Raw => Next::Give(std::mem::take(bytes), false),
            Phase::Body(decoder) => match decoder.next(bytes) {
                Decoded::Data(piece, end) => {
                    if end {
                        self.phase = Phase::Complete;
                    }
                    Next::Give(piece, end)
                }
                Decoded::More => Next::Nothing,
                Decoded::Bad(bad) => Next::Bad(bad),
            },
            Phase::Discard(decoder) => loop {
                match decoder.next(bytes) {
                    Decoded::Data(_, true) => break Next::Thrown,
                    Decoded::Data(_, false) => {}
                    Decoded::More => break Next::Nothing,
                    Decoded::Bad(bad) => break Next::Bad(bad),
                }
            },
        }
    }

    /// Whether all of `bytes` is of a body, and worth keeping, and if so whether it is the last of it. The body is then
    /// further by so much.
    pub(super) fn is_of_body(&mut self, bytes: &Vec<u8>) -> Option<bool> {
        let Phase::Body(Decoder::Length(left)) = &mut self.phase else {
            return None;
        };
        // What is kept holds at most twice the memory that it counts for.
        let is_worth = bytes.len() >= bytes.capacity() / 2;
        let rest = left.checked_sub(bytes.len() as u64)?;
        if !is_worth || !self.unread.is_empty() {
            return None;
        }
        *left = rest;
        let end = rest == 0;
        if end {
            self.phase = Phase::Complete;
        }
        Some(end)
    }

    /// Whether no request has begun to come. Half an empty line begins none.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.unread.as_slice(), [] | [b'\r'])
    }

    /// Whether more may come.
    pub(super) fn wants_input(&self) -> bool {
        let wants = match self.phase {
            Phase::Body(_) | Phase::Raw => !self.paused,
            Phase::Complete => self.unread.len() < AHEAD,
            Phase::Head => self.out.len() <= HIGH,
            Phase::Discard(_) | Phase::Closing | Phase::Linger => true,
        };
        wants && !self.ended
    }
}

/// How far a body has been read.
pub(super) enum Decoder {
    Length(u64),
    Chunks(Chunks),
}

/// What some bytes of a body are.
enum Decoded<'a> {
    /// A piece, and whether it is the last.
    Data(&'a [u8], bool),
    More,
    Bad(BadChunks),
}

impl Decoder {
    fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Decoded<'a> {
        match self {
            Self::Length(left) => {
                let length =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                if length == 0 {
                    return Decoded::More;
                }
                let (piece, rest) = bytes.split_at(length);
                *bytes = rest;
                *left -= length as u64;
                Decoded::Data(piece, *left == 0)
            }
            Self::Chunks(chunks) => match chunks.next(bytes) {
                Ok(Chunk::Data(piece)) => Decoded::Data(piece, false),
                Ok(Chunk::More) => Decoded::More,
                Ok(Chunk::End) => Decoded::Data(&[], true),
                Err(bad) => Decoded::Bad(bad),
            },
        }
    }
}

//! Runs on: network thread.
//!
//! What is to be written to a connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

use crate::server::Network;
use crate::server::io::Io;

/// Slices in a write.
const SLICES: usize = 16;

/// Bytes from which on a piece is cheaper to keep than to copy.
const WORTH_KEEPING: usize = 4096;

/// What is to be written to a connection.
#[derive(Default)]
pub(super) struct Output {
    pieces: VecDeque<Piece>,
    /// Bytes of the first that have been written.
    written: usize,
    /// Bytes that have not.
    length: usize,
}

enum Piece {
    Own(Vec<u8>),
    Kept(Bytes),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(bytes) => bytes,
        }
    }
}

impl Output {
    /// Bytes that are to be written.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Has `write` append something.
    pub(super) fn append(&mut self, network: &Network, write: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.pieces.back(), Some(Piece::Own(_))) {
            self.pieces.push_back(Piece::Own(network.spare()));
        }
        if let Some(Piece::Own(last)) = self.pieces.back_mut() {
            let before = last.len();
            write(last);
            self.length += last.len() - before;
        }
    }

    /// Appends a piece, copied if it is short.
    pub(super) fn push(&mut self, network: &Network, piece: crate::server::Piece<'_>) {
        match piece {
            crate::server::Piece::Kept(bytes) if bytes.len() >= WORTH_KEEPING => {
                self.length += bytes.len();
                self.pieces.push_back(Piece::Kept(bytes));
            }
            crate::server::Piece::Kept(bytes) => {
                self.append(network, |out| out.extend_from_slice(&bytes))
            }
            crate::server::Piece::Copied(bytes) => {
                self.append(network, |out| out.extend_from_slice(bytes))
            }
        }
    }

    /// Writes what the socket takes. Returns how much that was.
    pub(super) fn write(&mut self, network: &Network, io: &Io) -> io::Result<usize> {
        let mut all = 0;
        while self.length > 0 {
            let written = match self.pieces.len() {
                1 => io.write(&[IoSlice::new(&self.pieces[0].bytes()[self.written..])]),
                _ => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let count = self.pieces.len().min(SLICES);
                    for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                        *slice = IoSlice::new(piece.bytes());
                    }
                    slices[0] = IoSlice::new(&self.pieces[0].bytes()[self.written..]);
                    io.write(&slices[..count])
                }
            };
            let Some(written) = written? else {
                break;
            };
            all += written;
            self.advance(network, written);
        }
        Ok(all)
    }

    fn advance(&mut self, network: &Network, written: usize) {
        self.length -= written;
        self.written += written;
        while let Some(first) = self.pieces.front()
            && self.written >= first.bytes().len()
        {
            self.written -= first.bytes().len();
            if let Some(Piece::Own(bytes)) = self.pieces.pop_front() {
                network.give_back(bytes);
            }
        }
    }
}

//! Runs on: network thread.
//!
//! What is to be written to a connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;

use super::file::Part;
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
    /// Another thread writes of the first, which is a file.
    is_lent: bool,
}

enum Piece {
    Own(Vec<u8>),
    Kept(Bytes),
    File(Part),
}

impl Piece {
    /// None of a file.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Own(bytes) => Some(bytes),
            Self::Kept(bytes) => Some(bytes),
            Self::File(_) => None,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Kept(bytes) => bytes.len(),
            Self::File(part) => part.length,
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

    /// Appends a file.
    pub(super) fn push_file(&mut self, part: Part) {
        self.length += part.length;
        self.pieces.push_back(Piece::File(part));
    }

    /// Whether this thread has something to write, or to have written.
    pub(super) fn waits(&self) -> bool {
        self.length > 0 && !self.is_lent
    }

    /// What is to be written by another thread now, if it is a file's turn. Until [`sent`](Self::sent) that has the
    /// socket for itself.
    pub(super) fn lend(&mut self) -> Option<Part> {
        let Some(Piece::File(part)) = self.pieces.front() else {
            return None;
        };
        let is_lent = std::mem::replace(&mut self.is_lent, true);
        (!is_lent).then(|| Part {
            file: part.file.clone(),
            offset: part.offset + self.written as u64,
            length: part.length - self.written,
        })
    }

    /// So much of the file was written. Returns whether that was the last of it.
    pub(super) fn sent(&mut self, network: &Network, bytes: usize) -> bool {
        let before = self.pieces.len();
        self.is_lent = false;
        self.advance(network, bytes);
        self.pieces.len() < before
    }

    /// Writes what the socket takes, up to a file. Returns how much that was.
    pub(super) fn write(&mut self, network: &Network, io: &Io) -> io::Result<usize> {
        let mut all = 0;
        while self.length > 0 {
            let mut pieces = self.pieces.iter().map_while(Piece::bytes);
            let Some(first) = pieces.next() else {
                break;
            };
            let first = IoSlice::new(&first[self.written..]);
            let written = match self.pieces.len() {
                1 => io.write(&[first]),
                _ => {
                    let mut slices = [first; SLICES];
                    let mut count = 1;
                    for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
                        *slice = IoSlice::new(piece);
                        count += 1;
                    }
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
            && self.written >= first.len()
        {
            self.written -= first.len();
            if let Some(Piece::Own(bytes)) = self.pieces.pop_front() {
                network.give_back(bytes);
            }
        }
    }
}

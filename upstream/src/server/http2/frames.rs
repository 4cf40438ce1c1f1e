//! Runs on: network thread.
//!
//! The socket of a connection, as `h2` sees it, where frames are counted: see [`account`](super::account).

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::account::Account;
use crate::server::Network;
use crate::server::io::Io;

/// What a connection begins with: RFC 9113, section 3.4.
pub(in crate::server) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) struct Watched {
    network: Rc<Network>,
    io: Rc<RefCell<Io>>,
    account: Rc<Account>,
    frames: Frames,
    /// What was read before, and `h2` has not seen.
    first: Vec<u8>,
}

/// Where in the frames the bytes stand.
#[derive(Default)]
struct Frames {
    head: [u8; HEAD],
    /// Bytes of it that have come.
    have: usize,
    /// Bytes of a payload that have not.
    left: usize,
    /// The first has come.
    begun: bool,
    /// In the head of a request, and whether it ends with this frame.
    in_head: Option<bool>,
    /// Of the last request.
    stream: u32,
}

impl Frames {
    /// The next head of a frame that ends in `bytes`, which are advanced.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<[u8; HEAD]> {
        let payload = self.left.min(bytes.len());
        self.left -= payload;
        let part = (HEAD - self.have).min(bytes.len() - payload);
        let (head, rest) = bytes[payload..].split_at(part);
        *bytes = rest;
        self.head[self.have..self.have + part].copy_from_slice(head);
        self.have += part;
        if self.have < HEAD {
            return None;
        }
        self.have = 0;
        let [high, middle, low, ..] = self.head;
        self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
        Some(self.head)
    }
}

impl Watched {
    /// After the `first` bytes of a connection, with its preface.
    pub(super) fn new(
        network: &Rc<Network>,
        io: &Rc<RefCell<Io>>,
        account: &Rc<Account>,
        first: &[u8],
    ) -> Self {
        let mut watched = Self {
            network: network.clone(),
            io: io.clone(),
            account: account.clone(),
            frames: Frames::default(),
            first: first.to_vec(),
        };
        watched.see(&first[PREFACE.len()..]);
        if account.is_ill_begun() {
            watched.first.truncate(PREFACE.len());
        }
        watched
    }

    /// Counts what comes.
    fn see(&mut self, mut bytes: &[u8]) {
        while let Some(head) = self.frames.next(&mut bytes) {
            self.count(head);
        }
        if self.frames.left == 0 && self.frames.in_head == Some(true) {
            self.frames.in_head = None;
        }
        let since = self.frames.in_head.map(|_| {
            let since = self.account.head_since.get();
            since.unwrap_or_else(|| self.network.now())
        });
        self.account.head_since.set(since);
    }

    fn count(&mut self, head: [u8; HEAD]) {
        let [.., kind, flags, a, b, c, d] = head;
        // The first bit says nothing (RFC 9113, section 4.1).
        let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
        let frames = &mut self.frames;
        if !std::mem::replace(&mut frames.begun, true) && (kind != SETTINGS || flags & ACK != 0) {
            self.account.begins_ill();
        }
        let ends = flags & END_HEADERS != 0;
        frames.in_head = match kind {
            HEADERS if stream > frames.stream => {
                frames.stream = stream;
                self.account.head_since.set(None);
                Some(ends)
            }
            CONTINUATION => frames.in_head.map(|_| ends),
            // Trailers have the time of the body.
            _ => None,
        };
        let is_free = match kind {
            HEADERS => true,
            DATA => frames.left > 0 || flags & END_STREAM != 0,
            _ => false,
        };
        if !is_free {
            self.account.spend(1);
        }
    }

    fn poll_write_slices(
        &self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.io.borrow();
        let stuck = &self.account.stuck_since;
        loop {
            if io.poll_write_ready(context)?.is_pending() {
                stuck.set(stuck.get().or(Some(self.network.now())));
                return Poll::Pending;
            }
            if let Some(written) = io.write(slices)? {
                stuck.set(None);
                return Poll::Ready(Ok(written));
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.first.is_empty() {
            let length = this.first.len().min(buffer.remaining());
            buffer.put_slice(&this.first[..length]);
            this.first.drain(..length);
            return Poll::Ready(Ok(()));
        }
        if this.account.is_spent() || this.account.is_ill_begun() {
            // The connection looks at that when it is run next.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.account.fill(this.network.now());
        let before = buffer.filled().len();
        ready!(this.io.borrow_mut().poll_read_into(context, buffer))?;
        this.see(&buffer.filled()[before..]);
        if this.account.is_ill_begun() {
            // Nor is it looked at.
            buffer.set_filled(before);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_slices(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.borrow().shut_down_writing();
        Poll::Ready(Ok(()))
    }
}

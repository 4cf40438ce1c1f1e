//! Runs on: network thread.
//!
//! The socket of a connection, as `h2` sees it.
//!
//! What comes is looked at frame by frame, and counted: see [`account`](super::account). And the limits that the server
//! has announced hold from the first frame on. `h2` applies them when the client acknowledges them, and a client that
//! never does could send heads of 16 MiB. So `h2` is told at once that they are acknowledged, and the client's own word
//! is dropped when it comes.

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
const ACKNOWLEDGED: [u8; HEAD] = [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];

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
    /// What has come and is not read yet.
    come: Vec<u8>,
    /// The client has acknowledged the settings.
    acknowledged: bool,
    /// Nothing is kept any more.
    direct: bool,
}

/// Where in the frames the bytes stand.
#[derive(Default)]
struct Frames {
    head: [u8; HEAD],
    /// Bytes of it that have come.
    have: usize,
    /// Bytes of a payload that have not.
    left: usize,
    /// In the head of a request, and whether it ends with this frame.
    in_head: Option<bool>,
    /// Of the last request.
    stream: u32,
}

enum Part<'a> {
    Head([u8; HEAD]),
    Payload(&'a [u8]),
}

impl Frames {
    /// The next part of `bytes`, which are advanced; none if they end within the head of a frame.
    fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Part<'a>> {
        let wanted = match self.left {
            0 => HEAD - self.have,
            left => left,
        };
        let (part, rest) = bytes.split_at(wanted.min(bytes.len()));
        *bytes = rest;
        if self.left > 0 {
            self.left -= part.len();
            return (!part.is_empty()).then_some(Part::Payload(part));
        }
        self.head[self.have..self.have + part.len()].copy_from_slice(part);
        self.have += part.len();
        if self.have < HEAD {
            return None;
        }
        self.have = 0;
        let [high, middle, low, ..] = self.head;
        self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
        Some(Part::Head(self.head))
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
            come: [PREFACE, &ACKNOWLEDGED].concat(),
            acknowledged: false,
            direct: false,
        };
        watched.see(&first[PREFACE.len()..], true);
        watched
    }

    /// Counts what comes, and keeps it but for the acknowledgement.
    fn see(&mut self, mut bytes: &[u8], keeps: bool) {
        while let Some(part) = self.frames.next(&mut bytes) {
            match part {
                Part::Head(head) if !self.acknowledged && head == ACKNOWLEDGED => {
                    self.acknowledged = true;
                }
                Part::Head(head) => {
                    self.count(head);
                    if keeps {
                        self.come.extend_from_slice(&head);
                    }
                }
                Part::Payload(part) if keeps => self.come.extend_from_slice(part),
                Part::Payload(_) => {}
            }
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
        let stream = u32::from_be_bytes([a, b, c, d]);
        let frames = &mut self.frames;
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

    /// Reads until there is something of which the last head is whole.
    fn poll_kept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.come.is_empty() {
            let network = self.network.clone();
            let mut buffer = network.buffer.borrow_mut();
            let length = ready!(self.io.borrow_mut().poll_read(context, &mut buffer))?;
            if length == 0 {
                break;
            }
            self.see(&buffer[..length], true);
        }
        Poll::Ready(Ok(()))
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
        if this.come.is_empty() && this.account.is_spent() {
            // The connection looks at that when it is run next.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.account.fill(this.network.now());
        this.direct |= this.acknowledged && this.come.is_empty() && this.frames.have == 0;
        if !this.direct {
            ready!(this.poll_kept(context))?;
            let length = this.come.len().min(buffer.remaining());
            buffer.put_slice(&this.come[..length]);
            this.come.drain(..length);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(this.io.borrow_mut().poll_read_buf(context, buffer))?;
        this.see(&buffer.filled()[before..], false);
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

//! Runs on: network thread.
//!
//! Sockets of either kind.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

/// A client's connection.
#[derive(Debug)]
pub(super) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Io {
    /// Reads what there is, once there is something, behind what is in `buffer`, as far as there is capacity.
    ///
    /// By `AsyncRead`, which knows that a short read has taken all there was.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(socket) => poll_read_buf(Pin::new(socket), context, buffer),
            Self::Unix(socket) => poll_read_buf(Pin::new(socket), context, buffer),
        }
    }

    /// The same.
    pub(super) fn poll_read_into(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }

    /// Waits until the socket takes something.
    pub(super) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(socket) => socket.poll_write_ready(context),
            Self::Unix(socket) => socket.poll_write_ready(context),
        }
    }

    /// Writes what the socket takes now; `None` if that is nothing.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        loop {
            let written = match (self, slices) {
                (Self::Tcp(socket), [one]) => socket.try_write(one),
                (Self::Unix(socket), [one]) => socket.try_write(one),
                (Self::Tcp(socket), _) => socket.try_write_vectored(slices),
                (Self::Unix(socket), _) => socket.try_write_vectored(slices),
            };
            return match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => written.map(Some),
            };
        }
    }

    /// A descriptor of its own, for another thread.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.descriptor().try_clone_to_owned()
    }

    /// Somebody else has written and found that the socket takes nothing: from now on to wait until it does is to wait
    /// for news, unless there were some already.
    pub(super) fn was_full(&self) {
        // Not before the system was asked: what it has told since that write would be forgotten.
        let look = || match poll(
            &mut [PollFd::new(&self.descriptor(), PollFlags::OUT)],
            Some(&Timespec::default()),
        ) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        };
        let _ = match self {
            Self::Tcp(socket) => socket.try_io(Interest::WRITABLE, look),
            Self::Unix(socket) => socket.try_io(Interest::WRITABLE, look),
        };
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }

    /// Whether the client sends nothing more, as far as the system knows: what it has sent may still be there.
    pub(super) fn is_ended(&self) -> bool {
        self.readiness().is_read_closed()
    }

    /// Whether nothing can be sent either.
    pub(super) fn is_reset(&self) -> bool {
        self.readiness().is_write_closed()
    }

    /// What the runtime was told of the socket last. It is told of an end although nobody reads.
    fn readiness(&self) -> Ready {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let ready = match self {
            Self::Tcp(socket) => socket.ready(interest).now_or_never(),
            Self::Unix(socket) => socket.ready(interest).now_or_never(),
        };
        ready.and_then(Result::ok).unwrap_or(Ready::EMPTY)
    }

    /// Says to the client that nothing more comes.
    pub(super) fn shut_down_writing(&self) {
        // A connection that has gone meanwhile needs no end.
        let _ = self.socket().shutdown(std::net::Shutdown::Write);
    }

    /// When it is closed, the kernel keeps nothing that the client has not taken.
    pub(super) fn drop_unsent(&self) {
        // Likewise.
        let _ = self.socket().set_linger(Some(Duration::ZERO));
    }

    fn socket(&self) -> socket2::SockRef<'_> {
        match self {
            Self::Tcp(socket) => socket2::SockRef::from(socket),
            Self::Unix(socket) => socket2::SockRef::from(socket),
        }
    }
}

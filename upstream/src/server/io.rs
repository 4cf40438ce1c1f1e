//! Runs on: network thread.
//!
//! Sockets of either kind.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A client's connection.
#[derive(Debug)]
pub(super) enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Io {
    /// Reads what there is, once there is something.
    ///
    /// By `AsyncRead`, which knows that a short read has taken all there was.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match self {
            Self::Tcp(socket) => Pin::new(socket).poll_read(context, &mut buffer),
            Self::Unix(socket) => Pin::new(socket).poll_read(context, &mut buffer),
        };
        ready!(read)?;
        Poll::Ready(Ok(buffer.filled().len()))
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

    /// Says to the client that nothing more comes.
    pub(super) fn shut_down_writing(&self) {
        let socket = match self {
            Self::Tcp(socket) => socket2::SockRef::from(socket),
            Self::Unix(socket) => socket2::SockRef::from(socket),
        };
        // A connection that has gone meanwhile needs no end.
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }
}

/// A connection of which the first bytes were read already.
pub(super) struct Rewound {
    first: Vec<u8>,
    io: Io,
}

impl Rewound {
    pub(super) fn new(first: Vec<u8>, io: Io) -> Self {
        Self { first, io }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..length]);
            self.first.drain(..length);
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Io::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Io::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Io::Unix(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Io::Unix(socket) => Pin::new(socket).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Io::Unix(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

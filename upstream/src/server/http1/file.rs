//! Runs on: network thread; [`Part::send`] on tokio's threads for blocking work, since a file may have to be waited for.
//!
//! A file on its way to a client, from the system's memory to the socket without being seen here.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::sendfile;
use rustix::io::Errno;
use tokio::task::{spawn_blocking, spawn_local};

use super::Connection;

/// Bytes after which others are told how far it has got.
const STEP: usize = 1024 * 1024;

/// What of a file is to be sent.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) length: usize,
}

impl Part {
    /// Sends as much as `socket` takes, and not all of what is much. Returns how many bytes that were, and whether the
    /// socket is full.
    pub(super) fn send(&self, socket: &OwnedFd) -> io::Result<(usize, bool)> {
        let most = self.length.min(STEP);
        let mut offset = self.offset;
        let mut sent = 0;
        while sent < most {
            match sendfile(socket, &self.file, Some(&mut offset), most - sent) {
                Ok(0) => {
                    let why = "the file has become shorter while it was sent";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                Ok(more) => sent += more,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok((sent, true)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((sent, false))
    }
}

impl Connection {
    /// Has a file that is to be written now be written.
    pub(super) fn lend(self: &Rc<Self>) {
        let Some(part) = self.state.borrow_mut().out.lend() else {
            return;
        };
        let socket = match &*self.io.borrow() {
            Some(io) => io.duplicate(),
            None => return,
        };
        let sending = spawn_blocking(move || part.send(&socket?));
        let this = self.clone();
        spawn_local(async move {
            // It does not panic, nor is it cancelled.
            if let Ok(sent) = sending.await {
                this.take_back(sent);
            }
        });
    }

    /// A file was written as far as `sent` says: so many bytes, and whether the socket was full then.
    fn take_back(self: &Rc<Self>, sent: io::Result<(usize, bool)>) {
        let exchange = match &*self.io.borrow() {
            Some(io) => {
                if let Ok((_, true)) = sent {
                    io.was_full();
                }
                self.state.borrow().exchange.clone()
            }
            // The client has gone meanwhile.
            None => return,
        };
        match sent {
            Ok((bytes, _)) => {
                let is_all = {
                    let mut state = self.state.borrow_mut();
                    state.active = self.network.now();
                    state.out.sent(&self.network, bytes)
                };
                if let Some(exchange) = exchange {
                    exchange.on_file(Ok(bytes), is_all);
                }
                self.wake();
            }
            Err(error) => {
                if !is_of_client(&error)
                    && let Some(exchange) = exchange
                {
                    exchange.on_file(Err(error), false);
                }
                // What was sent of it before stays the client's.
                let ends_by_closing = self.state.borrow().ends_by_closing();
                self.cut(ends_by_closing);
            }
        }
    }
}

/// Whether a client that has gone is why nothing could be sent, and not the file.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, TimedOut};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | NotConnected | TimedOut
    )
}

//! Runs on: network thread; [`Part::send`] on tokio's threads for blocking work, since a file may have to be waited for.
//!
//! A file on its way to a client, from the system's memory to the socket without being seen here.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::sendfile;
use rustix::io::Errno;

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

/// Whether a client that has gone is why nothing could be sent, and not the file.
pub(super) fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, TimedOut};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | NotConnected | TimedOut
    )
}

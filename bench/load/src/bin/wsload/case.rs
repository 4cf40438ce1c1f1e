//! What is sent to the server, and what it must answer.

use std::fs;
use std::io;
use std::path::Path;

use crate::frame::COMPRESSED;

pub(crate) struct Case {
    /// The request that opens a WebSocket.
    pub handshake: Vec<u8>,
    /// A masked frame, sent again and again.
    pub message: Vec<u8>,
    /// The payload that comes back, before compression.
    pub answer: Vec<u8>,
}

impl Case {
    /// Each part is a file of its name in `folder`; the benchmark makes them.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let file = |name| {
            let path = folder.join(name);
            let named =
                |error| io::Error::other(format!("cannot read `{}`: {error}", path.display()));
            fs::read(&path).map_err(named)
        };
        Ok(Self {
            handshake: file("handshake")?,
            message: file("message")?,
            answer: file("answer")?,
        })
    }

    /// Whether messages are compressed, both ways.
    pub(crate) fn compressed(&self) -> bool {
        self.first() & COMPRESSED != 0
    }

    /// What the frame of an answer begins with, compressed or not.
    pub(crate) fn kind(&self) -> u8 {
        self.first() & !COMPRESSED
    }

    fn first(&self) -> u8 {
        self.message.first().copied().unwrap_or_default()
    }
}

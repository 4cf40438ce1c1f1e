//! One WebSocket.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use crate::case::Case;
use crate::error::Error;
use crate::frame::{CLOSE, COMPRESSED, CONTROL, Head, PING, PONG, PartialHead, control};

pub(crate) struct Connection {
    pub stream: TcpStream,
    head: PartialHead,
    /// The frame of which the head is here and the payload is not.
    incoming: Option<Incoming>,
    /// What the socket had no room for.
    unsent: Vec<u8>,
    /// When the message that is on its way was sent.
    sent: Instant,
}

/// The payload of a frame. A message is looked at where it was read and not kept, so that those
/// of all connections go through the same few pages.
enum Incoming {
    /// An answer as it was sent: how much of it has come.
    Plain(usize),
    /// An answer in compressed form, which is not looked at: how much of it is missing.
    Compressed(u64),
    /// A control frame, and how long it will be.
    Control { head: Head, payload: Vec<u8> },
}

impl Connection {
    /// Opens a WebSocket, with compression if `case` wants it.
    pub(crate) fn open(port: u16, case: &Case, patience: Duration) -> Result<Self, Error> {
        let stream = shake_hands(port, case, patience).map_err(|error| match error {
            // What a socket with a timeout says.
            Error::Io(error) if error.kind() == ErrorKind::WouldBlock => Error::Silent(patience),
            error => error,
        })?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            head: PartialHead::default(),
            incoming: None,
            unsent: Vec::new(),
            sent: Instant::now(),
        })
    }

    /// Sends the message of `case`, whose time begins to run.
    pub(crate) fn ask(&mut self, case: &Case, now: Instant) -> io::Result<()> {
        self.sent = now;
        self.send(&case.message)
    }

    /// Sends what the socket had no room for, as far as it has now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let sent = write(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..sent);
        Ok(())
    }

    /// Reads what is there. Each answer is followed by the next message, and its time goes to
    /// `answered`. To the end of the stream if `ends`.
    pub(crate) fn receive(
        &mut self,
        case: &Case,
        buffer: &mut [u8],
        ends: bool,
        answered: &mut impl FnMut(Instant, Duration),
    ) -> Result<(), Error> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(Error::Closed),
                Ok(count) => {
                    self.take(case, &buffer[..count], answered)?;
                    // Less than there was room for is all there was. What comes later is an
                    // event of its own, and so is the end if it was not one of this event.
                    if count < buffer.len() && !ends {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take(
        &mut self,
        case: &Case,
        mut data: &[u8],
        answered: &mut impl FnMut(Instant, Duration),
    ) -> Result<(), Error> {
        loop {
            let mut incoming = match self.incoming.take() {
                Some(incoming) => incoming,
                None => match self.head.take(&mut data) {
                    Some(head) => Incoming::of(case, head)?,
                    None => return Ok(()),
                },
            };
            if !incoming.take(case, &mut data)? {
                self.incoming = Some(incoming);
                return Ok(());
            }
            match incoming {
                Incoming::Control { payload, .. } => self.send(&control(PONG, &payload))?,
                Incoming::Plain(_) | Incoming::Compressed(_) => {
                    let now = Instant::now();
                    answered(now, now - self.sent);
                    self.ask(case, now)?;
                }
            }
        }
    }

    fn send(&mut self, data: &[u8]) -> io::Result<()> {
        // Frames must not get between one another.
        let sent = match self.unsent.is_empty() {
            true => write(&mut self.stream, data)?,
            false => 0,
        };
        self.unsent.extend_from_slice(&data[sent..]);
        Ok(())
    }
}

impl Incoming {
    fn of(case: &Case, head: Head) -> Result<Self, Error> {
        let (expected, got) = (case.kind(), head.first);
        match got {
            _ if got == expected && head.length == case.answer.len() as u64 => Ok(Self::Plain(0)),
            _ if got == expected => Err(Error::Length {
                expected: case.answer.len(),
                got: head.length,
            }),
            _ if got == expected | COMPRESSED && case.compressed() => {
                Ok(Self::Compressed(head.length))
            }
            PING | CLOSE if head.length > CONTROL => Err(Error::Control(head.length)),
            PING | CLOSE => Ok(Self::Control {
                head,
                payload: Vec::new(),
            }),
            _ => Err(Error::Kind { expected, got }),
        }
    }

    /// Takes what belongs to this frame from the front of `data`. Whether it is whole.
    fn take(&mut self, case: &Case, data: &mut &[u8]) -> Result<bool, Error> {
        match self {
            Self::Plain(received) => {
                let missing = &case.answer[*received..];
                let piece = front(data, missing.len() as u64);
                if !missing.starts_with(piece) {
                    return Err(Error::Content);
                }
                *received += piece.len();
                Ok(*received == case.answer.len())
            }
            Self::Compressed(missing) => {
                *missing -= front(data, *missing).len() as u64;
                Ok(*missing == 0)
            }
            Self::Control { head, payload } => {
                payload.extend_from_slice(front(data, head.length - payload.len() as u64));
                match payload.len() as u64 == head.length {
                    true if head.first == CLOSE => Err(Error::CloseFrame(reason(payload))),
                    whole => Ok(whole),
                }
            }
        }
    }
}

/// Takes up to `most` bytes from the front of `data`.
fn front<'data>(data: &mut &'data [u8], most: u64) -> &'data [u8] {
    let (front, rest) = data.split_at(data.len().min(usize::try_from(most).unwrap_or(usize::MAX)));
    *data = rest;
    front
}

/// Writes as much of `data` as the socket has room for.
fn write(stream: &mut TcpStream, data: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < data.len() {
        match stream.write(&data[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// What a close frame says, for people.
fn reason(payload: &[u8]) -> String {
    match payload {
        [high, low, text @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            format!("`{}`", format!("{code} {}", text.escape_ascii()).trim_end())
        }
        _ => "no code".to_owned(),
    }
}

fn shake_hands(port: u16, case: &Case, patience: Duration) -> Result<std::net::TcpStream, Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = std::net::TcpStream::connect_timeout(&address, patience)
        .map_err(|error| Error::Connect { port, error })?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(&case.handshake)?;
    let mut head = Vec::new();
    let mut piece = [0; 4096];
    while !contains(&head, b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => break,
            count => head.extend_from_slice(&piece[..count]),
        }
    }
    // The server waits for a message: nothing comes behind the head.
    let whole = head.starts_with(b"HTTP/1.1 101 ") && head.ends_with(b"\r\n\r\n");
    if whole && contains(&head, b"permessage-deflate") == case.compressed() {
        return Ok(stream);
    }
    Err(Error::Handshake {
        wanted: if case.compressed() { "with" } else { "without" },
        got: head.escape_ascii().to_string(),
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

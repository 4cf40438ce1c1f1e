//! Runs on: any thread; pure.
//!
//! A WebSocket after its handshake: bytes to events, messages to bytes, and how it ends.
//!
//! ```text
//!         close           client's close frame
//! Open ───────────▶ Closing ───────────▶ Closed
//!   │                  │ failure            ▲
//!   └──────────────────┴────────────────────┘
//!     client's close frame, which is answered; failure, with a close frame
//! ```

use super::close::{self, CannotSend, Failure};
use super::deflate::Deflate;
use super::event::Event;
use super::frame::{self, Frame, HeadReader, Opcode, Piece};
use super::message::Message;
use super::negotiation::Agreement;

/// One WebSocket, from the server's side.
#[derive(Debug)]
pub(crate) struct Connection {
    phase: Phase,
    head: HeadReader,
    frame: Option<Frame>,
    /// The payload of a control frame as far as it has come.
    control: Vec<u8>,
    message: Option<Message>,
    max_len: usize,
    deflate: Option<Box<Deflate>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// We have sent a close frame. The client may not have seen it, so its messages are dropped.
    Closing,
    /// Nothing is sent any more, and what comes is ignored.
    Closed,
}

/// Bytes of a message from which on a copy costs more than a second piece to send.
const LARGE: usize = 4096;

impl Connection {
    /// `max_len` bounds messages, as they are when inflated.
    pub(crate) fn new(max_len: usize, deflate: Option<Agreement>) -> Self {
        Self {
            phase: Phase::Open,
            head: HeadReader::default(),
            frame: None,
            control: Vec::new(),
            message: None,
            max_len: max_len.min(isize::MAX as usize - 1),
            deflate: deflate.map(|agreement| Box::new(Deflate::new(agreement))),
        }
    }

    /// Whether the closing handshake is complete or the client has broken the protocol: once `out`
    /// is sent, the connection can end.
    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether a frame has begun to come and is not complete.
    pub(crate) fn is_amid_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Takes bytes of the client from the front of `data`, up to the next event. `None` means that
    /// all are taken.
    ///
    /// Answers of the protocol, pongs and close frames, go to `out`, and are no more than what they
    /// answer: while the client does not take them, nothing more should be taken of it.
    pub(crate) fn receive(&mut self, data: &mut &[u8], out: &mut Vec<u8>) -> Option<Event> {
        if self.phase == Phase::Closed {
            *data = &[];
            return None;
        }
        self.next_event(data, out).unwrap_or_else(|failure| {
            self.fail(failure, out);
            Some(Event::Failed(failure))
        })
    }

    /// Closes it without waiting for the client's close frame.
    pub(super) fn fail(&mut self, failure: Failure, out: &mut Vec<u8>) {
        if self.phase == Phase::Open {
            self.send_close(failure.code, failure.reason, out)
                .expect("failures have codes and reasons that can be sent");
        }
        self.end();
    }

    fn next_event(
        &mut self,
        data: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, Failure> {
        loop {
            if self.frame.is_none() {
                self.begin_frame(data)?;
            }
            let Some(frame) = &mut self.frame else {
                return Ok(None);
            };
            if frame.left > 0 && data.is_empty() {
                return Ok(None);
            }
            let piece = frame.take(data);
            let event = match frame.opcode.is_control() {
                true => self.take_control(piece, out)?,
                false => self.take_data(piece)?,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    fn begin_frame(&mut self, data: &mut &[u8]) -> Result<(), Failure> {
        self.frame = self.head.read(data)?;
        match &self.frame {
            Some(frame) if !frame.opcode.is_control() => {
                let deflates = self.deflate.is_some();
                Message::take_frame(&mut self.message, frame, self.max_len, deflates)
            }
            _ => Ok(()),
        }
    }

    /// The frame, if all of it has been taken.
    fn end_frame(&mut self) -> Option<Frame> {
        self.frame.take_if(|frame| frame.left == 0)
    }

    fn take_data(&mut self, piece: Piece<'_>) -> Result<Option<Event>, Failure> {
        if let Some(message) = &mut self.message {
            message.take_piece(piece, self.max_len, self.deflate.as_deref())?;
        }
        let ends = self.end_frame().is_some_and(|frame| frame.fin);
        let Some(message) = self.message.take_if(|_| ends) else {
            return Ok(None);
        };
        let event = message.finish(self.max_len, self.deflate.as_deref_mut())?;
        Ok((self.phase == Phase::Open).then_some(event))
    }

    fn take_control(
        &mut self,
        piece: Piece<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, Failure> {
        piece.append_to(&mut self.control);
        let Some(frame) = self.end_frame() else {
            return Ok(None);
        };
        let payload = std::mem::take(&mut self.control);
        let open = self.phase == Phase::Open;
        match frame.opcode {
            Opcode::Close => {
                let (code, reason) = close::parse(&payload)?;
                if open {
                    self.send_close(code, "", out)
                        .expect("a code that can be received can be sent");
                }
                self.end();
                let reason = reason.into();
                return Ok(Some(Event::Close { code, reason }));
            }
            Opcode::Ping if open => frame::write(Opcode::Pong, false, &payload, out),
            Opcode::Pong if open => return Ok(Some(Event::Pong)),
            _ => {}
        }
        Ok(None)
    }

    /// Nothing follows, so nothing is kept.
    fn end(&mut self) {
        self.phase = Phase::Closed;
        self.message = None;
        self.deflate = None;
        self.control = Vec::new();
    }

    /// Sends a message, as UTF-8. After a close frame nothing is sent.
    ///
    /// Returns what is to be sent behind `out`: a large message is not copied there.
    pub(crate) fn send_text<'a>(&mut self, text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        self.send(Opcode::Text, text, out)
    }

    /// Sends a message, as [`send_text`](Self::send_text) does.
    pub(crate) fn send_binary<'a>(&mut self, data: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        self.send(Opcode::Binary, data, out)
    }

    fn send<'a>(&mut self, opcode: Opcode, data: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        if self.phase != Phase::Open {
            return &[];
        }
        let compressed = self.deflate.as_mut().is_some_and(|deflate| {
            deflate.compress(data, |compressed| {
                frame::write(opcode, true, compressed, out)
            })
        });
        if compressed {
            return &[];
        }
        if data.len() >= LARGE {
            frame::write_head(opcode, false, data.len(), out);
            return data;
        }
        frame::write(opcode, false, data, out);
        &[]
    }

    /// Asks the client for a pong. Of `payload`, 125 bytes are sent at most.
    pub(crate) fn ping(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if self.phase == Phase::Open {
            let payload = &payload[..payload.len().min(frame::MAX_CONTROL)];
            frame::write(Opcode::Ping, false, payload, out);
        }
    }

    /// Begins the closing handshake, unless it has begun.
    pub(crate) fn close(
        &mut self,
        code: u16,
        reason: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), CannotSend> {
        if self.phase == Phase::Open {
            self.send_close(code, reason, out)?;
            self.phase = Phase::Closing;
        }
        Ok(())
    }

    fn send_close(&self, code: u16, reason: &str, out: &mut Vec<u8>) -> Result<(), CannotSend> {
        let payload = close::payload(code, reason)?;
        frame::write(Opcode::Close, false, &payload, out);
        Ok(())
    }
}

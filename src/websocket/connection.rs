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
use super::frame::{self, Frame, HeadReader, Opcode};
use super::message::{Complete, Message};
use super::negotiation::Agreement;

/// What the client did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message, which is UTF-8.
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// It is there: the answer to a ping, or a sign of its own accord.
    Pong,
    /// A close frame, the first or the answer to ours; [`close::NO_STATUS`] if it has no code.
    Close {
        code: u16,
        reason: String,
    },
    /// It broke the protocol.
    Failed(Failure),
}

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

    /// Takes bytes of the client. What they are to be answered with, pongs and close frames, goes
    /// to `out`, and is no more than they are themselves; the caller takes no more of them while
    /// the client does not take that.
    pub(crate) fn receive(
        &mut self,
        mut data: &[u8],
        out: &mut Vec<u8>,
        mut events: impl FnMut(Event),
    ) {
        while self.phase != Phase::Closed {
            match self.step(&mut data, out, &mut events) {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => {
                    if self.phase == Phase::Open {
                        self.send_close(failure.code, failure.reason, out)
                            .expect("failures have codes and reasons that can be sent");
                    }
                    self.phase = Phase::Closed;
                    self.message = None;
                    events(Event::Failed(failure));
                }
            }
        }
    }

    /// Reads a head, or a piece of a payload. False if there is too little `data` for either.
    fn step(
        &mut self,
        data: &mut &[u8],
        out: &mut Vec<u8>,
        events: &mut impl FnMut(Event),
    ) -> Result<bool, Failure> {
        let Some(frame) = &mut self.frame else {
            let frame = self.head.read(data)?;
            if let Some(frame) = frame.as_ref().filter(|frame| !frame.opcode.is_control()) {
                Message::take_frame(
                    &mut self.message,
                    frame,
                    self.max_len,
                    self.deflate.is_some(),
                )?;
            }
            self.frame = frame;
            return Ok(self.frame.is_some());
        };
        if data.is_empty() && frame.left > 0 {
            return Ok(false);
        }
        let piece = frame.take(data);
        let frame_ends = frame.left == 0;
        let (opcode, fin) = (frame.opcode, frame.fin);
        if frame_ends {
            self.frame = None;
        }
        if opcode.is_control() {
            piece.append_to(&mut self.control);
            if frame_ends {
                let payload = std::mem::take(&mut self.control);
                self.take_control(opcode, &payload, out, events)?;
            }
        } else if let Some(message) = &mut self.message {
            message.take_piece(piece, self.max_len, self.deflate.as_deref())?;
            if let Some(message) = self.message.take_if(|_| frame_ends && fin) {
                let complete = message.finish(self.max_len, self.deflate.as_deref_mut())?;
                if self.phase == Phase::Open {
                    events(match complete {
                        Complete::Text(text) => Event::Text(text),
                        Complete::Binary(data) => Event::Binary(data),
                    });
                }
            }
        }
        Ok(true)
    }

    fn take_control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
        events: &mut impl FnMut(Event),
    ) -> Result<(), Failure> {
        let open = self.phase == Phase::Open;
        match opcode {
            Opcode::Close => {
                let (code, reason) = close::parse(payload)?;
                if open {
                    self.send_close(code, "", out)
                        .expect("a code that can be received can be sent");
                }
                self.phase = Phase::Closed;
                self.message = None;
                events(Event::Close {
                    code,
                    reason: reason.into(),
                });
            }
            Opcode::Ping if open => frame::write(Opcode::Pong, false, payload, out),
            Opcode::Pong if open => events(Event::Pong),
            _ => {}
        }
        Ok(())
    }

    /// Sends a message, as UTF-8. After a close frame nothing is sent.
    pub(crate) fn send_text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        self.send(Opcode::Text, text, out);
    }

    /// Sends a message. After a close frame nothing is sent.
    pub(crate) fn send_binary(&mut self, data: &[u8], out: &mut Vec<u8>) {
        self.send(Opcode::Binary, data, out);
    }

    fn send(&mut self, opcode: Opcode, data: &[u8], out: &mut Vec<u8>) {
        if self.phase != Phase::Open {
            return;
        }
        let compressed = self.deflate.as_mut().is_some_and(|deflate| {
            deflate.compress(data, |compressed| {
                frame::write(opcode, true, compressed, out)
            })
        });
        if !compressed {
            frame::write(opcode, false, data, out);
        }
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

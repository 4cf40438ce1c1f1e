//! Runs on: any thread; pure.
//!
//! Messages put together from frames. RFC 6455, sections 5.4 and 8.1; RFC 7692, section 6.

use super::close::Failure;
use super::deflate::{Deflate, Inflater};
use super::event::Event;
use super::frame::{Frame, Opcode, Piece};

/// A message of which not all frames have come.
#[derive(Debug)]
pub(super) struct Message {
    data: Vec<u8>,
    /// How much of a text is known to be UTF-8; `None` for binary messages.
    checked: Option<usize>,
    inflater: Option<Box<Inflater>>,
}

/// Room that is made for a frame before it has come; a client that only claims to send costs no
/// more.
const FRAME_ROOM: u64 = 64 * 1024;

impl Message {
    /// Whether `frame` may come now, and what it begins or goes on with.
    pub(super) fn take_frame(
        current: &mut Option<Self>,
        frame: &Frame,
        max_len: usize,
        deflates: bool,
    ) -> Result<(), Failure> {
        if frame.compressed && (!deflates || frame.opcode == Opcode::Continuation) {
            return Err(Failure::protocol("reserved bit set"));
        }
        let message = match (current, frame.opcode) {
            (Some(message), Opcode::Continuation) => message,
            (current @ None, Opcode::Text | Opcode::Binary) => current.insert(Self {
                data: Vec::new(),
                checked: (frame.opcode == Opcode::Text).then_some(0),
                inflater: frame.compressed.then(Inflater::take),
            }),
            (None, _) => return Err(Failure::protocol("continuation of no message")),
            (Some(_), _) => return Err(Failure::protocol("message within a message")),
        };
        // How long a compressed one is shows when it is inflated.
        if message.inflater.is_none() {
            let room = (max_len - message.data.len()) as u64;
            if frame.left > room {
                return Err(Failure::TOO_BIG);
            }
            message.data.reserve(frame.left.min(FRAME_ROOM) as usize);
        }
        Ok(())
    }

    /// Takes a piece of a frame.
    pub(super) fn take_piece(
        &mut self,
        piece: Piece<'_>,
        max_len: usize,
        deflate: Option<&Deflate>,
    ) -> Result<(), Failure> {
        match (&mut self.inflater, deflate) {
            (Some(inflater), Some(deflate)) => {
                piece.try_for_each(|block| {
                    deflate.inflate(inflater, block, &mut self.data, max_len)
                })?;
            }
            _ => piece.append_to(&mut self.data),
        }
        self.check_text(false)
    }

    /// The message, of which the last frame has been taken.
    pub(super) fn finish(
        mut self,
        max_len: usize,
        deflate: Option<&mut Deflate>,
    ) -> Result<Event, Failure> {
        if let (Some(inflater), Some(deflate)) = (self.inflater.take(), deflate) {
            deflate.finish(inflater, &mut self.data, max_len)?;
        }
        self.check_text(true)?;
        Ok(match self.checked {
            Some(_) => Event::Text(self.data),
            None => Event::Binary(self.data),
        })
    }

    /// Fails at the first byte that no UTF-8 can have, and at the `end` if a character lacks bytes.
    fn check_text(&mut self, end: bool) -> Result<(), Failure> {
        let Some(checked) = &mut self.checked else {
            return Ok(());
        };
        match str::from_utf8(&self.data[*checked..]) {
            Ok(text) => *checked += text.len(),
            Err(error) if error.error_len().is_none() && !end => *checked += error.valid_up_to(),
            Err(_) => return Err(Failure::INVALID_UTF8),
        }
        Ok(())
    }
}

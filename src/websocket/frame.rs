//! Runs on: any thread; pure.
//!
//! One frame: its head, its payload unmasked, and how ours are written. RFC 6455, section 5.

use super::close::Failure;

/// The longest payload of a control frame (RFC 6455, section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// The longest head that a client sends.
const MAX_HEAD: usize = 14;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_AND_3: u8 = 0x30;
const MASKED: u8 = 0x80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        self as u8 >= Self::Close as u8
    }

    fn parse(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }
}

/// A frame of the client whose head has been read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    /// It is the last of its message.
    pub(super) fin: bool,
    /// RSV1, by which a compressed message begins (RFC 7692, section 6).
    pub(super) compressed: bool,
    /// How much of the payload has not been taken.
    pub(super) left: u64,
    /// For the next byte of the payload.
    mask: [u8; 4],
}

impl Frame {
    /// Takes from the front of `data` what it has of the payload.
    pub(super) fn take<'a>(&mut self, data: &mut &'a [u8]) -> Piece<'a> {
        let len = usize::try_from(self.left).map_or(data.len(), |left| left.min(data.len()));
        let (masked, rest) = data.split_at(len);
        *data = rest;
        let piece = Piece {
            masked,
            mask: self.mask,
        };
        self.left -= len as u64;
        self.mask.rotate_left(len % 4);
        piece
    }
}

/// A piece of a payload, masked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece<'a> {
    masked: &'a [u8],
    mask: [u8; 4],
}

/// How much is copied and then unmasked at once, so that the second step finds it in the cache.
/// A multiple of the mask's length.
const BLOCK: usize = 4096;

impl Piece<'_> {
    pub(super) fn append_to(self, payload: &mut Vec<u8>) {
        payload.reserve(self.masked.len());
        for block in self.masked.chunks(BLOCK) {
            let start = payload.len();
            payload.extend_from_slice(block);
            unmask(&mut payload[start..], self.mask);
        }
    }

    /// The payload in blocks, for whom it is enough to see them.
    pub(super) fn try_for_each<E>(
        self,
        mut see: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut buffer = [0; BLOCK];
        for block in self.masked.chunks(BLOCK) {
            let buffer = &mut buffer[..block.len()];
            buffer.copy_from_slice(block);
            unmask(buffer, self.mask);
            see(buffer)?;
        }
        Ok(())
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut();
    let word_mask = u32::from_ne_bytes(mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ word_mask).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Gathers the head of a frame.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    bytes: [u8; MAX_HEAD],
    filled: u8,
}

impl HeadReader {
    /// Takes from the front of `data` what is missing of a head.
    pub(super) fn read(&mut self, data: &mut &[u8]) -> Result<Option<Frame>, Failure> {
        let Some(&[first, second]) = self.fill(2, data).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        let opcode = check(first, second)?;
        let len_end = match second & !MASKED {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let Some(head) = self.fill(len_end + 4, data) else {
            return Ok(None);
        };
        let frame = Frame {
            opcode,
            fin: first & FIN != 0,
            compressed: first & RSV1 != 0,
            left: payload_len(second & !MASKED, &head[2..len_end])?,
            mask: [0, 1, 2, 3].map(|at| head[len_end + at]),
        };
        self.filled = 0;
        Ok(Some(frame))
    }

    /// The first `len` bytes of the head, once they are there.
    fn fill(&mut self, len: usize, data: &mut &[u8]) -> Option<&[u8]> {
        let filled = usize::from(self.filled);
        let taken = len.saturating_sub(filled).min(data.len());
        let (head, rest) = data.split_at(taken);
        *data = rest;
        self.bytes[filled..filled + taken].copy_from_slice(head);
        self.filled += taken as u8;
        self.bytes[..usize::from(self.filled)].get(..len)
    }
}

/// What the first two bytes of a head break, they break at once.
fn check(first: u8, second: u8) -> Result<Opcode, Failure> {
    if first & RSV2_AND_3 != 0 {
        return Err(Failure::protocol("reserved bit set"));
    }
    let opcode = Opcode::parse(first & 0xf).ok_or(Failure::protocol("reserved opcode"))?;
    if second & MASKED == 0 {
        return Err(Failure::protocol("frame without a mask"));
    }
    if opcode.is_control() {
        if first & RSV1 != 0 {
            return Err(Failure::protocol("compressed control frame"));
        }
        if first & FIN == 0 {
            return Err(Failure::protocol("fragmented control frame"));
        }
        if usize::from(second & !MASKED) > MAX_CONTROL {
            return Err(Failure::protocol("control frame too long"));
        }
    }
    Ok(opcode)
}

/// `short` is the length or says how long the `extended` one is.
fn payload_len(short: u8, extended: &[u8]) -> Result<u64, Failure> {
    let len = extended
        .iter()
        .fold(0, |len, byte| len << 8 | u64::from(*byte));
    match short {
        126 if len < 126 => Err(Failure::protocol("length not in its shortest form")),
        127 if len <= u64::from(u16::MAX) => {
            Err(Failure::protocol("length not in its shortest form"))
        }
        127 if len > i64::MAX as u64 => Err(Failure::protocol("length of more than 63 bits")),
        126 | 127 => Ok(len),
        _ => Ok(u64::from(short)),
    }
}

/// Appends an unfragmented frame of ours to `out`.
pub(super) fn write(opcode: Opcode, compressed: bool, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(MAX_OWN_HEAD + payload.len());
    write_head(opcode, compressed, payload.len(), out);
    out.extend_from_slice(payload);
}

/// The longest head of a frame that is not masked.
const MAX_OWN_HEAD: usize = 10;

/// Writes the head of a frame whose payload of `len` bytes goes behind it.
pub(super) fn write_head(opcode: Opcode, compressed: bool, len: usize, out: &mut Vec<u8>) {
    out.push(FIN | if compressed { RSV1 } else { 0 } | opcode as u8);
    match len {
        ..126 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

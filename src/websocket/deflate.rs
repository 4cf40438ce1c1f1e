//! Runs on: any thread; pure.
//!
//! Compression of messages. RFC 7692, section 7.2.
//!
//! A deflate engine takes some 300 KiB, so no connection has one: a thread's connections take
//! turns. What a connection keeps is the history that its next message may refer to, with which
//! the engine begins; by that one connection's messages are compressed as if the engine were its
//! own, and the messages of two connections never meet.

use std::borrow::Cow;
use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::close::Failure;
use super::negotiation::{Agreement, Direction};

/// The end of a flushed deflate stream, which is not sent (RFC 7692, section 7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// Bytes of its last messages that a connection keeps to compress the next. More of them make
/// small messages hardly smaller, and each message slower.
const SENT_HISTORY: usize = 2048;

/// Of zlib's levels the lowest but one: higher ones take many times as long to save little. In the
/// lowest, zlib-rs 0.6 has a fast path that panics when the room for its output is used up.
const LEVEL: Compression = Compression::new(2);

/// Shorter messages are sent as they are: most would not be shorter by more than a few bytes.
const MIN_LEN: usize = 64;

/// As [`MIN_LEN`], for messages that cannot refer to earlier ones.
const MIN_LEN_WITHOUT_CONTEXT: usize = 1024;

/// The window that any deflate stream can do with.
const MAX_WINDOW: usize = 1 << 15;

/// What a thread keeps of a large message's buffer.
const KEPT_BUFFER: usize = 64 * 1024;

/// One connection's compression, both ways.
#[derive(Debug)]
pub(super) struct Deflate {
    agreement: Agreement,
    sent: Vec<u8>,
    received: Vec<u8>,
}

impl Deflate {
    pub(super) fn new(agreement: Agreement) -> Self {
        Self {
            agreement,
            sent: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Hands `write` the message `data`, compressed. False if it is better sent as it is.
    pub(super) fn compress(&mut self, data: &[u8], write: impl FnOnce(&[u8])) -> bool {
        let server = self.agreement.server;
        let min_len = match server.context_takeover {
            true => MIN_LEN,
            false => MIN_LEN_WITHOUT_CONTEXT,
        };
        if data.len() < min_len {
            return false;
        }
        let compressed = ENGINES.with_borrow_mut(|engines| {
            let compressed = engines.compress(server.window_bits, &self.sent, data);
            let compressed = compressed.map(write).is_some();
            engines.compressed.clear();
            engines.compressed.shrink_to(KEPT_BUFFER);
            compressed
        });
        if compressed {
            remember(&mut self.sent, data, history_len(server).min(SENT_HISTORY));
        }
        compressed
    }

    /// Ends a message that `inflater` has inflated to `message`.
    pub(super) fn finish(
        &mut self,
        mut inflater: Box<Inflater>,
        message: &mut Vec<u8>,
        max_len: usize,
    ) -> Result<(), Failure> {
        // A final block after what was not sent shows whether the client ended where it has to.
        const END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
        if !inflater.between_streams {
            self.inflate(&mut inflater, &END, message, max_len)?;
        }
        if !inflater.between_streams {
            return Err(Failure::INVALID_DEFLATE);
        }
        remember(
            &mut self.received,
            message,
            history_len(self.agreement.client),
        );
        ENGINES.with_borrow_mut(|engines| engines.spare_inflater = Some(inflater));
        Ok(())
    }

    /// Inflates `compressed`, a piece of a message, to the end of `message`, which is the message
    /// so far.
    pub(super) fn inflate(
        &self,
        inflater: &mut Inflater,
        mut compressed: &[u8],
        message: &mut Vec<u8>,
        max_len: usize,
    ) -> Result<(), Failure> {
        let Inflater {
            engine,
            between_streams,
        } = inflater;
        loop {
            if *between_streams {
                if compressed.is_empty() {
                    return Ok(());
                }
                engine.reset(false);
                engine
                    .set_dictionary(&history(&self.received, message))
                    .map_err(|_| Failure::INVALID_DEFLATE)?;
                *between_streams = false;
            }
            if message.len() == message.capacity() {
                let wanted = message.len().max(compressed.len() * 4).max(256);
                // One byte more than there may be, or its excess would not be seen.
                message.reserve_exact(wanted.min(max_len + 1 - message.len()));
            }
            let before = engine.total_in();
            let status = engine
                .decompress_vec(compressed, message, FlushDecompress::None)
                .map_err(|_| Failure::INVALID_DEFLATE)?;
            compressed = &compressed[(engine.total_in() - before) as usize..];
            if message.len() > max_len {
                return Err(Failure::TOO_BIG);
            }
            if status == Status::StreamEnd {
                *between_streams = true;
            } else if compressed.is_empty() && message.len() < message.capacity() {
                return Ok(());
            }
        }
    }
}

/// The state of a message that is being inflated. It belongs to one connection until the message
/// is complete.
#[derive(Debug)]
pub(super) struct Inflater {
    engine: Decompress,
    /// No deflate stream has begun, or the last has ended.
    between_streams: bool,
}

impl Inflater {
    pub(super) fn take() -> Box<Self> {
        let spare = ENGINES.with_borrow_mut(|engines| engines.spare_inflater.take());
        spare.unwrap_or_else(|| {
            Box::new(Self {
                engine: Decompress::new(false),
                between_streams: true,
            })
        })
    }
}

thread_local! {
    static ENGINES: RefCell<Engines> = RefCell::default();
}

/// A thread's engines.
#[derive(Default)]
struct Engines {
    /// By the bits of their windows, from 9 on.
    compressors: [Option<Compress>; 7],
    compressed: Vec<u8>,
    spare_inflater: Option<Box<Inflater>>,
}

impl Engines {
    /// Compresses `data`, or `None` if that does not make it shorter.
    fn compress(&mut self, window_bits: u8, history: &[u8], data: &[u8]) -> Option<&[u8]> {
        // zlib has no raw windows of 8 bits. In those of 9 it refers 250 bytes back at most, as it
        // keeps the length of a match and more (`MIN_LOOKAHEAD`) to look ahead.
        let window_bits = window_bits.max(9);
        let engine = self.compressors[usize::from(window_bits - 9)]
            .get_or_insert_with(|| Compress::new_with_window_bits(LEVEL, false, window_bits));
        engine.reset();
        if !history.is_empty() {
            engine.set_dictionary(history).ok()?;
        }
        let compressed = &mut self.compressed;
        compressed.reserve(data.len());
        engine
            .compress_vec(data, compressed, FlushCompress::Sync)
            .ok()?;
        // If the buffer is full, there may be more to come.
        let whole =
            compressed.len() < compressed.capacity() && engine.total_in() == data.len() as u64;
        let compressed = compressed.strip_suffix(&FLUSHED)?;
        (whole && compressed.len() < data.len()).then_some(compressed)
    }
}

/// How much of earlier messages the next may refer to.
fn history_len(direction: Direction) -> usize {
    match direction.context_takeover {
        true => 1 << direction.window_bits,
        false => 0,
    }
}

/// Moves `history`, of `len` bytes at most, behind `message`.
fn remember(history: &mut Vec<u8>, message: &[u8], len: usize) {
    let message = &message[message.len().saturating_sub(len)..];
    let surplus = (history.len() + message.len()).saturating_sub(len);
    history.drain(..surplus);
    let needed = history.len() + message.len();
    if needed > history.capacity() {
        // `len` is a power of two: no more than it is ever taken.
        history.reserve_exact(needed.next_power_of_two() - history.len());
    }
    history.extend_from_slice(message);
}

/// What a deflate stream that begins after `message` may refer to.
fn history<'a>(received: &'a [u8], message: &'a [u8]) -> Cow<'a, [u8]> {
    if message.is_empty() {
        return received.into();
    }
    let message = &message[message.len().saturating_sub(MAX_WINDOW)..];
    let received = &received[received.len().saturating_sub(MAX_WINDOW - message.len())..];
    [received, message].concat().into()
}

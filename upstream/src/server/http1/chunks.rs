//! Runs on: network thread; pure.
//!
//! The body of a request in chunks (RFC 9112, section 7.1), read strictly.

/// Bytes of extensions and trailers that a body may have in all.
const MOST_BESIDE: usize = 16 * 1024;

/// How far a body in chunks has been read.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    /// Bytes that were neither data nor sizes.
    beside: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a size of so many digits.
    Size(u64, u32),
    /// In blanks behind a size.
    Blank(u64),
    Extension(u64),
    /// Behind the CR of a size.
    SizeEnd(u64),
    /// In a chunk of which so much is left.
    Data(u64),
    DataCr,
    DataLf,
    /// At the begin of a line behind the last chunk.
    Line,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// Behind the CR of the empty line.
    LastLf,
    End,
}

impl Default for At {
    fn default() -> Self {
        Self::Size(0, 0)
    }
}

/// What some bytes have come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk<'a> {
    /// Data.
    Data(&'a [u8]),
    /// All has been read, and more has to come.
    More,
    /// The body has ended.
    End,
}

/// What is wrong with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadChunks {
    /// The bytes are no chunks.
    Malformed,
    /// There is too much in the trailers.
    TooLarge,
}

impl Chunks {
    /// Reads the next of `bytes`, which is advanced.
    pub(super) fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Chunk<'a>, BadChunks> {
        loop {
            if let At::Data(left) = self.at
                && !bytes.is_empty()
            {
                let length =
                    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                let (data, rest) = bytes.split_at(length);
                *bytes = rest;
                let left = left - length as u64;
                self.at = if left == 0 {
                    At::DataCr
                } else {
                    At::Data(left)
                };
                return Ok(Chunk::Data(data));
            }
            if self.at == At::End {
                return Ok(Chunk::End);
            }
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(Chunk::More);
            };
            *bytes = rest;
            self.at = self.step(byte)?;
        }
    }

    fn step(&mut self, byte: u8) -> Result<At, BadChunks> {
        Ok(match (self.at, byte) {
            (At::Size(size, digits), byte) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                At::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (At::Size(size, 1..), b'\r') => At::SizeEnd(size),
            (At::Size(size, 1..) | At::Blank(size), b' ' | b'\t') => {
                self.count()?;
                At::Blank(size)
            }
            // RFC 9112, section 7.1.1: what a recipient does not know it ignores.
            (At::Size(size, 1..) | At::Blank(size), b';') => At::Extension(size),
            (At::Blank(size), b'\r') => At::SizeEnd(size),
            (At::Extension(size), b'\r') => At::SizeEnd(size),
            (At::Extension(size), byte) if is_text(byte) => {
                self.count()?;
                At::Extension(size)
            }
            (At::SizeEnd(0), b'\n') => At::Line,
            (At::SizeEnd(size), b'\n') => At::Data(size),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0, 0),
            (At::Line, b'\r') => At::LastLf,
            (At::LastLf, b'\n') => At::End,
            (At::TrailerValue, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::Line,
            // Nobody gets the trailers. But what is no field may be the next request, to somebody else on the way.
            (At::Line | At::TrailerName, byte) if is_token(byte) => {
                self.trailer(At::TrailerName)?
            }
            (At::TrailerName, b':') => self.trailer(At::TrailerValue)?,
            (At::TrailerValue, byte) if is_text(byte) => self.trailer(At::TrailerValue)?,
            _ => return Err(BadChunks::Malformed),
        })
    }

    fn count(&mut self) -> Result<(), BadChunks> {
        self.beside += 1;
        match self.beside > MOST_BESIDE {
            true => Err(BadChunks::Malformed),
            false => Ok(()),
        }
    }

    fn trailer(&mut self, at: At) -> Result<At, BadChunks> {
        self.count().map_err(|_| BadChunks::TooLarge)?;
        Ok(at)
    }
}

/// What names are made of (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What values may have (RFC 9110, section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

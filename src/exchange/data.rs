//! Runs on: any thread.
//!
//! A piece of a response's body.

use std::fmt;
use std::ops::Deref;

/// A piece of a response's body: bytes of ours, or such as somebody else has and will not change.
///
/// What is kept is an object of another thread's, the one exception to the rule that the sides of an exchange
/// share none. It may be read and dropped on any thread, and is nothing but its bytes there. An object of
/// Python's that is dropped by a thread which is not attached lives until the loop runs next: see
/// [`kept`](Self::kept).
pub(crate) enum Data {
    /// Ours.
    Own(Vec<u8>),
    /// Kept for us.
    Kept(Box<dyn AsRef<[u8]> + Send>),
}

impl Data {
    /// From so many bytes on it is cheaper to keep them than to copy them.
    pub(crate) const WORTH_KEEPING: usize = 4096;

    /// Bytes that are kept and not ours: their owner has to be told when they have been dropped, since that alone
    /// may not free them.
    pub(crate) fn kept(&self) -> usize {
        match self {
            Self::Own(_) => 0,
            Self::Kept(bytes) => (**bytes).as_ref().len(),
        }
    }

    /// Takes `next` in behind these bytes. It comes back if that would mean to copy what is kept to save a copy.
    pub(crate) fn append(&mut self, next: Self) -> Option<Self> {
        match (&mut *self, next) {
            (_, next) if next.is_empty() => {}
            (own, next) if own.is_empty() => *own = next,
            (Self::Own(bytes), Self::Own(next)) => bytes.extend_from_slice(&next),
            (_, next) => return Some(next),
        }
        None
    }
}

impl Default for Data {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl From<Vec<u8>> for Data {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Own(bytes)
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(bytes) => (**bytes).as_ref(),
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Own(_) => "own",
            Self::Kept(_) => "kept",
        };
        write!(formatter, "{} bytes, {kind}", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(bytes: &[u8]) -> Data {
        bytes.to_vec().into()
    }

    fn kept(bytes: &'static [u8]) -> Data {
        Data::Kept(Box::new(bytes))
    }

    #[test]
    fn pieces_join_where_nothing_kept_is_copied() {
        for (mut first, next, joined, left) in [
            (own(b"a"), own(b"b"), &b"ab"[..], None),
            (own(b""), own(b"b"), b"b", None),
            (own(b""), kept(b"b"), b"b", None),
            (kept(b"a"), own(b""), b"a", None),
            (kept(b"a"), own(b"b"), b"a", Some(b"b")),
            (own(b"a"), kept(b"b"), b"a", Some(b"b")),
            (kept(b"a"), kept(b"b"), b"a", Some(b"b")),
        ] {
            let back = first.append(next);
            assert_eq!(&*first, joined);
            assert_eq!(back.as_deref(), left.map(|left: &[u8; 1]| &left[..]));
        }
    }

    #[test]
    fn what_is_kept_is_counted() {
        assert_eq!((own(b"abc").kept(), kept(b"abc").kept()), (0, 3));
    }
}

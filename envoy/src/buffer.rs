//! Runs on: any thread.
//!
//! Bytes lent by Envoy, bytes lent to Envoy. The only place that turns C's pointer and length into
//! a slice.

use std::ffi::c_char;
use std::slice;

use crate::sys::{EnvoyBuffer, EnvoyHttpHeader, ModuleBuffer};

impl EnvoyBuffer {
    /// For callbacks to write into.
    pub(crate) const EMPTY: Self = Self {
        ptr: std::ptr::null(),
        length: 0,
    };

    /// # Safety
    ///
    /// Envoy made `self`, and what it describes stays as it is for `'a`.
    #[inline]
    pub(crate) unsafe fn as_bytes<'a>(self) -> &'a [u8] {
        // SAFETY: passed on to the caller.
        unsafe { bytes(self.ptr, self.length) }
    }
}

impl EnvoyHttpHeader {
    /// # Safety
    ///
    /// As for [`EnvoyBuffer::as_bytes`].
    #[inline]
    pub(crate) unsafe fn as_pair<'a>(&self) -> (&'a [u8], &'a [u8]) {
        // SAFETY: passed on to the caller.
        let name = unsafe { bytes(self.key_ptr, self.key_length) };
        // SAFETY: passed on to the caller.
        let value = unsafe { bytes(self.value_ptr, self.value_length) };
        (name, value)
    }
}

impl From<&[u8]> for ModuleBuffer {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        Self {
            ptr: bytes.as_ptr().cast(),
            length: bytes.len(),
        }
    }
}

impl From<&str> for ModuleBuffer {
    #[inline]
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// What the fake Envoy lends.
#[cfg(feature = "fake")]
impl EnvoyBuffer {
    pub(crate) fn lend(bytes: &[u8]) -> Self {
        Self {
            ptr: bytes.as_ptr().cast(),
            length: bytes.len(),
        }
    }
}

#[cfg(feature = "fake")]
impl EnvoyHttpHeader {
    pub(crate) fn lend(name: &[u8], value: &[u8]) -> Self {
        Self {
            key_ptr: name.as_ptr().cast(),
            key_length: name.len(),
            value_ptr: value.as_ptr().cast(),
            value_length: value.len(),
        }
    }
}

/// An empty buffer may come as null, which a slice must not.
///
/// # Safety
///
/// `length` is 0 or `ptr` has that many bytes, which stay as they are for `'a`.
#[inline]
pub(crate) unsafe fn bytes<'a>(ptr: *const c_char, length: usize) -> &'a [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: `length` is not 0, so the caller vouches for `ptr`.
    unsafe { slice::from_raw_parts(ptr.cast(), length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_with_length_zero_is_empty() {
        // SAFETY: there are no bytes.
        assert_eq!(unsafe { EnvoyBuffer::EMPTY.as_bytes() }, b"");
    }

    #[test]
    fn bytes_go_there_and_back() {
        let sent = ModuleBuffer::from("text");
        let received = EnvoyBuffer {
            ptr: sent.ptr,
            length: sent.length,
        };
        // SAFETY: a literal lives as long as the program.
        assert_eq!(unsafe { received.as_bytes() }, b"text");
    }
}

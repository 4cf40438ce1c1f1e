//! Runs on: Envoy worker thread.
//!
//! Request headers and trailers as Envoy holds them, and headers to be sent.

use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use smallvec::SmallVec;

use super::EnvoyFilter;
use crate::buffer;
use crate::sys::{self, EnvoyBuffer, EnvoyHttpHeader, HttpHeaderType, ModuleHttpHeader};

/// How many headers need no allocation. Browsers send some 20, Envoy adds a few.
const INLINE: usize = 32;

impl EnvoyFilter<'_> {
    /// All request headers, pseudo headers first.
    #[inline]
    pub fn request_headers(&self) -> Headers<'_> {
        self.headers(HttpHeaderType::RequestHeader)
    }

    /// All request trailers; none before they have arrived.
    #[inline]
    pub fn request_trailers(&self) -> Headers<'_> {
        self.headers(HttpHeaderType::RequestTrailer)
    }

    /// The first value of request header `name`, in whichever case.
    #[inline]
    pub fn request_header(&self, name: &str) -> Option<&[u8]> {
        let (kind, mut value) = (HttpHeaderType::RequestHeader, EnvoyBuffer::EMPTY);
        let (first, count) = (0, ptr::null_mut());
        // SAFETY: the filter is live while it is lent; `name` and `value` outlive the call, and
        // `count` may be null.
        let found = unsafe {
            sys::http_get_header(self.raw(), kind, name.into(), &raw mut value, first, count)
        };
        // SAFETY: Envoy wrote `value` as it answered true. Nothing here changes a header map, and
        // the slice borrows `self`, so it ends with the hook.
        found.then(|| unsafe { value.as_bytes() })
    }

    /// Gives request header `name` this one value, in place of all that it has; an empty one takes it
    /// away. The filters that follow see it so.
    ///
    /// Envoy checks nothing: `name` must be a token, and `value` have no CR, LF or NUL.
    pub fn set_request_header(&mut self, name: &str, value: &[u8]) {
        self.set_header(HttpHeaderType::RequestHeader, name, value);
    }

    /// Takes request trailer `name` away.
    pub fn remove_request_trailer(&mut self, name: &str) {
        self.set_header(HttpHeaderType::RequestTrailer, name, b"");
    }

    fn set_header(&mut self, kind: HttpHeaderType, name: &str, value: &[u8]) {
        // SAFETY: the filter is live while it is lent, and Envoy copies `name` and `value`. No bytes
        // of the header map are held, since `self` is borrowed as `&mut`.
        unsafe { sys::http_set_header(self.raw(), kind, name.into(), value.into()) };
    }

    fn headers(&self, kind: HttpHeaderType) -> Headers<'_> {
        let mut entries = SmallVec::<[EnvoyHttpHeader; INLINE]>::new();
        // SAFETY: the filter is live while it is lent.
        let count = unsafe { sys::http_get_headers_size(self.raw(), kind) };
        if count > 0 {
            entries.reserve_exact(count);
            // SAFETY: Envoy fills `count` entries, for which there is room.
            let filled = unsafe { sys::http_get_headers(self.raw(), kind, entries.as_mut_ptr()) };
            if filled {
                // SAFETY: Envoy wrote `count` entries as it answered true.
                unsafe { entries.set_len(count) };
            }
        }
        Headers {
            entries,
            lent: PhantomData,
        }
    }
}

/// A header map, read at once and borrowed from Envoy. Repeated names are separate entries, names
/// are in lower case, values are bytes.
pub struct Headers<'a> {
    entries: SmallVec<[EnvoyHttpHeader; INLINE]>,
    lent: PhantomData<&'a [u8]>,
}

impl<'a> Headers<'a> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Names and values, in Envoy's order.
    #[inline]
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + DoubleEndedIterator + Clone + '_
    {
        // SAFETY: Envoy wrote the entries, and the map stays as it is for `'a`, for which the
        // `EnvoyFilter` is borrowed.
        self.entries
            .iter()
            .map(|header| unsafe { header.as_pair() })
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| {
                (
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value),
                )
            }))
            .finish()
    }
}

/// A header to be sent. `&[Header]` is what C takes, so that no call converts it.
///
/// Envoy checks nothing: a line break in a value splits an HTTP/1 response. The caller must have
/// checked that `name` is a token and `value` has no CR, LF or NUL.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Header<'a> {
    raw: ModuleHttpHeader,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// A header of these bytes.
    #[inline]
    pub const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        let raw = ModuleHttpHeader {
            key_ptr: name.as_ptr().cast(),
            key_length: name.len(),
            value_ptr: value.as_ptr().cast(),
            value_length: value.len(),
        };
        Self {
            raw,
            bytes: PhantomData,
        }
    }

    /// Its name.
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        // SAFETY: `new` took pointer and length from a slice that lives for `'a`.
        unsafe { buffer::bytes(self.raw.key_ptr, self.raw.key_length) }
    }

    /// Its value.
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        // SAFETY: as in `name`.
        unsafe { buffer::bytes(self.raw.value_ptr, self.raw.value_length) }
    }

    /// `headers` as C takes them. Envoy only reads the array, although C's type is `*mut`, and is
    /// done with it when the callback returns.
    #[inline]
    pub(crate) fn as_c(headers: &[Self]) -> *mut ModuleHttpHeader {
        headers.as_ptr().cast_mut().cast()
    }
}

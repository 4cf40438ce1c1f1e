//! Runs on: Envoy worker thread.
//!
//! The request's body. *Received* is the piece a body hook is called for, and is there only in
//! that hook. *Buffered* is what earlier hooks had Envoy keep ([`DataStatus`](super::DataStatus)),
//! and can be read and drained at any time. All filters of the stream share it: behind what ours has
//! had kept there may be what a filter in front of it holds back. When that goes on, the received
//! piece *is* the buffered body ([`EnvoyFilter::received_is_buffered_request_body`]).

use std::fmt;
use std::marker::PhantomData;

use smallvec::SmallVec;

use super::EnvoyFilter;
use crate::sys::{self, EnvoyBuffer, HttpBodyType};

/// How many chunks need no allocation. HTTP/2 brings one frame at a time, HTTP/1 slices of 16 KiB.
const INLINE: usize = 16;

impl EnvoyFilter<'_> {
    /// The piece of request body that the running body hook is called for.
    #[inline]
    pub fn received_request_body(&self) -> BodyChunks<'_> {
        self.chunks(HttpBodyType::ReceivedRequestBody)
    }

    /// What Envoy keeps of the request body.
    #[inline]
    pub fn buffered_request_body(&self) -> BodyChunks<'_> {
        self.chunks(HttpBodyType::BufferedRequestBody)
    }

    /// How many bytes [`received_request_body`](Self::received_request_body) has.
    #[inline]
    pub fn received_request_body_len(&self) -> usize {
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_get_body_size(self.raw(), HttpBodyType::ReceivedRequestBody) }
    }

    /// How many bytes [`buffered_request_body`](Self::buffered_request_body) has.
    #[inline]
    pub fn buffered_request_body_len(&self) -> usize {
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_get_body_size(self.raw(), HttpBodyType::BufferedRequestBody) }
    }

    /// Whether the received piece is the buffered body, handed over since a filter in front goes on
    /// with it. It then stays buffered until it is drained, whatever the hook answers.
    #[inline]
    pub fn received_is_buffered_request_body(&self) -> bool {
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_received_buffered_request_body(self.raw()) }
    }

    /// Takes `bytes` off the front of the buffered body, or all if there are fewer. Once less than
    /// half the buffer limit is left, Envoy reads from the client again. False if there is no
    /// buffered body.
    #[inline]
    pub fn drain_buffered_request_body(&mut self, bytes: usize) -> bool {
        // SAFETY: the filter is live while it is lent. `&mut self` proves that nobody holds a
        // slice of the buffer.
        unsafe { sys::http_drain_body(self.raw(), HttpBodyType::BufferedRequestBody, bytes) }
    }

    /// Takes `bytes` off the front of the received piece, or all if there are fewer, so that Envoy
    /// keeps the rest if the hook answers so.
    #[inline]
    pub fn drain_received_request_body(&mut self, bytes: usize) -> bool {
        // SAFETY: as in `drain_buffered_request_body`.
        unsafe { sys::http_drain_body(self.raw(), HttpBodyType::ReceivedRequestBody, bytes) }
    }

    fn chunks(&self, kind: HttpBodyType) -> BodyChunks<'_> {
        let mut chunks = SmallVec::<[EnvoyBuffer; INLINE]>::new();
        // SAFETY: the filter is live while it is lent.
        let count = unsafe { sys::http_get_body_chunks_size(self.raw(), kind) };
        if count > 0 {
            chunks.reserve_exact(count);
            // SAFETY: Envoy fills `count` entries, for which there is room.
            let filled =
                unsafe { sys::http_get_body_chunks(self.raw(), kind, chunks.as_mut_ptr()) };
            if filled {
                // SAFETY: Envoy wrote `count` entries as it answered true.
                unsafe { chunks.set_len(count) };
            }
        }
        let total = chunks.iter().map(|chunk| chunk.length).sum();
        BodyChunks {
            chunks,
            total,
            lent: PhantomData,
        }
    }
}

/// Body bytes in the pieces that Envoy holds them in, borrowed from it.
pub struct BodyChunks<'a> {
    chunks: SmallVec<[EnvoyBuffer; INLINE]>,
    total: usize,
    lent: PhantomData<&'a [u8]>,
}

impl<'a> BodyChunks<'a> {
    /// How many bytes there are in all.
    #[inline]
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// The pieces, in order.
    #[inline]
    pub fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + '_ {
        // SAFETY: Envoy wrote the entries, and the buffer stays as it is for `'a`, for which the
        // `EnvoyFilter` is borrowed.
        self.chunks.iter().map(|chunk| unsafe { chunk.as_bytes() })
    }

    /// The pieces up to `bytes` in all, or as many as there are; the last may be cut.
    #[inline]
    pub fn first(&self, bytes: usize) -> impl Iterator<Item = &'a [u8]> + '_ {
        let mut left = bytes;
        self.iter().map_while(move |chunk| {
            let taken = chunk.len().min(left);
            left -= taken;
            (taken > 0 || chunk.is_empty()).then(|| &chunk[..taken])
        })
    }
}

impl fmt::Debug for BodyChunks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyChunks")
            .field("bytes", &self.total)
            .field("chunks", &self.chunks.len())
            .finish()
    }
}

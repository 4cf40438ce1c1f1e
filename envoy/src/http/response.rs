//! Runs on: Envoy worker thread.
//!
//! The response, whole or in parts, and the ways to end a stream without one.
//!
//! Each of these calls may run hooks of this stream before it returns, up to `on_stream_complete`.
//! None reports failure: the only sign is that the stream completes.
//!
//! Envoy sends what it is given. The caller must see to it that there is one final header block and
//! it comes first, that the body has as many bytes as `content-length` says, and that HEAD, 1xx,
//! 204 and 304 get none.

use super::{EnvoyFilter, Header};
use crate::sys;

/// Why the client sees its stream reset.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// An error on our side.
    LocalReset = 0,
    /// The request was not looked at, and may be sent again.
    LocalRefusedStreamReset = 1,
}

impl EnvoyFilter<'_> {
    /// Sends a whole response. Envoy adds `content-length`, and `content-type: text/plain` if there
    /// is a body and no other type. `details` is the response code details of the access log.
    ///
    /// Once a response has begun, this resets the stream instead.
    pub fn send_response(
        &mut self,
        status: u32,
        headers: &[Header<'_>],
        body: &[u8],
        details: &str,
    ) {
        self.stream().response_begins();
        let (array, count) = (Header::as_c(headers), headers.len());
        // SAFETY: the filter is live while it is lent; Envoy copies what it is handed, all of
        // which outlives the call.
        unsafe {
            sys::http_send_response(
                self.raw(),
                status,
                array,
                count,
                body.into(),
                details.into(),
            );
        }
    }

    /// Begins a response. `headers` has `:status`, which may be an interim one (1xx) if another
    /// header block follows.
    #[inline]
    pub fn send_response_headers(&mut self, headers: &[Header<'_>], end_of_stream: bool) {
        self.stream().response_begins();
        let (array, count) = (Header::as_c(headers), headers.len());
        // SAFETY: as in `send_response`.
        unsafe { sys::http_send_response_headers(self.raw(), array, count, end_of_stream) }
    }

    /// Sends a piece of the body; empty is fine at the end. Envoy never refuses: a sender that
    /// ignores the watermark hooks fills its memory.
    #[inline]
    pub fn send_response_data(&mut self, data: &[u8], end_of_stream: bool) {
        // SAFETY: as in `send_response`.
        unsafe { sys::http_send_response_data(self.raw(), data.into(), end_of_stream) }
    }

    /// Ends the response with trailers.
    #[inline]
    pub fn send_response_trailers(&mut self, trailers: &[Header<'_>]) {
        let (array, count) = (Header::as_c(trailers), trailers.len());
        // SAFETY: as in `send_response`.
        unsafe { sys::http_send_response_trailers(self.raw(), array, count) }
    }

    /// Ends the stream, with a reset on HTTP/2 and HTTP/3, by closing the connection on HTTP/1.
    pub fn reset_stream(&mut self, reason: ResetReason, details: &str) {
        // SAFETY: as in `send_response`.
        unsafe { sys::http_filter_reset_stream(self.raw(), reason, details.into()) }
    }

    /// Has the client open another connection for its next request: GOAWAY on HTTP/2 and HTTP/3,
    /// `connection: close` on HTTP/1. Graceful leaves the streams that are under way alone.
    pub fn send_go_away_and_close(&mut self, graceful: bool) {
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_filter_send_go_away_and_close(self.raw(), graceful) }
    }
}

//! Runs on: Envoy worker thread.
//!
//! The response, whole or in parts, and the ways to end a stream without one.
//!
//! Each of these calls may run hooks of this stream before it returns, up to `on_stream_complete`.
//! None reports failure: the only sign is that the stream completes.
//!
//! What is sent out of turn, such as data before headers, ends the stream. What is sent once the
//! stream is over goes nowhere. For the rest Envoy sends what it is given: the caller must see to it
//! that the body has as many bytes as `content-length` says, and that HEAD, 1xx, 204 and 304 get
//! none.

use super::filter::Broken;
use super::{EnvoyFilter, Header, Progress};
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
    /// Once a header block was sent, even an interim one, this resets the stream instead.
    pub fn send_response(
        &mut self,
        status: u32,
        headers: &[Header<'_>],
        body: &[u8],
        details: &str,
    ) {
        if !self.ends() {
            return;
        }
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
        match self.stream().progress() {
            Progress::Idle | Progress::Interim if is_interim(headers) => {
                if end_of_stream {
                    return self.out_of_turn("end of stream after an interim head");
                }
                self.stream().set_progress(Progress::Interim);
            }
            Progress::Idle | Progress::Interim if end_of_stream => {
                self.stream().set_progress(Progress::Over);
            }
            Progress::Idle | Progress::Interim => self.stream().set_progress(Progress::Sending),
            Progress::Over | Progress::Failing(_) => return,
            Progress::Sending => return self.out_of_turn("headers after the response's headers"),
            Progress::Passing => return self.out_of_turn("headers after another response's"),
        }
        let (array, count) = (Header::as_c(headers), headers.len());
        // SAFETY: as in `send_response`.
        unsafe { sys::http_send_response_headers(self.raw(), array, count, end_of_stream) }
    }

    /// Sends a piece of the body; empty is fine at the end. Envoy never refuses: a sender that
    /// ignores the watermark hooks fills its memory.
    #[inline]
    pub fn send_response_data(&mut self, data: &[u8], end_of_stream: bool) {
        match self.stream().progress() {
            Progress::Sending if end_of_stream => self.stream().set_progress(Progress::Over),
            Progress::Sending => {}
            Progress::Over | Progress::Failing(_) => return,
            Progress::Idle | Progress::Interim => return self.out_of_turn("data before headers"),
            Progress::Passing => return self.out_of_turn("data of another response"),
        }
        // SAFETY: as in `send_response`.
        unsafe { sys::http_send_response_data(self.raw(), data.into(), end_of_stream) }
    }

    /// Ends the response with trailers.
    #[inline]
    pub fn send_response_trailers(&mut self, trailers: &[Header<'_>]) {
        match self.stream().progress() {
            Progress::Sending => self.stream().set_progress(Progress::Over),
            Progress::Over | Progress::Failing(_) => return,
            Progress::Idle | Progress::Interim => {
                return self.out_of_turn("trailers before headers");
            }
            Progress::Passing => return self.out_of_turn("trailers of another response"),
        }
        let (array, count) = (Header::as_c(trailers), trailers.len());
        // SAFETY: as in `send_response`.
        unsafe { sys::http_send_response_trailers(self.raw(), array, count) }
    }

    /// Ends the stream, with a reset on HTTP/2 and HTTP/3, by closing the connection on HTTP/1.
    pub fn reset_stream(&mut self, reason: ResetReason, details: &str) {
        if self.ends() {
            // SAFETY: as in `send_response`.
            unsafe { sys::http_filter_reset_stream(self.raw(), reason, details.into()) }
        }
    }

    /// Has the client open another connection for its next request: GOAWAY on HTTP/2 and HTTP/3,
    /// `connection: close` on HTTP/1. Graceful leaves the streams that are under way alone.
    pub fn send_go_away_and_close(&mut self, graceful: bool) {
        // SAFETY: the filter is live while it is lent.
        unsafe { sys::http_filter_send_go_away_and_close(self.raw(), graceful) }
    }

    /// Ends the stream after a failure of the module: with a 500 while the client has seen nothing,
    /// else by a reset.
    #[cold]
    pub(crate) fn end_broken(&mut self, details: &str) {
        let Some(broken) = self.stream().progress().broken() else {
            return;
        };
        // What follows may be refused to `Failing`.
        self.stream().set_progress(Progress::Idle);
        match broken {
            Broken::Untouched => self.send_response(500, &[], b"", details),
            Broken::Announced => {
                let (status, length) = (b"500".as_slice(), b"0".as_slice());
                let head = [
                    Header::new(b":status", status),
                    Header::new(b"content-length", length),
                ];
                self.send_response_headers(&head, true);
            }
            Broken::Begun => self.reset_stream(ResetReason::LocalReset, details),
        }
    }

    /// Whether the stream is there to be ended. It is over from now on.
    fn ends(&self) -> bool {
        let open = !matches!(
            self.stream().progress(),
            Progress::Failing(_) | Progress::Over
        );
        if open {
            self.stream().set_progress(Progress::Over);
        }
        open
    }

    #[cold]
    fn out_of_turn(&mut self, what: &str) {
        log::error!("response out of turn: {what}");
        self.end_broken("dynamic_module_response_out_of_turn");
    }
}

/// Whether `headers` are those of an interim response. 101 is a final one: what follows it is data.
#[inline]
fn is_interim(headers: &[Header<'_>]) -> bool {
    let status = headers
        .iter()
        .find(|header| header.name() == b":status")
        .map(Header::value);
    status.is_some_and(|status| status.starts_with(b"1") && status != b"101")
}

//! Runs on: Envoy worker thread.
//!
//! How a response ends.

use std::time::Duration;

use envoy::{EnvoyFilter, Header};
use smallvec::SmallVec;

use super::{Filter, pairs};
use crate::clock::Instant;
use crate::exchange::{Fields, HttpVersion};

/// The end of a response on HTTP/2 whose request has not ended. With it Envoy resets the stream,
/// and what the client's window has no room for is lost. So after a burst it is held back until the
/// request ends, the rest of which is thrown away, or the client has had time for the burst.
pub(super) struct HeldEnd {
    trailers: Fields,
    /// When it goes out, if the client keeps up then.
    due: Instant,
    /// When it goes out whether the client keeps up or not.
    latest: Instant,
}

/// Bytes that any usual client has room for: a window is 65,535 at the beginning.
const BURST: usize = 60 * 1024;
/// How long a burst takes to be with a client that keeps up.
const BURST_TIME: Duration = Duration::from_millis(500);
/// How long the end of a response is held back at most.
const HELD: Duration = Duration::from_secs(60);

impl HeldEnd {
    /// Whether it goes out now; `is_slow` is a client that does not keep up.
    pub(super) fn is_due(&self, now: Instant, is_slow: bool) -> bool {
        now >= if is_slow { self.latest } else { self.due }
    }

    /// The client keeps up again.
    pub(super) fn give_time(&mut self) {
        self.due = self.due.max(Instant::now() + BURST_TIME);
    }
}

impl Filter {
    /// Sends what is not the last.
    pub(super) fn send_data(&self, envoy: &mut EnvoyFilter<'_>, data: &[u8]) {
        if self.version.get() == HttpVersion::Http2 && !self.request.get().ended {
            let mut response = self.response.get();
            let now = Instant::now();
            let (since, bytes) = response
                .burst
                .filter(|(since, _)| now.duration_since(*since) < BURST_TIME)
                .unwrap_or((now, 0));
            response.burst = Some((since, bytes + data.len()));
            self.response.set(response);
        }
        envoy.send_response_data(data, false);
    }

    /// Ends the response with the last of its body, or with trailers.
    pub(super) fn finish(&self, envoy: &mut EnvoyFilter<'_>, data: &[u8], trailers: Fields) {
        self.end_response();
        if !self.holds_end(data.len()) {
            return send_end(envoy, data, &trailers);
        }
        if !data.is_empty() {
            envoy.send_response_data(data, false);
        }
        let now = Instant::now();
        *self.held_end.borrow_mut() = Some(HeldEnd {
            trailers,
            due: now + BURST_TIME,
            latest: now + HELD,
        });
        self.start_clock();
        let kept = envoy.buffered_request_body_len();
        if kept > 0 {
            envoy.drain_buffered_request_body(kept);
        }
    }

    /// Whether the end of the response has to wait, if it comes behind `more` bytes.
    fn holds_end(&self, more: usize) -> bool {
        self.version.get() == HttpVersion::Http2
            && !self.request.get().ended
            && (more > BURST || self.is_in_burst())
    }

    fn is_in_burst(&self) -> bool {
        let burst = self.response.get().burst;
        burst.is_some_and(|(since, bytes)| bytes > BURST && since.elapsed() < BURST_TIME)
    }

    /// Sends an end that was held back.
    pub(super) fn release_end(&self, envoy: &mut EnvoyFilter<'_>) {
        let held = self.held_end.borrow_mut().take();
        if let Some(HeldEnd { trailers, .. }) = held {
            send_end(envoy, b"", &trailers);
        }
    }
}

/// Sends the last of a body, and the end with it or with trailers.
fn send_end(envoy: &mut EnvoyFilter<'_>, data: &[u8], trailers: &Fields) {
    if trailers.is_empty() {
        return envoy.send_response_data(data, true);
    }
    if !data.is_empty() {
        envoy.send_response_data(data, false);
    }
    let trailers: SmallVec<[Header<'_>; 8]> = pairs(trailers).collect();
    envoy.send_response_trailers(&trailers);
}

//! Runs on: Envoy worker thread.
//!
//! How a response ends.

use std::time::{Duration, Instant};

use envoy::{EnvoyFilter, Header};
use smallvec::SmallVec;

use super::{Filter, Place, pairs};
use crate::admission::clock::now;
use crate::exchange::{Fields, HttpVersion};

/// The end of a response whose request has not ended. It is held back until then, if the client
/// would lose some of the response with it; what still comes of the request is thrown away.
///
/// - On HTTP/2 Envoy resets the stream with it, and what the client's window has no room for is
///   lost. So it waits after a burst, until the client has had time for that.
/// - On HTTP/1 Envoy closes the connection with it. A client that is sending is then reset, and many
///   read nothing any more. On HTTP/2 many lose the response to the reset, too (RFC 9113, section
///   8.1, allows it). So it waits as long as the client goes on sending; on HTTP/2 only if it has said
///   how much, since others, as of gRPC, wait for the end themselves.
pub(super) struct HeldEnd {
    trailers: Fields,
    /// It waits for what the client sends, rather than for what it takes.
    sends: bool,
    /// When it goes out, if the client keeps up then.
    due: Instant,
    /// When it goes out whether the client keeps up or not.
    latest: Instant,
}

/// Bytes that any usual client has room for: a window is 65,535 at the beginning.
const BURST: usize = 60 * 1024;
/// How long a burst takes to be with a client that keeps up.
const BURST_TIME: Duration = Duration::from_millis(500);
/// How long a client may pause in sending.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the end of a response is held back at most.
const HELD: Duration = Duration::from_secs(60);

impl HeldEnd {
    /// Whether it goes out now; `is_slow` is a client that does not keep up.
    pub(super) fn is_due(&self, now: Instant, is_slow: bool) -> bool {
        now >= self.latest || (!is_slow && now >= self.due)
    }

    fn grace(&self) -> Duration {
        if self.sends { PAUSE } else { BURST_TIME }
    }

    /// The client keeps up again.
    pub(super) fn give_time(&mut self) {
        self.due = self.due.max(now() + self.grace());
    }
}

impl Filter {
    /// Sends what is not the last.
    pub(super) fn send_data(&self, envoy: &mut EnvoyFilter<'_>, data: &[u8]) {
        if self.is_http2() && !self.request.get().ended {
            let mut response = self.response.get();
            let now = now();
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
        let holds = self.holds_end(data.len());
        self.end_response();
        if !holds {
            return send_end(envoy, data, &trailers);
        }
        if !data.is_empty() {
            envoy.send_response_data(data, false);
        }
        let now = now();
        let mut held = HeldEnd {
            trailers,
            sends: self.is_sending(),
            due: now,
            latest: now + HELD,
        };
        held.give_time();
        *self.held_end.borrow_mut() = Some(held);
        // It may have been refused, of which the loop has not heard.
        self.streams.ensure_leader(envoy, self.id);
        // For what Envoy keeps of the request: this may be a hook that shows some of it.
        self.streams.resume(self.id);
    }

    /// Whether the end of the response has to wait, if it comes behind `more` bytes.
    pub(super) fn holds_end(&self, more: usize) -> bool {
        let in_burst = || self.is_http2() && (more > BURST || self.is_in_burst());
        !self.request.get().ended && (self.is_sending() || in_burst())
    }

    /// Whether the client is in the midst of sending, as far as is known.
    fn is_sending(&self) -> bool {
        let request = self.request.get();
        let goes_on = match self.version.get() {
            HttpVersion::Http10 | HttpVersion::Http11 => true,
            HttpVersion::Http2 => request.received < request.length,
            HttpVersion::Http3 => false,
        };
        let waits = request.waits && request.received == 0;
        goes_on && !waits && !self.streams.process.in_flight.draining()
    }

    /// Whether the stream is one of HTTP/2, as that to the router always is.
    pub(super) fn is_http2(&self) -> bool {
        self.version.get() == HttpVersion::Http2 || self.place == Place::Behind
    }

    fn is_in_burst(&self) -> bool {
        let burst = self.response.get().burst;
        let is_recent = |since| now().duration_since(since) < BURST_TIME;
        burst.is_some_and(|(since, bytes)| bytes > BURST && is_recent(since))
    }

    /// Sends an end that was held back, if it is time.
    pub(super) fn look_at_held_end(&self, envoy: &mut EnvoyFilter<'_>, now: Instant) {
        let is_slow = self.is_slow();
        let stops = self.streams.process.in_flight.draining();
        let is_due = |held: &HeldEnd| (stops && held.sends) || held.is_due(now, is_slow);
        let is_due = self.held_end.borrow().as_ref().is_some_and(is_due);
        if is_due {
            self.release_end(envoy);
        }
    }

    /// Throws away what the client sends behind a held end.
    pub(super) fn discard(&self) {
        if let Some(held) = &mut *self.held_end.borrow_mut()
            && held.sends
        {
            held.give_time();
        }
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

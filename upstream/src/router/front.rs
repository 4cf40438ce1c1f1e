//! The filter in front of the router.

use std::cell::OnceCell;
use std::rc::Rc;

use envoy::{
    DataStatus, EnvoyFilter, HeadersStatus, HttpFilter, LocalReply, LocalReplyStatus,
    TrailersStatus,
};

use super::{Handover, UnderWay};

/// Who reads the requests, and answers those that do not get to the router.
pub trait Gate: HttpFilter {
    /// Reads the request. Returns whether it is let in; if not, it has been answered, and all that comes
    /// of its stream is the gate's.
    fn admit(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> bool;

    /// Whether the stream of a request that was let in ends because Envoy has given it up, and not the
    /// client.
    fn is_given_up(&self, envoy: &EnvoyFilter<'_>) -> bool;

    /// The stream of a request that was let in is over.
    fn passed(&self, envoy: &EnvoyFilter<'_>, under_way: &UnderWay);
}

/// Trailers that HTTP/2 behind the router would refuse, with all of the request, since they mean
/// something in a head (RFC 9110, section 6.5.1). To the application no trailer means anything.
const NO_TRAILERS: [&str; 8] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// One stream in front of the router.
pub struct Front<G: Gate> {
    gate: Rc<G>,
    handover: Rc<Handover>,
    /// The request with its number, once it was let in.
    under_way: OnceCell<(u64, Rc<UnderWay>)>,
}

impl<G: Gate> Front<G> {
    /// The stream that `gate` watches.
    pub fn new(gate: Rc<G>, handover: Rc<Handover>) -> Self {
        Self {
            gate,
            handover,
            under_way: OnceCell::new(),
        }
    }
}

impl<G: Gate> HttpFilter for Front<G> {
    fn on_request_headers(
        &self,
        envoy: &mut EnvoyFilter<'_>,
        end_of_stream: bool,
    ) -> HeadersStatus {
        if !self.gate.admit(envoy, end_of_stream) {
            return HeadersStatus::StopIteration;
        }
        let authority_is_empty = envoy.request_header(":authority") == Some(b"");
        if authority_is_empty {
            // HTTP/2 has no empty one.
            envoy.set_request_header(":authority", b"-");
        }
        let handed_over = self.handover.hand_over(envoy, authority_is_empty);
        // A stream has one request.
        let _ = self.under_way.set(handed_over);
        HeadersStatus::Continue
    }

    fn on_request_body(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> DataStatus {
        match self.under_way.get() {
            Some((_, under_way)) => {
                under_way.body_passed(envoy.received_request_body_len());
                DataStatus::Continue
            }
            None => self.gate.on_request_body(envoy, end_of_stream),
        }
    }

    fn on_request_trailers(&self, envoy: &mut EnvoyFilter<'_>) -> TrailersStatus {
        match self.under_way.get() {
            Some(_) => {
                NO_TRAILERS
                    .iter()
                    .for_each(|name| envoy.remove_request_trailer(name));
                TrailersStatus::Continue
            }
            None => self.gate.on_request_trailers(envoy),
        }
    }

    fn on_scheduled(&self, envoy: &mut EnvoyFilter<'_>, event: u64) {
        self.gate.on_scheduled(envoy, event);
    }

    fn on_downstream_above_write_buffer_high_watermark(&self, envoy: &EnvoyFilter<'_>) {
        match self.under_way.get() {
            Some((_, under_way)) => under_way.above_watermark(),
            None => self
                .gate
                .on_downstream_above_write_buffer_high_watermark(envoy),
        }
    }

    fn on_downstream_below_write_buffer_low_watermark(&self, envoy: &EnvoyFilter<'_>) {
        match self.under_way.get() {
            Some((_, under_way)) => under_way.below_watermark(),
            None => self
                .gate
                .on_downstream_below_write_buffer_low_watermark(envoy),
        }
    }

    /// Envoy answers in the application's place. The stream may go on for long, until a slow client has
    /// all of that; but the router has given the application's place away already.
    fn on_local_reply(&self, envoy: &EnvoyFilter<'_>, reply: LocalReply<'_>) -> LocalReplyStatus {
        match self.under_way.get() {
            Some((_, under_way)) => {
                under_way.end(envoy, self.gate.is_given_up(envoy));
                LocalReplyStatus::Continue
            }
            None => self.gate.on_local_reply(envoy, reply),
        }
    }

    fn on_stream_complete(&self, envoy: &EnvoyFilter<'_>) {
        match self.under_way.get() {
            Some((number, under_way)) => {
                under_way.end(envoy, self.gate.is_given_up(envoy));
                self.handover.forget(*number);
                self.gate.passed(envoy, under_way);
            }
            None => self.gate.on_stream_complete(envoy),
        }
    }
}

//! The filter in front of the router.

use std::cell::Cell;
use std::rc::Rc;

use envoy::{DataStatus, EnvoyFilter, HeadersStatus, HttpFilter, TrailersStatus};

use super::Handover;

/// Who reads the requests, and answers those that do not get to the router.
pub trait Gate: HttpFilter {
    /// What is read of a request.
    type Head;

    /// Reads the request. `None` if it is not let in: then it has been answered, and all that comes of
    /// its stream is the gate's.
    fn admit(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> Option<Self::Head>;

    /// The stream of a request that was let in is over.
    fn passed(&self, envoy: &EnvoyFilter<'_>);
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
    handover: Rc<Handover<G::Head>>,
    /// That of the request, once it was let in.
    number: Cell<Option<u64>>,
}

impl<G: Gate> Front<G> {
    /// The stream that `gate` watches.
    pub fn new(gate: Rc<G>, handover: Rc<Handover<G::Head>>) -> Self {
        Self {
            gate,
            handover,
            number: Cell::default(),
        }
    }

    fn is_in(&self) -> bool {
        self.number.get().is_some()
    }
}

impl<G: Gate> HttpFilter for Front<G> {
    fn on_request_headers(
        &self,
        envoy: &mut EnvoyFilter<'_>,
        end_of_stream: bool,
    ) -> HeadersStatus {
        let Some(head) = self.gate.admit(envoy, end_of_stream) else {
            return HeadersStatus::StopIteration;
        };
        if envoy.request_header(":authority") == Some(b"") {
            // HTTP/2 has no empty one. What the client has sent was read.
            envoy.set_request_header(":authority", b"-");
        }
        self.number.set(Some(self.handover.hand_over(envoy, head)));
        HeadersStatus::Continue
    }

    fn on_request_body(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> DataStatus {
        match self.is_in() {
            true => DataStatus::Continue,
            false => self.gate.on_request_body(envoy, end_of_stream),
        }
    }

    fn on_request_trailers(&self, envoy: &mut EnvoyFilter<'_>) -> TrailersStatus {
        match self.is_in() {
            true => {
                NO_TRAILERS
                    .iter()
                    .for_each(|name| envoy.remove_request_trailer(name));
                TrailersStatus::Continue
            }
            false => self.gate.on_request_trailers(envoy),
        }
    }

    fn on_scheduled(&self, envoy: &mut EnvoyFilter<'_>, event: u64) {
        self.gate.on_scheduled(envoy, event);
    }

    fn on_downstream_above_write_buffer_high_watermark(&self, envoy: &EnvoyFilter<'_>) {
        if !self.is_in() {
            self.gate
                .on_downstream_above_write_buffer_high_watermark(envoy);
        }
    }

    fn on_downstream_below_write_buffer_low_watermark(&self, envoy: &EnvoyFilter<'_>) {
        if !self.is_in() {
            self.gate
                .on_downstream_below_write_buffer_low_watermark(envoy);
        }
    }

    fn on_stream_complete(&self, envoy: &EnvoyFilter<'_>) {
        match self.number.take() {
            Some(number) => {
                self.handover.forget(number);
                self.gate.passed(envoy);
            }
            None => self.gate.on_stream_complete(envoy),
        }
    }
}

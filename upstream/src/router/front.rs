//! The filter in front of the router.

use std::cell::Cell;
use std::rc::Rc;

use envoy::{DataStatus, EnvoyFilter, HeadersStatus, HttpFilter, TrailersStatus};
use smallvec::SmallVec;

use super::Handover;

/// Who reads the requests, and answers those that do not get to the router.
pub trait Gate: HttpFilter {
    /// Reads the request. Returns whether it is let in; if not, it has been answered, and all that comes
    /// of its stream is the gate's.
    fn admit(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> bool;

    /// The stream of a request that was let in is over. Returns whether it was Envoy that has given it
    /// up, and not the client.
    fn passed(&self, envoy: &EnvoyFilter<'_>) -> bool;
}

/// Headers by which Envoy's router takes orders, in lower case. They are for an operator to give, in
/// the configuration, and not for clients.
const ORDERS: [&str; 11] = [
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-max-retries",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
];

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
    /// That of the request, once it was let in.
    number: Cell<Option<u64>>,
}

impl<G: Gate> Front<G> {
    /// The stream that `gate` watches.
    pub fn new(gate: Rc<G>, handover: Rc<Handover>) -> Self {
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

/// Takes the orders for the router out of a client's request.
fn drop_orders(envoy: &mut EnvoyFilter<'_>) {
    let headers = envoy.request_headers();
    let names = headers.iter().map(|(name, _)| name);
    let orders: SmallVec<[&str; 2]> = names
        .filter(|name| name.starts_with(b"x-envoy-"))
        .filter_map(|name| ORDERS.into_iter().find(|order| order.as_bytes() == name))
        .collect();
    for order in orders {
        envoy.set_request_header(order, b"");
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
        drop_orders(envoy);
        let authority_is_empty = envoy.request_header(":authority") == Some(b"");
        if authority_is_empty {
            // HTTP/2 has no empty one.
            envoy.set_request_header(":authority", b"-");
        }
        let number = self.handover.hand_over(envoy, authority_is_empty);
        self.number.set(Some(number));
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
                let by_envoy = self.gate.passed(envoy);
                self.handover.forget(number, by_envoy);
            }
            None => self.gate.on_stream_complete(envoy),
        }
    }
}

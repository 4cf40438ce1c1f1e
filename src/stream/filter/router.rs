//! Runs on: Envoy worker thread.
//!
//! The two streams of a request that goes through Envoy's router: what the one in front lets in, and
//! what the one behind owes to it.

use std::rc::Rc;

use envoy::EnvoyFilter;
use upstream::router::{Gate, Lost, Second, UnderWay};

use super::{Admitted, Filter, is_timed_out};
use crate::admission::Refusal;
use crate::exchange::Inbound;

impl Gate for Filter {
    fn admit(&self, envoy: &mut EnvoyFilter<'_>, end_of_stream: bool) -> bool {
        if self.let_in(envoy, end_of_stream).is_none() {
            return false;
        }
        let limit = self.streams.rules.limit_router_requests;
        if limit.is_some_and(|limit| self.streams.handover.len() as u64 >= limit) {
            self.turn_away(envoy, Refusal::ROUTER_FULL);
            return false;
        }
        let in_flight = &self.streams.process.in_flight;
        in_flight.begin_stream();
        if in_flight.draining() {
            // A route can have what comes now go to another cluster.
            envoy.set_dynamic_metadata("aiovoy", "draining", "true");
            envoy.clear_route_cache();
            // Now it would keep the request from going on.
            self.closes.set(true);
            self.streams.ensure_leader(envoy, self.id);
            self.streams.resume(self.id);
        }
        true
    }

    fn is_given_up(&self, envoy: &EnvoyFilter<'_>) -> bool {
        is_timed_out(envoy)
    }

    fn passed(&self, envoy: &EnvoyFilter<'_>, under_way: &UnderWay) {
        self.log_end(envoy, under_way.is_answered());
        self.streams.remove(envoy, self.id, []);
        self.streams.process.in_flight.complete_stream();
    }
}

impl Filter {
    /// Reads a request behind the router, as that has sent it on, which was let in before it. `None` if
    /// there is none.
    pub(super) fn take_over(
        &self,
        envoy: &mut EnvoyFilter<'_>,
        end_of_stream: bool,
    ) -> Option<Admitted> {
        let under_way = match self.streams.handover.take(envoy) {
            Ok(under_way) => self.under_way.get_or_init(|| under_way),
            Err(Lost::Unknown) => {
                self.turn_away(envoy, Refusal::NOT_HANDED_OVER);
                return None;
            }
            Err(Lost::Over) => {
                self.end_response();
                envoy.send_response(CLIENT_GONE.into(), &[], b"", "aiovoy_client_gone");
                return None;
            }
        };
        if let Some(own) = self.streams.get(self.id) {
            let own = Rc::downgrade(&own);
            under_way.tell(own);
        }
        let read = |front: &EnvoyFilter<'_>| self.streams.read_head(front, end_of_stream);
        let read = under_way.front().read(envoy, read);
        let (mut head, refusal) = read.expect("what is under way has its first stream");
        if under_way.authority_is_empty() {
            head.fields = head.fields.replaced(b"host", b"");
        }
        self.know(&head, end_of_stream);
        if refusal == Some(Refusal::NOT_FOUND) {
            // A route has rewritten its path.
            self.turn_away(envoy, Refusal::NOT_FOUND);
            return None;
        }
        if self.streams.rules.limits_body(under_way.body()) {
            self.turn_away(envoy, Refusal::BODY);
            return None;
        }
        self.with_handshake(envoy, head)
    }

    /// Tells the stream in front of the router that the response is ours.
    pub(super) fn tell_front(&self) {
        if let Some(under_way) = self.under_way.get() {
            under_way.answer();
        }
    }

    /// Whether more of the body has gone to the router than a request may have.
    pub(super) fn is_too_large(&self) -> bool {
        let under_way = self.under_way.get();
        let passed = under_way.map_or(0, |under_way| under_way.body());
        self.streams.rules.limits_body(passed)
    }

    /// Whether the stream in front of the router is over, and this one about to be.
    pub(super) fn is_over_in_front(&self) -> bool {
        let under_way = self.under_way.get();
        under_way.is_some_and(|under_way| under_way.is_over())
    }

    /// Whether the client is slow in reading what was sent to it past the router.
    pub(super) fn is_slow_past_router(&self) -> bool {
        let under_way = self.under_way.get();
        under_way.is_some_and(|under_way| under_way.is_above_watermark())
    }
}

/// What a stream behind the router is told of the one in front of it.
impl Second for Filter {
    fn below_watermark(&self) {
        self.streams.resume(self.id);
    }

    fn body_passed(&self, bytes: u64) {
        // Some of it may not get here, if nobody reads it.
        if self.streams.rules.limits_body(bytes) {
            self.streams.resume(self.id);
        }
    }

    /// All requests of a worker share one connection, which Envoy would take for an attacker's and
    /// close, with all that is on it, if most of its streams were reset without an answer (its
    /// statistic `downstream_rq_too_many_premature_resets`).
    ///
    /// That Envoy has given it up, the loop is told before the router's next request gets here, which
    /// takes its place: Envoy sends that before it resets this one.
    fn over(&self, envoy: &EnvoyFilter<'_>) {
        if self.response.get().ended {
            return;
        }
        let given_up = self
            .under_way
            .get()
            .is_some_and(|under_way| under_way.is_given_up());
        if given_up && self.posted.get() {
            self.given_up.set(true);
            let tell = |own: &EnvoyFilter<'_>| {
                self.streams.post(own, self.id, Inbound::GivenUp(self.id));
            };
            // It lives: its filter is told.
            let _ = self.envoy.read(envoy, tell);
        }
        self.envoy.begin_response(envoy, CLIENT_GONE);
    }
}

/// The status of what nobody gets, since the client has gone.
const CLIENT_GONE: u16 = 499;

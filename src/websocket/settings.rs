//! Runs on: the threads of either front; pure.
//!
//! What WebSockets go by, whoever brings them.

use std::time::Duration;

use super::connection::Connection;
use super::handshake::{Handshake, Refusal};
use super::negotiation::negotiate;
use crate::config::Config;
use crate::exchange::{HttpVersion, LEAST_COST, REQUEST_WINDOW, RequestHead};

/// Bytes of answers, to pings as a rule, that may wait for a client that does not read.
pub(crate) const ANSWERS: usize = 64 * 1024;

/// How long a client gets to answer a close frame.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The client has not answered a ping (as in other servers: RFC 6455 has no code for it).
pub(crate) const PING_TIMEOUT_CODE: u16 = 1011;

/// The settings of all WebSockets.
#[derive(Debug)]
pub(crate) struct WebSockets {
    /// Bytes of the largest message.
    max_size: usize,
    /// See [`Payload::request_cost`](crate::exchange::Payload::request_cost).
    pub(crate) least_cost: usize,
    /// How often a client is pinged; zero is never.
    ping_interval: Duration,
    /// How long it gets to answer; zero is for ever.
    ping_timeout: Duration,
    /// Whether compression is agreed to.
    deflate: bool,
    /// How often streams are told that time has passed: often enough for pings.
    pub(crate) tick: Duration,
}

/// What a WebSocket owes to the clock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Ping,
    /// The client has not answered the last one.
    End,
}

/// A field of a response.
pub(crate) type Field = (&'static str, String);

impl WebSockets {
    pub(crate) fn new(config: &Config) -> Self {
        let shortest = [config.ws_ping_interval, config.ws_ping_timeout]
            .into_iter()
            .filter(|time| !time.is_zero())
            .min();
        let tick = shortest.map_or(Duration::MAX, |time| time / 4);
        Self {
            max_size: usize::try_from(config.ws_max_size).unwrap_or(usize::MAX),
            least_cost: usize::try_from(config.ws_max_queue)
                .map_or(0, |messages| REQUEST_WINDOW / messages.max(1))
                .max(LEAST_COST),
            ping_interval: config.ws_ping_interval,
            ping_timeout: config.ws_ping_timeout,
            deflate: config.ws_per_message_deflate,
            tick: tick.clamp(Duration::from_millis(20), Duration::from_secs(1)),
        }
    }

    /// The WebSocket of a handshake that the application accepts, and the fields that say so.
    pub(crate) fn open(
        &self,
        offer: Handshake,
        subprotocol: Option<&str>,
    ) -> (Connection, impl Iterator<Item = Field>) {
        let agreed = self.deflate.then(|| negotiate(&offer.extensions));
        let (deflate, extension) = agreed.flatten().unzip();
        let fields = [
            ("sec-websocket-accept", offer.accept),
            ("sec-websocket-protocol", subprotocol.map(str::to_owned)),
            ("sec-websocket-extensions", extension),
        ];
        let fields = fields.into_iter();
        let fields = fields.filter_map(|(name, value)| Some((name, value?)));
        (Connection::new(self.max_size, deflate), fields)
    }

    /// What is due of a client that was pinged, or has begun, so long ago.
    pub(crate) fn due(&self, owes_pong: bool, waited: Duration) -> Due {
        if owes_pong {
            let is_over = !self.ping_timeout.is_zero() && waited >= self.ping_timeout;
            return if is_over { Due::End } else { Due::Nothing };
        }
        let is_due = !self.ping_interval.is_zero() && waited >= self.ping_interval;
        if is_due { Due::Ping } else { Due::Nothing }
    }
}

/// The handshake of a request that asks for a WebSocket. What is no such request, although it says
/// so, is refused: all that follows is no HTTP any more.
pub(crate) fn read_handshake(head: &RequestHead) -> Option<Result<Handshake, Refusal>> {
    if !head.websocket {
        return None;
    }
    if head.method.as_slice() != b"GET" || head.length > 0 {
        return Some(Err(Refusal::Request));
    }
    let keyed = head.version <= HttpVersion::Http11;
    Some(Handshake::read(head.fields.iter(), keyed))
}

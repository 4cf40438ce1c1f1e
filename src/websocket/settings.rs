//! Runs on: the threads of either front; pure.
//!
//! What WebSockets go by, whoever brings them.

use std::time::Duration;

use super::handshake::{Handshake, Refusal};
use crate::config::Config;
use crate::exchange::{HttpVersion, LEAST_COST, REQUEST_WINDOW, RequestHead, WebSocketOffer};

/// The settings of all WebSockets.
#[derive(Debug)]
pub(crate) struct WebSockets {
    /// Bytes of the largest message.
    pub(super) max_size: usize,
    /// See [`Payload::request_cost`](crate::exchange::Payload::request_cost).
    pub(super) least_cost: usize,
    /// How often a client is pinged; zero is never.
    pub(super) ping_interval: Duration,
    /// How long it gets to answer; zero is for ever.
    pub(super) ping_timeout: Duration,
    /// Whether compression is agreed to.
    pub(super) deflate: bool,
    /// How often streams are told that time has passed: often enough for pings.
    pub(crate) tick: Duration,
}

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

    /// What the loop is to know of a handshake.
    pub(crate) fn offer(&self, handshake: &Handshake) -> Box<WebSocketOffer> {
        Box::new(WebSocketOffer {
            subprotocols: handshake.subprotocols.clone(),
            least_cost: self.least_cost,
        })
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

//! Runs on: any thread.
//!
//! Who brings the requests, as the life of the process sees it: Envoy, or a server of our own.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::config::Config;

/// How often the gauges are read while something is waited for that only they tell.
pub(super) const GAUGE_INTERVAL: Duration = Duration::from_millis(2);

/// What is known of the clients' connections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gauges {
    /// Connections are accepted.
    pub(super) accepts: bool,
    pub(super) connections: u64,
    /// There are bytes of responses that clients have not taken yet.
    pub(super) buffered: bool,
}

/// Who brings the requests.
pub(super) trait Front: Send + Sync {
    /// Has it let clients in, which [`Gauges::accepts`] tells.
    fn open(&self);

    /// Connections are accepted. What is left to do is done when this has returned.
    fn opened<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, ()>;

    /// Lets nobody in any more. An error is for the log.
    fn close<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, Result<(), String>>;

    /// Leaves who comes to others who listen on the same sockets, or not any more.
    fn pause(&self, wanted: bool);

    /// How it stands; nothing, if it has ended.
    fn gauges(&self) -> BoxFuture<'_, Gauges>;

    /// Everything else has ended.
    fn end(&self);
}

/// Any front.
pub(super) type AnyFront = Arc<dyn Front>;

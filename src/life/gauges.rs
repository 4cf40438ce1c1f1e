//! Runs on: Envoy's main thread.
//!
//! What Envoy counts, as far as the server waits for it.

use std::time::Duration;

use envoy::EnvoyBootstrap;

/// How often Envoy's gauges are read while something is waited for that only they tell.
pub(super) const GAUGE_INTERVAL: Duration = Duration::from_millis(2);

/// Envoy's gauges that the server waits for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gauges {
    /// The workers accept connections.
    pub(super) workers_started: bool,
    pub(super) connections: u64,
    /// Response bytes that clients have not taken yet.
    pub(super) buffered: u64,
}

impl Gauges {
    pub(super) fn read(envoy: &EnvoyBootstrap<'_>) -> Self {
        let mut gauges = Self::default();
        envoy.for_each_gauge(|name, value| {
            if name == "listener_manager.workers_started" {
                gauges.workers_started = value == 1;
            } else if name.starts_with("http.") && !name.starts_with("http.admin.") {
                // Those of every connection manager, whatever its `stat_prefix`.
                if name.ends_with(".downstream_cx_active") {
                    gauges.connections += value;
                } else if name.ends_with(".downstream_cx_tx_bytes_buffered") {
                    gauges.buffered += value;
                }
            }
        });
        gauges
    }
}

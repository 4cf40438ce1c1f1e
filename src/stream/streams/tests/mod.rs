mod any_order;
mod lead;
mod other_threads;
mod running;

use envoy::fake::Stream;

use crate::envoy_thread::{self, EnvoyThread, PlayedLoop};

/// Streams whose requests the loop has, the first of which leads.
fn requested<const N: usize>() -> (EnvoyThread, PlayedLoop, [Stream; N]) {
    let (envoy, mut played) = envoy_thread::start();
    let streams = [(); N].map(|()| envoy.get());
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(played.take().len(), N);
    (envoy, played, streams)
}

//! Runs on: any thread.
//!
//! The count of what is in flight, which limits and a graceful shutdown go by.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Counts what a graceful shutdown waits for: streams until Envoy has completed them, and
/// application calls until they have returned. A request arrives as both.
///
/// Envoy's threads and the loops each write a counter of their own, so that no cache line goes to
/// and fro between them with every request.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// How many have arrived, in the upper half; in the lower, streams that are not complete.
    by_envoy: OwnCacheLine,
    /// Calls that have returned, or never came to a loop.
    returned: OwnCacheLine,
    draining: AtomicBool,
    idle: Notify,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct OwnCacheLine(AtomicU64);

/// What an arrival adds to `by_envoy`.
const ARRIVAL: u64 = 1 << 32 | 1;

impl InFlight {
    /// A request has arrived. Returns whether it is let in: not if `limit` calls run already,
    /// and then nothing is counted.
    pub(crate) fn arrive(&self, limit: Option<u64>) -> bool {
        let Some(limit) = limit else {
            self.by_envoy.0.fetch_add(ARRIVAL, Ordering::SeqCst);
            return true;
        };
        let returned = self.returned.0.load(Ordering::SeqCst);
        let arrival = |state: u64| {
            (u64::from(calls(state, returned)) < limit).then(|| state.wrapping_add(ARRIVAL))
        };
        let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        let arrived = self.by_envoy.0.fetch_update(success, failure, arrival);
        arrived.is_ok()
    }

    /// A stream has begun that is no call of the application, or not yet.
    pub(crate) fn begin_stream(&self) {
        self.by_envoy.0.fetch_add(1, Ordering::SeqCst);
    }

    /// Its stream is complete.
    pub(crate) fn complete_stream(&self) {
        self.by_envoy.0.fetch_sub(1, Ordering::SeqCst);
        self.look_again();
    }

    /// Its call has returned, or will not be made.
    pub(crate) fn return_call(&self) {
        self.returned.0.fetch_add(1, Ordering::SeqCst);
        self.look_again();
    }

    /// Sequentially consistent with `drained`: either that sees the new count, or this sees that
    /// it waits.
    fn look_again(&self) {
        if self.draining.load(Ordering::SeqCst) {
            self.idle.notify_waiters();
        }
    }

    /// How many have arrived since the start. Wraps around.
    pub(crate) fn arrived(&self) -> u32 {
        (self.by_envoy.0.load(Ordering::SeqCst) >> 32) as u32
    }

    /// How many are in flight, or more: never fewer, since what returns between the two reads
    /// still counts.
    pub(crate) fn count(&self) -> usize {
        let returned = self.returned.0.load(Ordering::SeqCst);
        let state = self.by_envoy.0.load(Ordering::SeqCst);
        let streams = state & u64::from(u32::MAX);
        streams as usize + calls(state, returned) as usize
    }

    /// Whether the server is stopping: connections are then closed after their response.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The server is stopping.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Waits until nothing is in flight. Call [`drain`](Self::drain) first.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the count is read, so that no notification falls between.
            idle.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// How many calls run, of those that `by_envoy` has counted and those that have returned.
fn calls(by_envoy: u64, returned: u64) -> u32 {
    // Both halves wrap around; the difference is right as long as there are fewer than 2^32.
    ((by_envoy >> 32) as u32).wrapping_sub(returned as u32)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn drained_waits_for_stream_and_call() {
        let in_flight = Arc::new(InFlight::default());
        assert!(in_flight.arrive(None));
        assert_eq!(in_flight.count(), 2);
        in_flight.drain();
        let waiting = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.drained().await }
        });
        tokio::task::yield_now().await;
        in_flight.complete_stream();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        in_flight.return_call();
        waiting.await.expect("drained");
    }

    #[test]
    fn limit_counts_calls_and_not_streams() {
        let in_flight = InFlight::default();
        assert!(in_flight.arrive(Some(2)) && in_flight.arrive(Some(2)));
        assert!(!in_flight.arrive(Some(2)));
        in_flight.complete_stream();
        assert!(!in_flight.arrive(Some(2)));
        in_flight.return_call();
        assert!(in_flight.arrive(Some(2)));
        assert!(!in_flight.arrive(Some(2)));
        assert_eq!(in_flight.count(), 4);
        assert!(!in_flight.arrive(Some(0)));
    }

    #[test]
    fn counts_are_right_beyond_four_billion() {
        let in_flight = InFlight::default();
        in_flight
            .by_envoy
            .0
            .store(u64::from(u32::MAX) << 32, Ordering::SeqCst);
        in_flight
            .returned
            .0
            .store(u32::MAX.into(), Ordering::SeqCst);
        assert!(in_flight.arrive(Some(1)));
        assert!(!in_flight.arrive(Some(1)));
        assert_eq!(in_flight.count(), 2);
        in_flight.complete_stream();
        in_flight.return_call();
        assert_eq!(in_flight.count(), 0);
    }

    #[tokio::test]
    async fn drained_returns_at_once_if_nothing_is_in_flight() {
        let in_flight = InFlight::default();
        in_flight.drain();
        in_flight.drained().await;
    }
}

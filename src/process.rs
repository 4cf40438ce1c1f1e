//! Runs on: any thread.
//!
//! What all workers of the process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::filter::Settings;
use crate::request::Rules;
use crate::worker::Worker;

/// The workers of this process and what is in flight on them.
#[derive(Debug)]
pub(crate) struct Process {
    workers: Vec<Arc<Worker>>,
    pub(crate) rules: Rules,
    pub(crate) websockets: Settings,
    pub(crate) in_flight: InFlight,
}

impl Process {
    pub(crate) fn new(workers: Vec<Arc<Worker>>, rules: Rules, websockets: Settings) -> Self {
        Self {
            workers,
            rules,
            websockets,
            in_flight: InFlight::default(),
        }
    }

    /// The worker of an Envoy worker thread, by the index that Envoy gives it.
    pub(crate) fn worker(&self, index: u32) -> Arc<Worker> {
        self.workers[index as usize].clone()
    }

    pub(crate) fn workers(&self) -> &[Arc<Worker>] {
        &self.workers
    }
}

/// Counts what a graceful shutdown waits for: streams until Envoy has completed them, and
/// application calls until they have returned. A request arrives as both.
///
/// Envoy's threads and the loops each write a counter of their own, so that no cache line goes to
/// and fro between them with every request.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Streams and calls that have arrived, less streams that were completed.
    by_envoy: OwnCacheLine,
    /// Calls that have returned, or never came to a loop.
    returned: OwnCacheLine,
    draining: AtomicBool,
    idle: Notify,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct OwnCacheLine(AtomicUsize);

impl InFlight {
    /// A request has arrived.
    pub(crate) fn arrive(&self) {
        self.by_envoy.0.fetch_add(2, Ordering::SeqCst);
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

    /// How many are in flight, or more: never fewer, since what returns between the two reads
    /// still counts.
    pub(crate) fn count(&self) -> usize {
        let returned = self.returned.0.load(Ordering::SeqCst);
        self.by_envoy
            .0
            .load(Ordering::SeqCst)
            .wrapping_sub(returned)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drained_waits_for_stream_and_call() {
        let in_flight = Arc::new(InFlight::default());
        in_flight.arrive();
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

    #[tokio::test]
    async fn drained_returns_at_once_if_nothing_is_in_flight() {
        let in_flight = InFlight::default();
        in_flight.drain();
        in_flight.drained().await;
    }
}

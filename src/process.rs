//! Runs on: any thread.
//!
//! What all workers of the process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::worker::Worker;

/// The workers of this process and what is in flight on them.
#[derive(Debug)]
pub(crate) struct Process {
    workers: Vec<Arc<Worker>>,
    pub(crate) in_flight: InFlight,
}

impl Process {
    pub(crate) fn new(workers: Vec<Arc<Worker>>) -> Self {
        Self {
            workers,
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
/// application calls until they have returned. Each request enters as both when it arrives.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    draining: AtomicBool,
    idle: Notify,
}

impl InFlight {
    /// A stream or an application call begins.
    pub(crate) fn enter(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// It has ended.
    pub(crate) fn leave(&self) {
        // Sequentially consistent with `drained`: either it sees the zero, or we see that it waits.
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.draining.load(Ordering::SeqCst) {
            self.idle.notify_waiters();
        }
    }

    /// How many are in flight.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
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
    async fn drained_waits_for_the_last_one() {
        let in_flight = Arc::new(InFlight::default());
        in_flight.enter();
        in_flight.enter();
        in_flight.drain();
        let waiting = tokio::spawn({
            let in_flight = in_flight.clone();
            async move { in_flight.drained().await }
        });
        tokio::task::yield_now().await;
        in_flight.leave();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        in_flight.leave();
        waiting.await.expect("drained");
    }

    #[tokio::test]
    async fn drained_returns_at_once_if_nothing_is_in_flight() {
        let in_flight = InFlight::default();
        in_flight.drain();
        in_flight.drained().await;
    }
}

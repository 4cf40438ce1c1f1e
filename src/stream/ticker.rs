//! Runs on: Envoy worker thread to start it, tokio for the clock.
//!
//! The clock of a worker's streams: while there are any, the worker gets a
//! [`Tick`](Outbound::Tick) now and then. Envoy has no timers for HTTP filters.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::exchange::{Outbound, Worker};

/// Whether the clock of a worker runs. It does while there is a leader, and at most one tick longer.
///
/// Invariant: who makes a leader calls `ensure` afterwards, and the clock ends only if it finds
/// none under this lock; so one of the two sees the other.
#[derive(Debug, Default)]
pub(crate) struct Ticker(Arc<Mutex<bool>>);

impl Ticker {
    /// Sees to it that `worker` gets a tick every `tick`. Returns whether it did not.
    pub(crate) fn ensure(&self, tokio: &Handle, worker: &Arc<Worker>, tick: Duration) -> bool {
        let runs = std::mem::replace(&mut *self.0.lock(), true);
        if !runs {
            tokio.spawn(run(self.0.clone(), worker.clone(), tick));
        }
        !runs
    }
}

async fn run(clock: Arc<Mutex<bool>>, worker: Arc<Worker>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        {
            let mut runs = clock.lock();
            *runs = worker.outbox.has_waker();
            if !*runs {
                return;
            }
        }
        worker.outbox.post(Outbound::Tick);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::envoy_thread::{self, EnvoyThread, PlayedLoop};

    const STEP: Duration = Duration::from_millis(1);

    #[track_caller]
    fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(STEP);
        }
    }

    /// Waits for a tick, and has the streams told.
    #[track_caller]
    fn wait_for_tick(envoy: &EnvoyThread, played: &PlayedLoop) {
        wait_until("a tick", || played.worker.outbox.has_messages());
        envoy.run_events();
    }

    fn start() -> (EnvoyThread, PlayedLoop) {
        // A tick each 20 ms.
        envoy_thread::start_ticking(r#"{"ws_ping_interval": "0.02"}"#)
    }

    /// How many clocks the worker has: each holds on to it.
    fn clocks(played: &PlayedLoop, before: usize) -> usize {
        Arc::strong_count(&played.worker) - before
    }

    #[test]
    fn clock_runs_while_there_are_streams() {
        let (envoy, mut played) = start();
        let none = Arc::strong_count(&played.worker) + 1;
        let stream = envoy.get();
        envoy.run_events();
        let _ = played.take();
        // The streams of this thread, which have just been made, hold on to it, too.
        assert_eq!(clocks(&played, none), 1);
        let other = envoy.get();
        envoy.run_events();
        let _ = played.take();
        assert_eq!(clocks(&played, none), 1, "one for all of them");
        stream.disconnect();
        wait_for_tick(&envoy, &played);
        wait_for_tick(&envoy, &played);
        assert_eq!(clocks(&played, none), 1);
        other.disconnect();
        wait_until("the end of the clock", || clocks(&played, none) == 0);
        let last = envoy.get();
        envoy.run_events();
        assert_eq!(clocks(&played, none), 1, "it runs again");
        last.disconnect();
        wait_until("its end", || clocks(&played, none) == 0);
        let _ = played.take();
    }

    #[test]
    fn clock_goes_on_for_a_stream_that_comes_as_the_last_one_goes() {
        let (envoy, mut played) = start();
        let none = Arc::strong_count(&played.worker) + 1;
        for _ in 0..100 {
            let stream = envoy.get();
            envoy.run_events();
            stream.disconnect();
            envoy.run_events();
        }
        let last = envoy.get();
        envoy.run_events();
        wait_for_tick(&envoy, &played);
        wait_for_tick(&envoy, &played);
        assert_eq!(clocks(&played, none), 1);
        last.disconnect();
        wait_until("the end of the clock", || clocks(&played, none) == 0);
        let _ = played.take();
    }
}

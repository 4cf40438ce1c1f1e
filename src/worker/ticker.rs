//! Runs on: Envoy worker thread for the count, tokio for the clock.
//!
//! The clock of a worker's streams: while some of them live by it, as WebSockets do, the worker gets
//! a [`Tick`](Outbound::Tick) now and then. Envoy has no timers for HTTP filters.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Worker;
use crate::exchange::Outbound;
use crate::runtime;

/// How many such streams there are, and whether the clock runs. It runs if there are any, and at
/// most one tick longer.
#[derive(Debug, Default)]
pub(crate) struct Ticker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    streams: usize,
    runs: bool,
}

impl Worker {
    /// Counts a stream that is to be told every `tick`.
    pub(crate) fn add_clock(self: &Arc<Self>, tick: Duration) {
        let runs = {
            let mut state = self.ticker.0.lock();
            state.streams += 1;
            std::mem::replace(&mut state.runs, true)
        };
        if !runs {
            runtime::get().spawn(run(self.clone(), tick));
        }
    }

    /// Counts one less.
    pub(crate) fn remove_clock(&self) {
        self.ticker.0.lock().streams -= 1;
    }
}

async fn run(worker: Arc<Worker>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        {
            let mut state = worker.ticker.0.lock();
            state.runs = state.streams > 0;
            if !state.runs {
                return;
            }
        }
        worker.outbox.post(Outbound::Tick);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use envoy::fake::Request;

    use super::*;
    use crate::envoy_thread;
    use crate::worker::tests::take_outbox;

    const TICK: Duration = Duration::from_millis(1);

    #[track_caller]
    fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(TICK);
        }
    }

    fn ticks(worker: &Worker) -> bool {
        let messages = take_outbox(worker);
        assert!(messages.len() <= 1, "those that wait are one");
        matches!(messages[..], [Outbound::Tick])
    }

    /// How many clocks the worker has: each holds on to it.
    fn clocks(worker: &Arc<Worker>) -> usize {
        Arc::strong_count(worker) - 1
    }

    #[test]
    fn clock_runs_while_there_are_streams() {
        let worker = Arc::new(Worker::new().expect("a worker"));
        assert_eq!(clocks(&worker), 0);
        worker.add_clock(TICK);
        worker.add_clock(TICK);
        assert_eq!(clocks(&worker), 1, "one for all of them");
        for streams in [2, 1] {
            wait_until("a tick", || ticks(&worker));
            wait_until("another one", || ticks(&worker));
            assert_eq!(clocks(&worker), 1, "{streams} streams");
            worker.remove_clock();
        }
        wait_until("the end of the clock", || clocks(&worker) == 0);
        take_outbox(&worker);
        worker.add_clock(TICK);
        wait_until("a clock that runs again", || ticks(&worker));
        worker.remove_clock();
        wait_until("its end", || clocks(&worker) == 0);
    }

    #[test]
    fn clock_goes_on_for_a_stream_that_comes_as_the_last_one_goes() {
        let worker = Arc::new(Worker::new().expect("a worker"));
        for _ in 0..100 {
            worker.add_clock(TICK);
            worker.remove_clock();
        }
        worker.add_clock(TICK);
        wait_until("a tick", || ticks(&worker));
        assert_eq!(clocks(&worker), 1);
        worker.remove_clock();
        wait_until("the end of the clock", || clocks(&worker) == 0);
    }

    #[test]
    fn clock_ends_with_the_streams_that_live_by_it() {
        let (envoy, mut played) = envoy_thread::start_with(r#"{"ws_ping_interval": "0.02"}"#);
        let _other = envoy.get();
        let count = Arc::strong_count(&played.worker);
        let request = Request::get("/")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let stream = envoy.stream(request);
        stream.request_headers(false);
        assert_eq!(Arc::strong_count(&played.worker), count + 1);
        stream.disconnect();
        wait_until("the end of the clock", || {
            Arc::strong_count(&played.worker) == count
        });
        envoy.run_events();
        played.take();
    }
}

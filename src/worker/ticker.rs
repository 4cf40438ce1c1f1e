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

//! Runs on: Envoy worker thread for the count, tokio for the clock.
//!
//! The clock of a worker's WebSockets: while there are any, the worker gets a
//! [`Tick`](Outbound::Tick) now and then. Envoy has no timers for HTTP filters.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Worker;
use crate::exchange::Outbound;
use crate::runtime;

/// How many WebSockets there are, and whether the clock runs. It runs if there are any, and at
/// most one tick longer.
#[derive(Debug, Default)]
pub(crate) struct Ticker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    websockets: usize,
    runs: bool,
}

impl Worker {
    /// Counts a WebSocket, whose clock is to be looked at every `tick`.
    pub(crate) fn add_websocket(self: &Arc<Self>, tick: Duration) {
        let runs = {
            let mut state = self.ticker.0.lock();
            state.websockets += 1;
            std::mem::replace(&mut state.runs, true)
        };
        if !runs {
            runtime::get().spawn(run(self.clone(), tick));
        }
    }

    /// Counts one less.
    pub(crate) fn remove_websocket(&self) {
        self.ticker.0.lock().websockets -= 1;
    }
}

async fn run(worker: Arc<Worker>, tick: Duration) {
    loop {
        tokio::time::sleep(tick).await;
        {
            let mut state = worker.ticker.0.lock();
            state.runs = state.websockets > 0;
            if !state.runs {
                return;
            }
        }
        worker.outbox.post(Outbound::Tick);
    }
}

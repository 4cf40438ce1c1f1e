//! Runs on: any thread.
//!
//! What schedulers post to an Envoy thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Long enough for any thread of a test on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) enum Event {
    Stream { id: usize, event: u64 },
    Bootstrap { id: usize, event: u64 },
}

#[derive(Default)]
pub(super) struct Queue {
    events: Mutex<VecDeque<Event>>,
    posted: Condvar,
}

impl Queue {
    pub(super) fn post(&self, event: Event) {
        self.lock().push_back(event);
        self.posted.notify_all();
    }

    pub(super) fn pop(&self) -> Option<Event> {
        self.lock().pop_front()
    }

    /// Waits for an event; false if none came.
    pub(super) fn wait(&self) -> bool {
        let wait = self
            .posted
            .wait_timeout_while(self.lock(), PATIENCE, |events| events.is_empty());
        !wait.unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

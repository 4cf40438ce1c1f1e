//! Runs on: the threads of either front.
//!
//! The clock of streams. That of a test's thread stands still until it is put forward, of which
//! [`Instant::elapsed`](std::time::Instant::elapsed) would not know.

#[cfg(test)]
pub(crate) use played::{advance, now};

/// The time.
#[cfg(not(test))]
pub(crate) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[cfg(test)]
mod played {
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    thread_local!(static NOW: Cell<Instant> = Cell::new(Instant::now()));

    pub(crate) fn now() -> Instant {
        NOW.get()
    }

    /// Puts this thread's clock forward.
    pub(crate) fn advance(time: Duration) {
        NOW.set(now() + time);
    }
}

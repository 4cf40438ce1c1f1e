//! When a fork may happen: while no thread of Envoy's is amid anything.
//!
//! The child has one thread. What others were amid stays as it is there, for ever: a lock of Envoy's
//! allocator, which is the process's, would be held by nobody. So a fork waits until each of Envoy's
//! event loops has come to where it waits for events, and an event loop that has something to do then
//! waits for the fork, which takes as long as the kernel copies page tables.
//!
//! Invariant: a thread that is counted comes back to [`waiting`] by itself, without waiting for who
//! forks. Where one does not, as when a log is not read, the fork waits no longer than [`PATIENCE`].

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// In the upper half how many forks are on their way, in the lower how many threads are busy.
static GATE: AtomicU32 = AtomicU32::new(0);
const FORK: u32 = 1 << 16;

const PATIENCE: Duration = Duration::from_millis(100);

/// Whether a thread counts as busy. One that ends does not.
struct Busy(Cell<bool>);

thread_local!(static BUSY: Busy = const { Busy(Cell::new(false)) });

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.get() {
            leave();
        }
    }
}

/// Waits for something by `wait`. A thread that has done so once counts as busy from then on, but
/// for when it is here.
pub fn waiting<T>(wait: impl FnOnce() -> T) -> T {
    // A thread that ends has no such value any more, and does not count either.
    let was_busy = BUSY.try_with(|busy| busy.0.replace(false));
    if was_busy == Ok(true) {
        leave();
    }
    let result = wait();
    if was_busy.is_ok() {
        enter();
        let _ = BUSY.try_with(|busy| busy.0.set(true));
    }
    result
}

/// Does something that a fork must not fall into. It takes no time worth mentioning.
pub(super) fn gated<T>(act: impl FnOnce() -> T) -> T {
    if BUSY.try_with(|busy| busy.0.get()) == Ok(true) {
        return act();
    }
    enter();
    let result = act();
    leave();
    result
}

fn enter() {
    let (success, failure) = (Ordering::SeqCst, Ordering::SeqCst);
    let enter = |gate: u32| (gate < FORK).then_some(gate + 1);
    while GATE.fetch_update(success, failure, enter).is_err() {
        thread::yield_now();
    }
}

fn leave() {
    GATE.fetch_sub(1, Ordering::SeqCst);
}

/// Begins a fork.
pub(super) fn begin_fork() {
    GATE.fetch_add(FORK, Ordering::SeqCst);
    let begin = Instant::now();
    while !GATE.load(Ordering::SeqCst).is_multiple_of(FORK) && begin.elapsed() < PATIENCE {
        thread::yield_now();
    }
}

/// Ends it, in the parent.
pub(super) fn end_fork() {
    GATE.fetch_sub(FORK, Ordering::SeqCst);
}

/// Ends it in the child, which has no other threads.
pub(super) fn end_fork_in_child() {
    GATE.store(0, Ordering::SeqCst);
}

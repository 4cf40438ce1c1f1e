//! Runs on: any thread; the process's main thread waits here for the end of the others.
//!
//! The request to stop, from whichever side, who waits for its completion, and what ends the process
//! if it does not come.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::leftovers;
use crate::exchange::Handshakes;

/// Exit code when a second signal ends the server at once, or something does not end.
const ABORTED: i32 = 1;

/// How long after a signal another one is its echo: `timeout` and the like send to all what has reached them all.
pub(super) const ECHO: Duration = Duration::from_millis(20);

/// Exit code when the application can't be imported, as Envoy's.
pub(super) const NOT_STARTED: i32 = 1;

/// How long the loops get to end, and then Python, before the process ends without them.
pub(super) const END_GRACE: Duration = Duration::from_secs(10);

/// The request to stop, from whichever side, and the wait for its completion.
#[derive(Default)]
pub(super) struct Stop {
    /// There is a supervision, which hears of requests.
    supervised: AtomicBool,
    requested: watch::Sender<Requested>,
    /// That of the first failure.
    exit_code: AtomicI32,
    complete: Mutex<bool>,
    completed: Condvar,
    /// The process is somebody else's, and goes on.
    is_guest: bool,
}

/// What was requested. It only ever becomes more urgent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Requested {
    #[default]
    Nothing,
    /// Idle connections have this long, from the beginning of the drain on, to bring the request whose
    /// answer tells them to close.
    Retirement(Duration),
    Stop,
    /// Neither requests nor the application's shutdown are waited for.
    Abort,
}

impl Stop {
    /// That of a server in a process which goes on without it.
    pub(super) fn of_guest() -> Self {
        Self {
            is_guest: true,
            ..Self::default()
        }
    }

    pub(super) fn is_guest(&self) -> bool {
        self.is_guest
    }

    pub(super) fn supervise(&self) {
        self.supervised.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_supervised(&self) -> bool {
        self.supervised.load(Ordering::SeqCst)
    }

    pub(super) fn request(&self) {
        self.requested.send_if_modified(|requested| {
            let is_more = *requested != Requested::Abort;
            if is_more {
                *requested = Requested::Stop;
            }
            is_more
        });
    }

    /// Requests a stop that waits for the loops alone.
    pub(super) fn abort(&self) {
        self.requested.send_replace(Requested::Abort);
    }

    /// Requests a stop that leaves idle connections `idle_grace`. Another request overrules that.
    pub(super) fn retire(&self, idle_grace: Duration) {
        self.requested.send_if_modified(|requested| {
            let is_first = *requested == Requested::Nothing;
            if is_first {
                *requested = Requested::Retirement(idle_grace);
            }
            is_first
        });
    }

    /// How long idle connections are left alone, from the beginning of the drain on.
    pub(super) fn idle_grace(&self) -> Duration {
        match *self.requested.borrow() {
            Requested::Retirement(idle_grace) => idle_grace,
            Requested::Nothing | Requested::Stop | Requested::Abort => Duration::ZERO,
        }
    }

    /// What becomes of WebSocket handshakes that have begun.
    pub(super) fn handshakes(&self) -> Handshakes {
        match *self.requested.borrow() {
            Requested::Retirement(_) => Handshakes::Finish,
            Requested::Nothing | Requested::Stop | Requested::Abort => Handshakes::Fail,
        }
    }

    /// Requests the stop because of a failure.
    pub(super) fn fail(&self, code: i32) {
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.exit_code.compare_exchange(0, code, success, failure);
        self.request();
    }

    pub(super) async fn requested(&self) {
        // As in `until`.
        let is_requested = |requested: &Requested| *requested != Requested::Nothing;
        let _ = self.requested.subscribe().wait_for(is_requested).await;
    }

    pub(super) async fn aborted(&self) {
        // As in `until`.
        let is_aborted = |requested: &Requested| *requested == Requested::Abort;
        let _ = self.requested.subscribe().wait_for(is_aborted).await;
    }

    /// That of the first failure; 0 if there was none.
    pub(super) fn exit_code(&self) -> i32 {
        self.exit_code.load(Ordering::Relaxed)
    }

    /// Waits until everything else has ended. Returns whether it has, within its time.
    pub(super) fn wait_for_end(&self) -> bool {
        let mut complete = self.complete.lock();
        // The loops have their own grace within this time.
        let limit = 2 * END_GRACE;
        let wait = self
            .completed
            .wait_while_for(&mut complete, |complete| !*complete, limit);
        !wait.timed_out()
    }

    /// Everything has ended.
    pub(super) fn complete(&self) {
        *self.complete.lock() = true;
        self.completed.notify_all();
    }

    /// Something does not end: the process does without it, or goes on with it if it is somebody else's.
    pub(super) fn give_up(&self, what: &str, after: Duration) {
        if !self.is_guest {
            give_up(what, after);
        }
        log::error!("{what}: not waited for after {} s", after.as_secs());
        self.fail(ABORTED);
    }
}

/// Waits until `flag` is set.
pub(super) async fn until(flag: &watch::Sender<bool>) {
    // The sender outlives this future, which borrows it: waiting can't fail.
    let _ = flag.subscribe().wait_for(|set| *set).await;
}

/// Ends the process although something in it does not.
pub(super) fn give_up(what: &str, after: Duration) -> ! {
    log::error!("{what}: ended after {} s", after.as_secs());
    leftovers::exit_now(ABORTED);
}

/// Ends the process where it stands: a second signal means it.
pub(super) fn abort() -> ! {
    log::warn!("second signal: ended at once");
    leftovers::exit_now(ABORTED);
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_retirement_is_a_stop_that_a_stop_overrules() {
        let (stop, seconds) = (Stop::default(), Duration::from_secs);
        assert_eq!(stop.idle_grace(), seconds(0));
        stop.retire(seconds(5));
        stop.requested().await;
        assert_eq!(stop.idle_grace(), seconds(5));
        assert_eq!(stop.handshakes(), Handshakes::Finish);
        stop.retire(seconds(9));
        assert_eq!(stop.idle_grace(), seconds(5), "the first one counts");
        stop.request();
        assert_eq!(stop.idle_grace(), seconds(0));
        assert_eq!(stop.handshakes(), Handshakes::Fail);
        stop.retire(seconds(9));
        assert_eq!(stop.idle_grace(), seconds(0), "a stop is a stop");
    }

    #[tokio::test]
    async fn an_abort_stays_one() {
        let stop = Stop::default();
        stop.request();
        assert!(stop.aborted().now_or_never().is_none());
        stop.abort();
        stop.request();
        stop.aborted().await;
    }

    #[test]
    fn a_guest_does_not_end_the_process() {
        let stop = Stop::of_guest();
        stop.give_up("a loop does not end", END_GRACE);
        assert_eq!(stop.exit_code(), ABORTED);
    }
}

//! Runs on: any thread; Envoy's main thread waits here for the end of the others.
//!
//! The request to stop, from whichever side, who waits for its completion, and what ends the process
//! if it does not come.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use envoy::ShutdownCompletion;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::leftovers;
use crate::exchange::Handshakes;

/// Exit code when a second signal ends the server at once, or something does not end.
const ABORTED: i32 = 1;

/// How long the loops get to end, and then Python, before the process ends without them.
pub(super) const END_GRACE: Duration = Duration::from_secs(10);

/// The request to stop, from whichever side, and Envoy's wait for its completion.
#[derive(Default)]
pub(super) struct Stop {
    /// There is a supervision, which hears of requests.
    supervised: AtomicBool,
    requested: watch::Sender<Requested>,
    /// That of the first failure.
    exit_code: AtomicI32,
    /// Envoy is ending and its main thread waits for `completed`.
    destroyed: watch::Sender<bool>,
    state: Mutex<StopState>,
    completed: Condvar,
}

#[derive(Default)]
struct StopState {
    signals: usize,
    complete: bool,
    waiting: Vec<ShutdownCompletion>,
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
}

/// Which signal it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signal {
    First,
    Second,
}

impl Stop {
    pub(super) fn supervise(&self) {
        self.supervised.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_supervised(&self) -> bool {
        self.supervised.load(Ordering::SeqCst)
    }

    pub(super) fn request(&self) {
        self.requested.send_replace(Requested::Stop);
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
            Requested::Nothing | Requested::Stop => Duration::ZERO,
        }
    }

    /// What becomes of WebSocket handshakes that have begun.
    pub(super) fn handshakes(&self) -> Handshakes {
        match *self.requested.borrow() {
            Requested::Retirement(_) => Handshakes::Finish,
            Requested::Nothing | Requested::Stop => Handshakes::Fail,
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

    /// Waits until Envoy's main thread waits for our end, and does nothing else any more.
    pub(super) async fn envoy_ends(&self) {
        until(&self.destroyed).await;
    }

    /// That of the first failure; 0 if there was none.
    pub(super) fn exit_code(&self) -> i32 {
        self.exit_code.load(Ordering::Relaxed)
    }

    /// Envoy has got a signal and waits for `done`.
    pub(super) fn signalled(&self, done: ShutdownCompletion) -> Signal {
        {
            let mut state = self.state.lock();
            if state.complete {
                drop(state);
                done.complete();
                return Signal::First;
            }
            state.waiting.push(done);
            state.signals += 1;
            if state.signals > 1 {
                return Signal::Second;
            }
        }
        self.request();
        Signal::First
    }

    /// Envoy ends. Returns whether everything else has ended, after waiting for it.
    pub(super) fn destroyed(&self) -> bool {
        self.destroyed.send_replace(true);
        self.request();
        let mut state = self.state.lock();
        // The loops have their own grace within this time.
        let limit = 2 * END_GRACE;
        let mut wait = || {
            self.completed
                .wait_while_for(&mut state, |state| !state.complete, limit)
        };
        !envoy::waiting(&mut wait).timed_out()
    }

    /// Everything has ended. Envoy goes on with its own end, or is told to begin it.
    pub(super) fn complete(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.complete = true;
            std::mem::take(&mut state.waiting)
        };
        self.completed.notify_all();
        let destroyed = self.destroyed.subscribe();
        watch_envoy(move || !*destroyed.borrow());
        if waiting.is_empty() && !*self.destroyed.borrow() {
            // Nothing but a signal begins an orderly end of Envoy.
            let process = rustix::process::getpid();
            let signal = rustix::process::Signal::TERM;
            if let Err(error) = rustix::process::kill_process(process, signal) {
                log::error!("Envoy could not be told to end: {error}");
            }
        }
        waiting.into_iter().for_each(ShutdownCompletion::complete);
    }
}

/// Waits until `flag` is set.
pub(super) async fn until(flag: &watch::Sender<bool>) {
    // The sender outlives this future, which borrows it: waiting can't fail.
    let _ = flag.subscribe().wait_for(|set| *set).await;
}

/// Ends the process in a while if Envoy, whose turn it is, has not gone on by then.
pub(super) fn watch_envoy(is_stuck: impl FnOnce() -> bool + Send + 'static) {
    let watch = std::thread::Builder::new().name("aiovoy-end".into());
    let watch = watch.spawn(|| {
        std::thread::sleep(END_GRACE);
        if is_stuck() {
            give_up(
                "Envoy does not end, perhaps because nobody reads what it logs",
                END_GRACE,
            );
        }
    });
    if let Err(error) = watch {
        log::warn!("nothing bounds the end of Envoy: no thread for it: {error}");
    }
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
}

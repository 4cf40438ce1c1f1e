//! Runs on: threads of its own; the control thread starts them.
//!
//! Says in the log why a loop does not turn, as far as others can know. Who asks for it waits for
//! nothing: neither for the loop, nor for the GIL, which the loop's thread may hold.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::Builder;
use std::time::Duration;

use parking_lot::Mutex;

use crate::app::python::stacks;
use crate::exchange::{Outbound, Process, Worker};

/// How long Envoy's worker gets to answer, and how long Python's GIL is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a traceback takes at most once the GIL is there. Lines of source are read for it, and a
/// thread that computes takes the GIL back again and again meanwhile.
const READING: Duration = Duration::from_secs(5);

/// Explains why loops do not turn.
///
/// Invariant: who attaches to Python here holds `python_ends`, and finds it unset. So Python, which sets
/// it before its end, does not end under anybody.
#[derive(Default)]
pub(super) struct Explainer {
    python_ends: Arc<Mutex<bool>>,
}

impl Explainer {
    /// Explains the loop of `process` that has not turned for longest, if there is one.
    ///
    /// Errors if there is no thread for that.
    pub(super) fn explain(&self, process: &Process) -> io::Result<()> {
        let workers = process.workers().iter();
        let owing = workers.filter_map(|worker| Some((worker.pulse.owed()?, worker)));
        let Some((blocked, worker)) = owing.max_by_key(|(owed, _)| *owed) else {
            return Ok(());
        };
        let (worker, python_ends) = (worker.clone(), self.python_ends.clone());
        spawn("aiovoy-explain", move || {
            let stack = ask_for_stack(&worker, python_ends);
            let requests = requests(&worker);
            let stack = stack.ok().and_then(|stack| take_stack(&stack));
            let stack = match stack {
                Some(stack) => format!("Traceback of its thread (most recent call last):\n{stack}"),
                None if dump_stacks() => {
                    "the GIL is not to be had: standard error has the tracebacks of all threads"
                        .into()
                }
                None => "the GIL is not to be had".into(),
            };
            let seconds = blocked.as_secs_f64();
            log::warn!(
                "an event loop has been blocked for {seconds:.1} s\nrequests: {requests}\n{stack}"
            );
        })
    }

    /// Nobody attaches to Python from now on. Waits for who has, which takes a moment, since no loop
    /// holds the GIL any more; but no longer than `limit`.
    pub(super) fn end(&self, limit: Duration) {
        if let Some(mut python_ends) = self.python_ends.try_lock_for(limit) {
            *python_ends = true;
        }
    }
}

/// The requests of a worker that have not ended, for the log.
fn requests(worker: &Worker) -> String {
    if !worker.outbox.has_waker() {
        // There is no stream.
        return "none".into();
    }
    let (sender, running) = mpsc::channel();
    worker.outbox.post(Outbound::Running(sender));
    let running = running.recv_timeout(PATIENCE);
    running.map_or_else(|_| "unknown".into(), |running| running.to_string())
}

/// Starts to wait for the GIL. First comes `None`, once it is there, and then the stack.
fn ask_for_stack(
    worker: &Worker,
    python_ends: Arc<Mutex<bool>>,
) -> io::Result<Receiver<Option<String>>> {
    let (sender, stack) = mpsc::channel();
    let thread = worker.pulse.thread();
    spawn("aiovoy-stack", move || {
        // If it is held, somebody has waited for the GIL in vain until now.
        if let Some(python_ends) = python_ends.try_lock()
            && !*python_ends
        {
            // Nobody wants either if it took too long.
            stacks::of_thread(thread, |stack| drop(sender.send(stack)));
        }
    })?;
    Ok(stack)
}

fn take_stack(stack: &Receiver<Option<String>>) -> Option<String> {
    stack.recv_timeout(PATIENCE).ok()?;
    stack.recv_timeout(READING).ok()?
}

/// Has the tracebacks of all threads written to standard error, by CPython's own means, which need
/// neither the GIL nor a thread that Python knows. Returns whether that is set up: see
/// `aiovoy/embedded/stacks.py`, which has the same number.
fn dump_stacks() -> bool {
    envoy::raise_if_handled(envoy::last_signal() - 6)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name.into()).spawn(run).map(drop)
}

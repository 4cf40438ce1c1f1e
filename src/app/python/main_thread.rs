//! Runs on: Envoy's main thread; the thread that it starts is Python's main thread.
//!
//! Python has a main thread of its own, which starts it, runs the first event loop and ends it. So
//! applications find what they find everywhere: the loop on the thread that takes signals.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::Builder;
use std::time::Duration;

use pyo3::prelude::*;
use rustix::process::{Resource, getrlimit};

use super::interpreter::Interpreter;
use crate::config::Config;

/// Python's main thread.
#[derive(Debug)]
pub(crate) struct MainThread {
    /// Python ends once this is gone.
    end: Sender<()>,
    ended: Receiver<()>,
}

impl MainThread {
    /// Starts Python for `config` on a thread of its own, on which `run` then runs. Python stays
    /// when that returns: see [`end`](Self::end).
    ///
    /// Errors if there is no thread, or no Python.
    pub(crate) fn start(
        config: Arc<Config>,
        app_dir: PathBuf,
        run: impl FnOnce(Python<'_>) + Send + 'static,
    ) -> Result<Self, String> {
        let (started, outcome) = mpsc::channel();
        let (end, to_end) = mpsc::channel();
        let (alive, ended) = mpsc::channel();
        let main = move || {
            let _alive: Sender<()> = alive;
            let interpreter = match Interpreter::start(&config, &app_dir) {
                Ok(interpreter) => interpreter,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            Python::attach(run);
            // Nothing is ever sent.
            let _ = to_end.recv();
            interpreter.finalize();
        };
        Builder::new()
            .name("aiovoy-loop-0".into())
            .stack_size(stack_size())
            .spawn(main)
            .map_err(|error| format!("no thread for Python: {error}"))?;
        match outcome.recv() {
            Ok(outcome) => outcome.map(|()| Self { end, ended }),
            Err(_) => Err("Python's main thread has ended".into()),
        }
    }

    /// Ends Python once `run` has returned: its `atexit` functions run, its files are flushed.
    /// Returns whether it has ended within `limit`.
    pub(crate) fn end(self, limit: Duration) -> bool {
        drop(self.end);
        // What ends may fork, as `atexit` functions do.
        let ended = envoy::waiting(|| self.ended.recv_timeout(limit));
        ended != Err(RecvTimeoutError::Timeout)
    }
}

/// As much as a process's main thread has, within reason.
fn stack_size() -> usize {
    const USUAL: u64 = 8 * 1024 * 1024;
    const MOST: u64 = 64 * 1024 * 1024;
    let limit = getrlimit(Resource::Stack).current.unwrap_or(USUAL);
    usize::try_from(limit.clamp(USUAL, MOST)).unwrap_or(usize::MAX)
}

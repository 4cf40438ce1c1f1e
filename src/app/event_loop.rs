//! Runs on: any thread; [`run`] is the life of a loop thread.
//!
//! The thread of one worker's event loop, from its start to its end. The first loop runs on Python's
//! main thread, the others on threads of their own.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::Mutex;
use pyo3::call::PyCallArgs;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};
use pyo3_async_runtimes::TaskLocals;
use tokio::sync::watch;

use super::dispatch::Dispatcher;
use super::python::{slots, traceback};
use crate::exchange::{LoopWaker, Process, Worker};

/// A loop thread, seen from others.
pub(crate) struct LoopThread {
    pub(crate) locals: TaskLocals,
    pub(crate) dispatcher: Py<Dispatcher>,
    /// Its sender is gone once the loop has ended.
    alive: watch::Receiver<()>,
}

/// What a loop thread needs for its start.
pub(crate) struct LoopStart<A> {
    pub(crate) worker: Arc<Worker>,
    pub(crate) process: Arc<Process>,
    /// Gives the applications. The loop is there by then, but does not run.
    pub(crate) apps: A,
    /// Is told what has happened if the loop fails, which then runs once more, for an orderly end,
    /// or has ended if even that fails.
    pub(crate) failed: Arc<dyn Fn(&str) + Send + Sync>,
}

/// What a loop thread says of its start. An error is for the log; the loop has then ended.
pub(crate) type Started = Result<LoopThread, String>;

impl LoopThread {
    /// Starts loop `index` on a thread of its own, and waits until it has started. The calling thread
    /// must not be attached to Python.
    pub(crate) fn start<A>(index: usize, start: LoopStart<A>) -> Started
    where
        A: FnOnce(Python<'_>) -> Result<Vec<Py<PyAny>>, String> + Send + 'static,
    {
        let (started, outcome) = mpsc::channel();
        Python::attach(|py| {
            start_thread(py, index, start, started).map_err(|error| traceback::format(py, &error))
        })?;
        Self::wait_for(&outcome)
    }

    /// Waits until a loop thread says how its start has gone.
    pub(crate) fn wait_for(outcome: &mpsc::Receiver<Started>) -> Started {
        let ended = |_| Err("the thread of an event loop has ended".into());
        outcome.recv().unwrap_or_else(ended)
    }

    /// Waits until the loop has ended, for whatever reason.
    pub(crate) async fn ended(&self) {
        // Nothing is ever sent.
        while self.alive.clone().changed().await.is_ok() {}
    }

    /// The application hears of no request any more.
    pub(crate) fn close(&self) {
        self.dispatcher.get().close();
    }

    /// Stops the loop: cancels what still runs there and closes it.
    pub(crate) async fn stop(&self) {
        self.close();
        let ends = Python::attach(|py| {
            let end = py
                .import(intern!(py, "aiovoy.embedded.event_loop"))?
                .getattr(intern!(py, "end"))?;
            self.call_soon(py, (end, self.locals.event_loop(py)))
        });
        match ends {
            Ok(()) => self.ended().await,
            Err(_) if self.alive.has_changed().is_err() => {}
            Err(error) => log::error!("an event loop was not stopped: {error}"),
        }
    }

    /// Gives the application's handlers of signals back what Envoy has taken when it began to run.
    /// This is of the loop on Python's main thread.
    pub(crate) fn handle_signals_again(&self) {
        let called = Python::attach(|py| {
            let again = py
                .import(intern!(py, "aiovoy.embedded.signals"))?
                .getattr(intern!(py, "handle_again"))?;
            self.call_soon(py, (again,))
        });
        if let Err(error) = called {
            log::error!("signals that Envoy has taken stay with it: {error}");
        }
    }

    /// Has the loop call a function, which comes with its arguments.
    fn call_soon<'py>(&self, py: Python<'py>, call: impl PyCallArgs<'py>) -> PyResult<()> {
        let event_loop = self.locals.event_loop(py);
        let soon = intern!(py, "call_soon_threadsafe");
        event_loop.call_method1(soon, call).map(drop)
    }
}

/// Starts the thread as one of Python's own, so that Python knows its name and that threads which
/// the application starts are no daemons.
fn start_thread<A>(
    py: Python<'_>,
    index: usize,
    start: LoopStart<A>,
    started: mpsc::Sender<Started>,
) -> PyResult<()>
where
    A: FnOnce(Python<'_>) -> Result<Vec<Py<PyAny>>, String> + Send + 'static,
{
    let name = format!("aiovoy-loop-{index}");
    let os_name = CString::new(name.as_str()).unwrap_or_default();
    let start = Mutex::new(Some((start, started)));
    let main = PyCFunction::new_closure(
        py,
        None,
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            // For `top` and `ps`; a thread without the name runs as well.
            let _ = rustix::thread::set_name(&os_name);
            let taken = start.lock().take();
            if let Some((start, started)) = taken {
                run(args.py(), start, &started);
            }
        },
    )?;
    let module = py.import(intern!(py, "aiovoy.embedded.event_loop"))?;
    module
        .call_method1(intern!(py, "start_thread"), (name, main))
        .map(drop)
}

/// The life of a loop thread. It says to `started` how its start has gone, and returns when the loop
/// has ended.
pub(crate) fn run<A>(py: Python<'_>, start: LoopStart<A>, started: &mpsc::Sender<Started>)
where
    A: FnOnce(Python<'_>) -> Result<Vec<Py<PyAny>>, String>,
{
    let (_alive, alive) = watch::channel(());
    let failed = start.failed.clone();
    let mut runs = false;
    let live = || -> PyResult<()> {
        let module = py.import(intern!(py, "aiovoy.embedded.event_loop"))?;
        let kind = start.process.config.event_loop.name();
        let event_loop = module.call_method1(intern!(py, "new_event_loop"), (kind,))?;
        let thread = match boot(&event_loop, start, alive) {
            Ok(thread) => thread,
            Err(error) => {
                let _ = started.send(Err(error));
                runs = true;
                return module
                    .call_method1(intern!(py, "close"), (event_loop,))
                    .map(drop);
            }
        };
        let dispatcher = thread.dispatcher.clone_ref(py);
        let _ = started.send(Ok(thread));
        runs = true;
        let failed = failure_callback(py, failed.clone())?;
        let runs_loop = module.getattr(intern!(py, "run"))?;
        let ended = slots::call(&runs_loop, &(event_loop, failed).into_pyobject(py)?);
        dispatcher.get().abandon();
        ended.map(drop)
    };
    if let Err(error) = live() {
        let error = traceback::format(py, &error);
        if runs {
            failed(&error);
        } else {
            let _ = started.send(Err(error));
        }
    }
}

/// Loads the applications and gives the loop a dispatcher.
fn boot<A>(
    event_loop: &Bound<'_, PyAny>,
    start: LoopStart<A>,
    alive: watch::Receiver<()>,
) -> Started
where
    A: FnOnce(Python<'_>) -> Result<Vec<Py<PyAny>>, String>,
{
    let py = event_loop.py();
    let waker = LoopWaker::new().map_err(|error| format!("no eventfd for a worker: {error}"))?;
    let apps = (start.apps)(py)?;
    let owned = py
        .import(intern!(py, "aiovoy.embedded.event_loop"))
        .and_then(|module| module.call_method1(intern!(py, "own_thread"), (event_loop,)));
    owned.map_err(|error| traceback::format(py, &error))?;
    let thread = py.import(intern!(py, "threading")).and_then(|module| {
        let ident = module.call_method0(intern!(py, "get_ident"))?;
        ident.extract()
    });
    let thread = thread.map_err(|error| traceback::format(py, &error))?;
    start.worker.pulse.know_thread(thread);
    let dispatcher = Dispatcher::start(event_loop, waker, start.worker, start.process, apps);
    let dispatcher = dispatcher.map_err(|error| traceback::format(py, &error))?;
    let locals = TaskLocals::new(event_loop.clone());
    let locals = locals
        .copy_context(py)
        .map_err(|error| traceback::format(py, &error))?;
    Ok(LoopThread {
        locals,
        dispatcher,
        alive,
    })
}

/// `failed` as a Python function of a text.
fn failure_callback(
    py: Python<'_>,
    failed: Arc<dyn Fn(&str) + Send + Sync>,
) -> PyResult<Bound<'_, PyCFunction>> {
    let call = move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
        let (text,): (String,) = args.extract()?;
        failed(&text);
        Ok(())
    };
    PyCFunction::new_closure(py, None, None, call)
}

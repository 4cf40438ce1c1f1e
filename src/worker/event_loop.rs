//! Runs on: any thread; the thread that it starts is the loop thread.
//!
//! The thread of one worker's event loop, from its start to its end.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};
use pyo3_async_runtimes::TaskLocals;

use super::{Dispatcher, Worker};
use crate::config::EventLoop;
use crate::process::Process;
use crate::python::traceback;

/// A running event loop on a thread of its own.
pub(crate) struct LoopThread {
    thread: Py<PyAny>,
    pub(crate) locals: TaskLocals,
    pub(crate) dispatcher: Py<Dispatcher>,
}

/// What a loop thread needs for its start.
pub(crate) struct LoopStart<A> {
    pub(crate) index: usize,
    pub(crate) kind: EventLoop,
    pub(crate) worker: Arc<Worker>,
    pub(crate) process: Arc<Process>,
    pub(crate) timeout_idle: Duration,
    /// Gives the applications. Runs in the running loop, so that what an application does when it
    /// is imported finds its loop there.
    pub(crate) apps: A,
}

impl LoopThread {
    /// Starts the thread and waits until its loop runs with the application. The calling thread
    /// must not be attached to Python.
    ///
    /// Errors if the thread, the loop or the application can't be had; the thread has then ended.
    pub(crate) fn start<A>(start: LoopStart<A>) -> Result<Self, String>
    where
        A: FnOnce(Python<'_>) -> Result<Vec<Py<PyAny>>, String> + Send + 'static,
    {
        let (started, outcome) = mpsc::channel();
        let thread = Python::attach(|py| {
            start_thread(py, start, started).map_err(|error| traceback::format(py, &error))
        })?;
        match outcome.recv() {
            Ok(Ok((locals, dispatcher))) => Ok(Self {
                thread,
                locals,
                dispatcher,
            }),
            Ok(Err(error)) => {
                join(&thread);
                Err(error)
            }
            Err(_) => Err("the thread of an event loop has ended".into()),
        }
    }

    /// Stops the loop: cancels what still runs there, closes it and waits for its thread.
    pub(crate) fn stop(self) {
        Python::attach(|py| {
            self.dispatcher.get().close();
            if let Err(error) = self.end(py) {
                log::error!("an event loop was not stopped: {error}");
            }
        });
        join(&self.thread);
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.locals.event_loop(py);
        let end = py
            .import(intern!(py, "aiovoy.event_loop"))?
            .getattr(intern!(py, "end"))?;
        let soon = intern!(py, "call_soon_threadsafe");
        event_loop.call_method1(soon, (end, &event_loop)).map(drop)
    }
}

type Started = Result<(TaskLocals, Py<Dispatcher>), String>;

/// Starts the thread as one of Python's own, so that Python knows its name and that threads which
/// the application starts are no daemons.
fn start_thread<A>(
    py: Python<'_>,
    start: LoopStart<A>,
    started: mpsc::Sender<Started>,
) -> PyResult<Py<PyAny>>
where
    A: FnOnce(Python<'_>) -> Result<Vec<Py<PyAny>>, String> + Send + 'static,
{
    let name = format!("aiovoy-loop-{}", start.index);
    let os_name = CString::new(name.as_str()).unwrap_or_default();
    let start = Mutex::new(Some(start));
    let main = PyCFunction::new_closure(
        py,
        None,
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            let py = args.py();
            // For `top` and `ps`; a thread without the name runs as well.
            let _ = rustix::thread::set_name(&os_name);
            let Some(start) = start.lock().take() else {
                return;
            };
            if let Err(error) = run(py, start, started.clone()) {
                // Nobody listens once the loop has run.
                let _ = started.send(Err(traceback::format(py, &error)));
            }
        },
    )?;
    let module = py.import(intern!(py, "aiovoy.event_loop"))?;
    let thread = module.call_method1(intern!(py, "start_thread"), (name, main))?;
    Ok(thread.unbind())
}

/// The loop thread's life.
fn run<A>(py: Python<'_>, start: LoopStart<A>, started: mpsc::Sender<Started>) -> PyResult<()>
where
    A: FnOnce(Python<'_>) -> Result<Vec<Py<PyAny>>, String> + Send + 'static,
{
    let module = py.import(intern!(py, "aiovoy.event_loop"))?;
    let event_loop = module.call_method1(intern!(py, "new_event_loop"), (start.kind.name(),))?;
    let start = Mutex::new(Some(start));
    let of_loop = event_loop.clone().unbind();
    let end = module.getattr(intern!(py, "end"))?.unbind();
    let boot = PyCFunction::new_closure(
        py,
        None,
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            let py = args.py();
            let Some(start) = start.lock().take() else {
                return;
            };
            let event_loop = of_loop.bind(py);
            let outcome = boot(event_loop, start);
            if outcome.is_err() {
                // The thread then ends; an error here would be that of `outcome` again.
                let _ = end.call1(py, (event_loop,));
            }
            let _ = started.send(outcome);
        },
    )?;
    event_loop.call_method1(intern!(py, "call_soon"), (boot,))?;
    module.call_method1(intern!(py, "run"), (event_loop,))?;
    Ok(())
}

fn boot<A>(event_loop: &Bound<'_, PyAny>, start: LoopStart<A>) -> Started
where
    A: FnOnce(Python<'_>) -> Result<Vec<Py<PyAny>>, String>,
{
    let py = event_loop.py();
    let apps = (start.apps)(py)?;
    let dispatcher = Dispatcher::start(
        event_loop,
        start.worker,
        start.process,
        apps,
        start.timeout_idle,
    );
    let dispatcher = dispatcher.map_err(|error| traceback::format(py, &error))?;
    let locals = TaskLocals::new(event_loop.clone());
    let locals = locals
        .copy_context(py)
        .map_err(|error| traceback::format(py, &error))?;
    Ok((locals, dispatcher))
}

/// Waits for the thread's end; the caller must not be attached to Python.
fn join(thread: &Py<PyAny>) {
    let joined = Python::attach(|py| thread.call_method0(py, intern!(py, "join")).map(drop));
    if let Err(error) = joined {
        log::error!("the thread of an event loop can't be waited for: {error}");
    }
}

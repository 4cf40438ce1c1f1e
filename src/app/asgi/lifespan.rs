//! Runs on: tokio.
//!
//! Drives `aiovoy.embedded.lifespan` on each worker's loop.

use std::future::Future;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::scope::ScopeTemplate;
use crate::app::event_loop::LoopThread;
use crate::app::python::traceback;
use crate::config::{Config, Mount};

/// The lifespans of the applications on one loop, as far as they have started.
#[derive(Default)]
pub(crate) struct Lifespans {
    /// Each with the beginning of its error messages.
    started: Vec<(Py<PyAny>, String)>,
}

impl Lifespans {
    /// Starts the applications on `thread`'s loop, one after the other, until one fails. Its error
    /// is for the log.
    pub(crate) async fn startup(
        config: &Config,
        thread: &LoopThread,
    ) -> (Self, Result<(), String>) {
        let mut lifespans = Self::default();
        let mut scopes = Vec::new();
        let apps = Python::attach(|py| thread.dispatcher.get().apps(py));
        for (mount, app) in config.mounts().iter().zip(apps) {
            // One alone needs no name.
            let name = match config.mounts() {
                [_] => String::new(),
                _ => format!("`{}`: ", mount.app),
            };
            match start(config, mount, app, thread).await {
                Ok((lifespan, scope)) => {
                    lifespans.started.push((lifespan, name));
                    scopes.push(scope);
                }
                Err(error) => return (lifespans, Err(format!("{name}{error}"))),
            }
        }
        thread.dispatcher.get().set_scopes(scopes);
        (lifespans, Ok(()))
    }

    /// Shuts the applications down, the last to start first. The errors are for the log.
    pub(crate) async fn shutdown(&self, thread: &LoopThread) -> Vec<String> {
        let mut errors = Vec::new();
        for (lifespan, name) in self.started.iter().rev() {
            if let Err(error) = shutdown(lifespan, thread).await {
                errors.push(format!("{name}{error}"));
            }
        }
        errors
    }
}

/// Starts `app`. Gives what its shutdown needs, and what its scopes have in common.
async fn start(
    config: &Config,
    mount: &Mount,
    app: Py<PyAny>,
    thread: &LoopThread,
) -> Result<(Py<PyAny>, ScopeTemplate), String> {
    let begin = |py: Python<'_>| -> PyResult<_> {
        let class = py
            .import(intern!(py, "aiovoy.embedded.lifespan"))?
            .getattr(intern!(py, "Lifespan"))?;
        let mode = mount.lifespan.unwrap_or(config.lifespan);
        let lifespan = class.call1((app, mode.name()))?;
        let started = on_loop(thread, &lifespan, "startup")?;
        Ok((lifespan.unbind(), started))
    };
    let (lifespan, started) = Python::attach(|py| begin(py).map_err(|error| describe(py, &error)))?;
    let state = started.await;
    Python::attach(|py| {
        let state = state.and_then(|state| Ok(state.extract::<Option<Py<PyDict>>>(py)?));
        let stripped = mount.root_path.as_ref().unwrap_or(&config.root_path);
        let scope = state.and_then(|state| ScopeTemplate::new(py, stripped, &mount.path, state));
        scope
            .map(|scope| (lifespan, scope))
            .map_err(|error| describe(py, &error))
    })
}

async fn shutdown(lifespan: &Py<PyAny>, thread: &LoopThread) -> Result<(), String> {
    let ended = Python::attach(|py| {
        on_loop(thread, lifespan.bind(py), "shutdown").map_err(|error| describe(py, &error))
    })?;
    let ended = ended.await;
    Python::attach(|py| ended.map(drop).map_err(|error| describe(py, &error)))
}

/// Runs the coroutine method `name` of `object` on the loop.
fn on_loop<'a>(
    thread: &'a LoopThread,
    object: &Bound<'_, PyAny>,
    name: &str,
) -> PyResult<impl Future<Output = PyResult<Py<PyAny>>> + Send + use<'a>> {
    let result =
        pyo3_async_runtimes::into_future_with_locals(&thread.locals, object.call_method0(name)?)?;
    Ok(async move {
        tokio::select! {
            result = result => result,
            () = thread.ended() => Err(PyRuntimeError::new_err("the event loop has ended")),
        }
    })
}

/// The message of a `LifespanError`, which is complete; the traceback of anything else.
fn describe(py: Python<'_>, error: &PyErr) -> String {
    let module = py.import(intern!(py, "aiovoy.embedded.lifespan"));
    let class = module.and_then(|module| module.getattr(intern!(py, "LifespanError")));
    match class {
        Ok(class) if error.value(py).is_instance(&class).unwrap_or(false) => {
            error.value(py).to_string()
        }
        _ => traceback::format(py, error),
    }
}

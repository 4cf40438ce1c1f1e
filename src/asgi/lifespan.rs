//! Runs on: tokio.
//!
//! Drives `aiovoy.lifespan` on each worker's loop.

use std::future::Future;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::scope::ScopeTemplate;
use crate::config::Config;
use crate::python::traceback;
use crate::worker::LoopThread;

/// The lifespan of the application on one loop.
pub(crate) struct Lifespan {
    lifespan: Py<PyAny>,
}

impl Lifespan {
    /// Starts the application on `thread`'s loop. The error is for the log.
    pub(crate) async fn startup(
        config: Arc<Config>,
        thread: Arc<LoopThread>,
    ) -> Result<Self, String> {
        let begin = |py: Python<'_>| -> PyResult<_> {
            let class = py
                .import(intern!(py, "aiovoy.lifespan"))?
                .getattr(intern!(py, "Lifespan"))?;
            let lifespan =
                class.call1((thread.dispatcher.get().app(py), config.lifespan.name()))?;
            let started = on_loop(&thread, &lifespan, "startup")?;
            Ok((lifespan.unbind(), started))
        };
        let (lifespan, started) =
            Python::attach(|py| begin(py).map_err(|error| describe(py, &error)))?;
        let state = started.await;
        Python::attach(|py| {
            let state = state.and_then(|state| Ok(state.extract::<Option<Py<PyDict>>>(py)?));
            let scope = state.and_then(|state| ScopeTemplate::new(py, &config.root_path, state));
            let scope = scope.map_err(|error| describe(py, &error))?;
            thread.dispatcher.get().set_scope(scope);
            Ok(Self { lifespan })
        })
    }

    /// Shuts the application down. The error is for the log.
    pub(crate) async fn shutdown(&self, thread: &LoopThread) -> Result<(), String> {
        let ended = Python::attach(|py| {
            on_loop(thread, self.lifespan.bind(py), "shutdown")
                .map_err(|error| describe(py, &error))
        })?;
        let ended = ended.await;
        Python::attach(|py| ended.map(drop).map_err(|error| describe(py, &error)))
    }
}

/// Runs the coroutine method `name` of `object` on the loop.
fn on_loop(
    thread: &LoopThread,
    object: &Bound<'_, PyAny>,
    name: &str,
) -> PyResult<impl Future<Output = PyResult<Py<PyAny>>> + Send + use<>> {
    pyo3_async_runtimes::into_future_with_locals(&thread.locals, object.call_method0(name)?)
}

/// The message of a `LifespanError`, which is complete; the traceback of anything else.
fn describe(py: Python<'_>, error: &PyErr) -> String {
    let module = py.import(intern!(py, "aiovoy.lifespan"));
    let class = module.and_then(|module| module.getattr(intern!(py, "LifespanError")));
    match class {
        Ok(class) if error.value(py).is_instance(&class).unwrap_or(false) => {
            error.value(py).to_string()
        }
        _ => traceback::format(py, error),
    }
}

//! Runs on: loop thread.

use pyo3::exceptions::PySystemExit;
use pyo3::intern;
use pyo3::prelude::*;

use super::traceback;
use crate::config::Config;

/// Loads the applications of `config`, in its order. The error is for the log: a message that says what
/// was looked for and where, or the traceback of what the application's module raised.
pub(crate) fn load_all(
    py: Python<'_>,
    config: &Config,
    app_dir: &str,
) -> Result<Vec<Py<PyAny>>, String> {
    let mounts = config.mounts().iter();
    mounts
        .map(|mount| load(py, &mount.app, config.factory, app_dir))
        .collect()
}

fn load(py: Python<'_>, name: &str, factory: bool, app_dir: &str) -> Result<Py<PyAny>, String> {
    let load = || -> PyResult<Result<Py<PyAny>, String>> {
        let importer = py.import(intern!(py, "aiovoy.embedded.importer"))?;
        let not_found = importer.getattr(intern!(py, "ImportFromStringError"))?;
        let app = importer.call_method1(intern!(py, "load_app"), (name, app_dir, factory));
        match app {
            Err(error) if error.value(py).is_instance(&not_found)? => {
                Ok(Err(error.value(py).to_string()))
            }
            app => app.map(|app| Ok(app.unbind())),
        }
    };
    load().unwrap_or_else(|error| {
        let what = if error.is_instance_of::<PySystemExit>(py) {
            "exited"
        } else {
            "could not be imported"
        };
        Err(format!(
            "application `{name}` {what}\n{}",
            traceback::format(py, &error)
        ))
    })
}

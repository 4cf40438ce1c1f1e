//! Runs on: loop thread.

use pyo3::exceptions::PySystemExit;
use pyo3::intern;
use pyo3::prelude::*;

use super::traceback;
use crate::config::Config;

/// Loads the application that `config` names. The error is for the log: a message that says what
/// was looked for and where, or the traceback of what the application's module raised.
pub(crate) fn load(py: Python<'_>, config: &Config, app_dir: &str) -> Result<Py<PyAny>, String> {
    let load = || -> PyResult<Result<Py<PyAny>, String>> {
        let importer = py.import(intern!(py, "aiovoy.importer"))?;
        let not_found = importer.getattr(intern!(py, "ImportFromStringError"))?;
        let app = importer.call_method1(
            intern!(py, "load_app"),
            (&config.app, app_dir, config.factory),
        );
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
            "application `{}` {what}\n{}",
            config.app,
            traceback::format(py, &error)
        ))
    })
}

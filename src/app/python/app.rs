//! Runs on: loop thread.

use pyo3::intern;
use pyo3::prelude::*;

use crate::config::Config;

/// Loads the applications of `config`, in its order. If there is one only, it may be `given`. The error is for the log.
pub(crate) fn load_all(
    py: Python<'_>,
    config: &Config,
    app_dir: &str,
    given: Option<Py<PyAny>>,
) -> Result<Vec<Py<PyAny>>, String> {
    let mounts = config.mounts().iter();
    mounts
        .map(|mount| {
            let factory = mount.factory.unwrap_or(config.factory);
            load(py, &mount.app, factory, app_dir, given.as_ref())
        })
        .collect()
}

fn load(
    py: Python<'_>,
    name: &str,
    factory: bool,
    app_dir: &str,
    given: Option<&Py<PyAny>>,
) -> Result<Py<PyAny>, String> {
    let load = || -> PyResult<Py<PyAny>> {
        let importer = py.import(intern!(py, "aiovoy.embedded.importer"))?;
        let app =
            importer.call_method1(intern!(py, "load_app"), (name, app_dir, factory, given))?;
        Ok(app.unbind())
    };
    load().map_err(|error| error.value(py).to_string())
}

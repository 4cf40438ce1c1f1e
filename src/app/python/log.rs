//! Runs on: any thread that is attached.
//!
//! The log of the server, for Python.

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

/// The log of the server for Python: a function of level and text.
pub(crate) fn function(py: Python<'_>) -> PyResult<Bound<'_, PyCFunction>> {
    PyCFunction::new_closure(py, None, None, write)
}

fn write(args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let (level, text): (String, String) = args.extract()?;
    let level = match level.as_str() {
        "error" => log::Level::Error,
        "warning" => log::Level::Warn,
        _ => log::Level::Info,
    };
    log::log!(level, "{text}");
    Ok(())
}

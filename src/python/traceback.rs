//! Runs on: any thread that is attached to Python.

use pyo3::intern;
use pyo3::prelude::*;

/// An exception as Python prints it, with its traceback and causes, without the last line end.
pub(crate) fn format(py: Python<'_>, error: &PyErr) -> String {
    let lines = || -> PyResult<Vec<String>> {
        let traceback = py.import(intern!(py, "traceback"))?;
        traceback
            .call_method1(intern!(py, "format_exception"), (error.value(py),))?
            .extract()
    };
    // An exception whose own `__str__` raises still gets a line.
    let text = lines().map_or_else(|_| error.to_string(), |lines| lines.concat());
    text.trim_end().to_owned()
}

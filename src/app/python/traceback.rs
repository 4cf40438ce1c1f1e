//! Runs on: any thread that is attached to Python.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// An exception as Python prints it, with its traceback and causes, without the last line end.
pub(crate) fn format(py: Python<'_>, error: &PyErr) -> String {
    let text = || -> PyResult<Vec<u8>> {
        let traceback = py.import(intern!(py, "traceback"))?;
        // In three parts: before Python 3.12 the traceback need not be in the exception yet.
        let parts = (error.get_type(py), error.value(py), error.traceback(py));
        let lines = traceback.call_method1(intern!(py, "format_exception"), parts)?;
        let text = PyString::new(py, "").call_method1(intern!(py, "join"), (lines,))?;
        // A lone surrogate has no UTF-8.
        text.call_method1(intern!(py, "encode"), ("utf-8", "backslashreplace"))?
            .extract()
    };
    // An exception whose own `__str__` raises still gets a line.
    let text = text().map_or_else(
        |_| error.to_string(),
        |text| String::from_utf8_lossy(&text).into_owned(),
    );
    text.trim_end().to_owned()
}

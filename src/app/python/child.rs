//! Runs on: what was a loop thread, in a forked child.

use pyo3::intern;
use pyo3::prelude::*;

/// Ends a child that comes back from the application, by returning or by raising.
pub(crate) fn leave(py: Python<'_>, came_back: PyResult<()>) -> ! {
    let error = came_back.err().map(|error| error.into_value(py));
    let left = py
        .import(intern!(py, "aiovoy.embedded.child"))
        .and_then(|module| module.call_method1(intern!(py, "leave"), (error,)));
    // It does not come back.
    drop(left);
    envoy::exit_now(1)
}

//! Runs on: any thread.
//!
//! What Python's threads are amid.

use pyo3::intern;
use pyo3::prelude::*;

use super::traceback;

/// Tells the calls that a thread is amid, as a traceback shows them, the innermost last. `thread` is
/// Python's number of it.
///
/// Waits for the GIL, which is told by a `None` before. Nothing is told if Python ends.
pub(crate) fn of_thread(thread: Option<u64>, tell: impl Fn(Option<String>)) {
    Python::try_attach(|py| {
        tell(None);
        let stack = || -> PyResult<String> {
            let stacks = py.import(intern!(py, "aiovoy.embedded.stacks"))?;
            let stack = stacks.call_method1(intern!(py, "of_thread"), (thread,))?;
            stack.extract()
        };
        tell(Some(
            stack().unwrap_or_else(|error| traceback::format(py, &error)),
        ));
    });
}

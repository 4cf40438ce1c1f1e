//! Runs on: loop thread.
//!
//! A client that has gone, as the application hears of it, and as its own exceptions tell of it.

use pyo3::exceptions::{PyBaseExceptionGroup, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use rustc_hash::FxHashSet;

pyo3::create_exception!(
    aiovoy,
    ClientDisconnected,
    PyOSError,
    "The client has gone: `send` has nobody to send to (ASGI HTTP 2.4, \"Disconnected Client\")."
);

/// Whether `error` is what `send` raised for a client that has gone, or comes of it: frameworks
/// raise their own exception in its place, and task groups put it in an exception group.
pub(crate) fn is_disconnect(py: Python<'_>, error: &PyErr) -> bool {
    // Each exception once, since causes can go in a circle.
    let mut seen = FxHashSet::default();
    let mut left = vec![error.clone_ref(py)];
    while let Some(error) = left.pop() {
        if error.is_instance_of::<ClientDisconnected>(py) {
            continue;
        }
        if !seen.insert(error.value(py).as_ptr().addr()) {
            return false;
        }
        if let Some(members) = members(py, &error) {
            left.extend(members);
        } else {
            match error.cause(py).or_else(|| error.context(py)) {
                Some(origin) => left.push(origin),
                None => return false,
            }
        }
    }
    true
}

/// Takes from the frames of `error`, which nobody will read, what they hold: a generator that was
/// streamed would be closed only when the collector comes to the circle of frames and exceptions.
pub(crate) fn let_go(py: Python<'_>, error: &PyErr) {
    let mut seen = FxHashSet::default();
    let mut left = vec![error.clone_ref(py)];
    while let Some(error) = left.pop() {
        if !seen.insert(error.value(py).as_ptr().addr()) {
            continue;
        }
        left.extend(members(py, &error).into_iter().flatten());
        left.extend(error.cause(py));
        left.extend(error.context(py));
        let cleared = py
            .import(intern!(py, "traceback"))
            .and_then(|module| module.getattr(intern!(py, "clear_frames")))
            .and_then(|clear| clear.call1((error.traceback(py),)));
        if let Err(error) = cleared {
            log::debug!("frames of a client that has gone are kept: {error}");
        }
    }
}

/// What an exception group has in it; `None` if `error` is none.
fn members(py: Python<'_>, error: &PyErr) -> Option<Vec<PyErr>> {
    if !error.is_instance_of::<PyBaseExceptionGroup>(py) {
        return None;
    }
    let members = error.value(py).getattr(intern!(py, "exceptions"));
    let members = members.and_then(|members| members.extract::<Vec<Bound<'_, PyAny>>>());
    Some(
        members
            .into_iter()
            .flatten()
            .map(PyErr::from_value)
            .collect(),
    )
}

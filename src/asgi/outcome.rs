//! Runs on: loop thread.
//!
//! What the end of an application call means, and what the log says of it.

use pyo3::exceptions::PyBaseExceptionGroup;
use pyo3::intern;
use pyo3::prelude::*;
use rustc_hash::FxHashSet;

use super::http::ClientDisconnected;
use super::websocket;
use crate::exchange::RequestHead;
use crate::python::traceback;

/// How an application call ended.
pub(crate) enum Outcome {
    Returned,
    Raised(PyErr),
}

/// How far its response had got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) begun: bool,
    pub(crate) complete: bool,
    pub(crate) disconnected: bool,
}

impl Outcome {
    /// Logs an outcome that an operator or the application's author must know of.
    ///
    /// That the client has gone is neither's concern, in whichever way the application ended for
    /// it: by the `OSError` that `send` raised, or without completing its response.
    pub(crate) fn log(&self, py: Python<'_>, progress: Progress, request: &RequestHead) {
        let Progress {
            begun,
            complete,
            disconnected,
        } = progress;
        match self {
            Self::Returned if complete || disconnected => {}
            Self::Returned if begun => log::error!(
                "ASGI application returned without completing its response: {}",
                request.name()
            ),
            Self::Returned => log::error!(
                "ASGI application returned without starting a response: {}",
                request.name()
            ),
            Self::Raised(error) if disconnected && is_disconnect(py, error) => let_go(py, error),
            Self::Raised(error) => log::error!(
                "exception in ASGI application: {}\n{}",
                request.name(),
                traceback::format(py, error)
            ),
        }
    }
}

impl Outcome {
    /// The same for the end of a WebSocket's call, which may leave the close to the server.
    pub(crate) fn log_websocket(&self, py: Python<'_>, progress: websocket::Progress, name: &str) {
        match (self, progress) {
            (Self::Returned, websocket::Progress::Connecting) => {
                log::error!(
                    "ASGI application returned without answering the WebSocket handshake: {name}"
                );
            }
            (Self::Returned, websocket::Progress::Denying) => {
                log::error!("ASGI application returned without completing its response: {name}");
            }
            (Self::Returned, _) => {}
            (Self::Raised(error), websocket::Progress::Closed) if is_disconnect(py, error) => {
                let_go(py, error);
            }
            (Self::Raised(error), _) => log::error!(
                "exception in ASGI application: {name}\n{}",
                traceback::format(py, error)
            ),
        }
    }
}

/// Whether `error` is what `send` raised for a client that has gone, or comes of it: frameworks
/// raise their own exception in its place, and task groups put it in an exception group.
fn is_disconnect(py: Python<'_>, error: &PyErr) -> bool {
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
        if error.is_instance_of::<PyBaseExceptionGroup>(py) {
            let members = error.value(py).getattr(intern!(py, "exceptions"));
            let members = members.and_then(|members| members.extract::<Vec<Bound<'_, PyAny>>>());
            left.extend(members.into_iter().flatten().map(PyErr::from_value));
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
fn let_go(py: Python<'_>, error: &PyErr) {
    let mut seen = FxHashSet::default();
    let mut left = vec![error.clone_ref(py)];
    while let Some(error) = left.pop() {
        if !seen.insert(error.value(py).as_ptr().addr()) {
            continue;
        }
        if error.is_instance_of::<PyBaseExceptionGroup>(py) {
            let members = error.value(py).getattr(intern!(py, "exceptions"));
            let members = members.and_then(|members| members.extract::<Vec<Bound<'_, PyAny>>>());
            left.extend(members.into_iter().flatten().map(PyErr::from_value));
        }
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

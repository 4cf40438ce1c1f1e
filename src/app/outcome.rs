//! Runs on: loop thread.
//!
//! What the end of an application call means, and what the log says of it.

use pyo3::exceptions::asyncio::CancelledError;
use pyo3::prelude::*;

use super::disconnect::{is_disconnect, let_go};
use super::python::log;
use crate::exchange::RequestHead;

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
    /// Envoy has given it up, and so the call was cancelled.
    pub(crate) given_up: bool,
}

impl Outcome {
    /// Logs an outcome that an operator or the application's author must know of.
    ///
    /// That the client has gone is neither's concern, in whichever way the application ended for
    /// it: by the `OSError` that `send` raised, or without completing its response. Nor is that Envoy has
    /// given the call up, of which the access log tells.
    pub(crate) fn log(&self, py: Python<'_>, progress: Progress, request: &RequestHead) {
        let Progress {
            begun,
            complete,
            disconnected,
            given_up,
        } = progress;
        match self {
            Self::Returned if complete || disconnected => {}
            Self::Returned => {
                let what = if begun {
                    "completing its"
                } else {
                    "starting a"
                };
                let name = request.name();
                let text = format!("ASGI application returned without {what} response: {name}");
                log::error(py, &text, None);
            }
            Self::Raised(error) if given_up && error.is_instance_of::<CancelledError>(py) => {}
            Self::Raised(error) if disconnected && is_disconnect(py, error) => let_go(py, error),
            Self::Raised(error) => log_exception(py, error, &request.name()),
        }
    }
}

/// Logs what the application has raised in the request of that `name`.
pub(crate) fn log_exception(py: Python<'_>, error: &PyErr, name: &str) {
    let text = format!("exception in ASGI application: {name}");
    log::error(py, &text, Some(error));
}

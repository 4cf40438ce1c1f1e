//! Runs on: loop thread.
//!
//! Requests as Python's `logging` has them, where its handlers take them.

use std::sync::Arc;

use pyo3::prelude::*;

use super::python::log;
use crate::exchange::RequestHead;

/// The line of a request that is not written yet. It is once there is a status, in the context of who sends that.
#[derive(Debug, Default)]
pub(crate) struct AccessLine {
    head: Option<Arc<RequestHead>>,
    status: Option<u16>,
}

impl AccessLine {
    /// The line of the request with this head, if it is `wanted`.
    pub(crate) fn new(wanted: bool, head: &Arc<RequestHead>) -> Self {
        Self {
            head: wanted.then(|| head.clone()),
            status: None,
        }
    }

    /// It is answered; the first status counts.
    pub(crate) fn answer(&mut self, status: u16) {
        if self.head.is_some() {
            self.status.get_or_insert(status);
        }
    }

    /// What is to be written now.
    pub(crate) fn take(&mut self) -> Self {
        match self.status {
            Some(_) => std::mem::take(self),
            None => Self::default(),
        }
    }

    /// Writes it. No lock may be held.
    pub(crate) fn write(self, py: Python<'_>) {
        let (Some(head), Some(status)) = (self.head, self.status) else {
            return;
        };
        let host = String::from_utf8_lossy(&head.client.host);
        let client = match head.client.port {
            Some(port) => format!("{host}:{port}"),
            None => host.into_owned(),
        };
        let method = String::from_utf8_lossy(&head.method);
        // In uvicorn's line it stands in quotes.
        let target = String::from_utf8_lossy(&head.target).replace('"', "%22");
        log::access(
            py,
            [&client, &method, &target, head.version.number()],
            status,
        );
    }
}

//! Runs on: loop thread.
//!
//! Those who wait in `receive` or in `send`.

use pyo3::intern;
use pyo3::prelude::*;

/// Futures of the loop that are awaited.
#[derive(Default)]
pub(super) struct Waiters(Vec<Py<PyAny>>);

impl Waiters {
    pub(super) fn push(&mut self, waiter: &Bound<'_, PyAny>) {
        self.0.push(waiter.clone().unbind());
    }

    /// Takes those of `others`, too.
    pub(super) fn append(&mut self, others: &mut Self) {
        self.0.append(&mut others.0);
    }

    /// Takes `waiter` out, which waits no more.
    pub(super) fn remove(&mut self, waiter: &Py<PyAny>) -> Option<Py<PyAny>> {
        let at = self.0.iter().position(|other| other.is(waiter))?;
        Some(self.0.swap_remove(at))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Has each look again, whatever comes of the others; the first error is returned.
    pub(super) fn wake(self, py: Python<'_>) -> PyResult<()> {
        let woken = self.0.iter().map(|waiter| resolve(py, waiter));
        woken.fold(Ok(()), PyResult::and)
    }

    /// The same at the end of the application's call: some may wait in tasks of its own.
    pub(super) fn wake_at_end(self, py: Python<'_>) {
        if let Err(error) = self.wake(py) {
            log::error!("a waiting task was not told of the end of its call: {error}");
        }
    }
}

fn resolve(py: Python<'_>, waiter: &Py<PyAny>) -> PyResult<()> {
    let waiter = waiter.bind(py);
    if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
        waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

//! Runs on: loop thread.
//!
//! What `receive` and `send` return. Both are complete coroutines to asyncio (`await`,
//! `create_task`, `wait_for` and `gather` take them), and an `await` that has nothing to wait for
//! ends in place, without a turn of the loop.
//!
//! An [`Awaitable`] that must wait yields a real `asyncio.Future` of the loop. That future only
//! says "look again": the result stays with its owner until the awaiting task really runs, so a
//! cancellation that comes between the two loses nothing.

use parking_lot::Mutex;
use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::slots::{Resume, Resumed, stepped};

/// What can be waited for.
pub(crate) trait Source: Send + Sync {
    /// The result of the `await`, or `None` while there is none. Then `waiter`, if there is one, is
    /// resolved when it is time to look again.
    ///
    /// It is registered under the lock under which was looked. Any Python code may run outside it,
    /// as in the making of the waiter (a finaliser, the collector), and what that changes has to be
    /// seen or told.
    fn poll<'py>(
        &self,
        py: Python<'py>,
        waiter: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>>;

    /// A new future of the loop, to wait with.
    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>>;

    /// Forgets a waiter that nobody waits with any more.
    fn forget(&self, waiter: &Py<PyAny>);
}

/// A coroutine over a [`Source`].
#[pyclass(frozen, module = "aiovoy")]
pub(crate) struct Awaitable {
    source: Box<dyn Source>,
    /// The future that was yielded last.
    waiter: Mutex<Option<Py<PyAny>>>,
}

impl Awaitable {
    pub(crate) fn new(source: impl Source + 'static) -> Self {
        Self {
            source: Box::new(source),
            waiter: Mutex::new(None),
        }
    }

    fn forget(&self) {
        let waiter = self.waiter.lock().take();
        if let Some(waiter) = waiter {
            self.source.forget(&waiter);
        }
    }
}

impl Resume for Awaitable {
    fn resume<'py>(slf: &Bound<'py, Self>, _: &Bound<'py, PyAny>) -> PyResult<Resumed<'py>> {
        let (py, this) = (slf.py(), slf.get());
        let resumed_for = this.waiter.lock().take();
        drop(resumed_for);
        if let Some(result) = this.source.poll(py, None)? {
            return Ok(Resumed::Returned(result));
        }
        let waiter = this.source.waiter(py)?;
        // What `Future.__await__` does before it yields itself to the task.
        waiter.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        let last = this.waiter.lock().replace(waiter.clone().unbind());
        drop(last);
        let result = this.source.poll(py, Some(&waiter))?;
        Ok(result.map_or(Resumed::Yielded(waiter), Resumed::Returned))
    }
}

#[pymethods]
impl Awaitable {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let none = slf.py().None();
        Self::send(slf, none.bind(slf.py()))
    }

    fn send<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        stepped(Self::resume(slf, value))
    }

    #[pyo3(signature = (kind, value = None, traceback = None))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.forget();
        Err(thrown(kind, value, traceback)?)
    }

    fn close(&self) {
        self.forget();
    }
}

impl Drop for Awaitable {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A coroutine that is done and returns `None`; one serves all.
#[pyclass(frozen, module = "aiovoy")]
pub(crate) struct Done;

impl Resume for Done {
    fn resume<'py>(slf: &Bound<'py, Self>, _: &Bound<'py, PyAny>) -> PyResult<Resumed<'py>> {
        Ok(Resumed::Returned(slf.py().None().into_bound(slf.py())))
    }
}

#[pymethods]
impl Done {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// No value ends the iteration without the making of a `StopIteration`.
    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }

    fn send(&self, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Err(PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (kind, value = None, traceback = None))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        Err(thrown(kind, value, traceback)?)
    }

    fn close(&self) {}
}

/// The exception of a `throw`, in its one-argument form or the older one with a class.
fn thrown(
    kind: &Bound<'_, PyAny>,
    value: Option<Bound<'_, PyAny>>,
    traceback: Option<Bound<'_, PyAny>>,
) -> PyResult<PyErr> {
    let exception = match (kind.cast::<PyType>(), value) {
        (Err(_), _) => kind.clone(),
        (Ok(_), Some(value)) if value.is_instance(kind)? => value,
        (Ok(class), Some(value)) => class.call1((value,))?,
        (Ok(class), None) => class.call0()?,
    };
    if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
        exception.setattr(intern!(exception.py(), "__traceback__"), traceback)?;
    }
    Ok(PyErr::from_value(exception))
}

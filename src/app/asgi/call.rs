//! Runs on: loop thread.
//!
//! The application's call as the coroutine of its task. It stands between task and application
//! so that the end of the call is seen where it happens, without a callback of the task, and so
//! that no exception leaves the task: `SystemExit` would end the loop.

use std::sync::OnceLock;

use parking_lot::Mutex;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::cycle::Cycle;
use crate::app::outcome::Outcome;
use crate::app::python::child;
use crate::app::python::slots::{self, Resume, Resumed, is_coroutine, resume, stepped};

/// An application call.
#[pyclass(frozen, freelist = 64, module = "aiovoy")]
pub(crate) struct Call {
    cycle: Cycle,
    app: Py<PyAny>,
    /// Until the first step: what the application is called with.
    arguments: Mutex<Option<Arguments>>,
    /// From the first step on. Not pyo3's cell: that lets other threads run while it is filled.
    coroutine: OnceLock<Py<PyAny>>,
}

/// `scope`, `receive` and `send`.
pub(crate) type Arguments = (Py<PyDict>, Py<PyAny>, Py<PyAny>);

impl Call {
    /// A call of `app` with `arguments`, made when the task takes its first step, so that all of
    /// the application runs in its own task and context.
    pub(crate) fn new(cycle: Cycle, app: Py<PyAny>, arguments: Arguments) -> Self {
        Self {
            cycle,
            app,
            arguments: Mutex::new(Some(arguments)),
            coroutine: OnceLock::new(),
        }
    }

    fn coroutine<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        if let Some(coroutine) = self.coroutine.get() {
            return Ok(coroutine.bind(py));
        }
        let arguments = self.arguments.lock().take();
        let arguments = arguments.ok_or_else(|| PyRuntimeError::new_err("the call has ended"))?;
        let awaitable = self.app.bind(py).call1(arguments)?;
        let coroutine = iterator(awaitable)?.unbind();
        Ok(self.coroutine.get_or_init(|| coroutine).bind(py))
    }

    fn end<'py>(&self, py: Python<'py>, resumed: PyResult<Resumed<'py>>) -> PyResult<Resumed<'py>> {
        if envoy::is_forked() {
            // The stream is the parent's, and so is the loop to which this would go back.
            child::leave(
                py,
                resumed.and_then(|resumed| match resumed {
                    Resumed::Returned(_) => Ok(()),
                    Resumed::Yielded(_) => Err(PyRuntimeError::new_err(
                        "a forked child has no event loop to wait in",
                    )),
                }),
            );
        }
        let none = || Resumed::Returned(py.None().into_bound(py));
        match resumed {
            Ok(Resumed::Yielded(waiter)) => Ok(Resumed::Yielded(waiter)),
            Ok(Resumed::Returned(_)) => {
                self.cycle.end(py, &Outcome::Returned);
                Ok(none())
            }
            Err(error) => {
                // The task of a cancelled call is to be a cancelled task.
                let cancelled = error.is_instance_of::<CancelledError>(py);
                let again = cancelled.then(|| error.clone_ref(py));
                self.cycle.end(py, &Outcome::Raised(error));
                again.map_or_else(|| Ok(none()), Err)
            }
        }
    }
}

impl Resume for Call {
    fn resume<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Resumed<'py>> {
        let (py, call) = (slf.py(), slf.get());
        if envoy::is_forked() {
            child::leave(py, Ok(()));
        }
        let resumed = call
            .coroutine(py)
            .and_then(|coroutine| resume(coroutine, value));
        call.end(py, resumed)
    }
}

#[pymethods]
impl Call {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let none = slf.py().None();
        stepped(Self::resume(slf, none.bind(slf.py())))
    }

    fn send<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        stepped(Self::resume(slf, value))
    }

    /// How a task delivers a cancellation.
    #[pyo3(signature = (*exception))]
    fn throw<'py>(
        slf: &Bound<'py, Self>,
        exception: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, call) = (slf.py(), slf.get());
        let thrown = match call.coroutine.get() {
            Some(coroutine) => slots::call(
                &coroutine.bind(py).getattr(intern!(py, "throw"))?,
                exception,
            ),
            // Cancelled before its first step.
            None => {
                let arguments = call.arguments.lock().take();
                drop(arguments);
                Err(PyErr::from_value(exception.get_item(0)?))
            }
        };
        let resumed = match thrown {
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                Ok(Resumed::Returned(py.None().into_bound(py)))
            }
            thrown => thrown.map(Resumed::Yielded),
        };
        stepped(call.end(py, resumed))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match self.coroutine.get() {
            Some(coroutine) => coroutine.call_method0(py, intern!(py, "close")).map(drop),
            None => Ok(()),
        }
    }

    /// The application's coroutine answers for its frame, its name and its state.
    fn __getattr__<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.coroutine.get() {
            Some(coroutine) => coroutine.bind(py).getattr(name),
            None => Err(PyAttributeError::new_err(name.clone().unbind())),
        }
    }
}

/// What resumes `awaitable`: a coroutine itself, which keeps its frame where debuggers look for
/// it, and else its iterator.
fn iterator(awaitable: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    let py = awaitable.py();
    if is_coroutine(&awaitable) {
        return Ok(awaitable);
    }
    if awaitable.hasattr(intern!(py, "__await__"))? {
        return awaitable.call_method0(intern!(py, "__await__"));
    }
    let class = awaitable.get_type();
    Err(PyTypeError::new_err(format!(
        "the application returned {class} where an awaitable was expected"
    )))
}

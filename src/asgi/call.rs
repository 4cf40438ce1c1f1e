//! Runs on: loop thread.
//!
//! The application's call as the coroutine of its task. It stands between task and application
//! so that the end of the call is seen where it happens, without a callback of the task, and so
//! that no exception leaves the task: `SystemExit` would end the loop.

use pyo3::exceptions::asyncio::CancelledError;
use pyo3::exceptions::{PyStopIteration, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::http::HttpCycle;
use super::outcome::Outcome;
use crate::python::slots::{Resume, Resumed, resume};

/// A running application call.
#[pyclass(frozen, module = "aiovoy")]
pub(crate) struct Call {
    cycle: Py<HttpCycle>,
    coroutine: Py<PyAny>,
}

impl Call {
    /// The call whose `awaitable` the application returned.
    ///
    /// Errors if it can't be awaited.
    pub(crate) fn new(cycle: Py<HttpCycle>, awaitable: Bound<'_, PyAny>) -> PyResult<Self> {
        let py = awaitable.py();
        // A coroutine is resumed itself, which keeps its frame where debuggers look for it.
        let coroutine = if awaitable.hasattr(intern!(py, "send"))? {
            awaitable
        } else if awaitable.hasattr(intern!(py, "__await__"))? {
            awaitable.call_method0(intern!(py, "__await__"))?
        } else {
            let class = awaitable.get_type();
            return Err(PyTypeError::new_err(format!(
                "the application returned {class} where an awaitable was expected"
            )));
        };
        Ok(Self {
            cycle,
            coroutine: coroutine.unbind(),
        })
    }

    fn end<'py>(&self, py: Python<'py>, resumed: PyResult<Resumed<'py>>) -> PyResult<Resumed<'py>> {
        let none = || Resumed::Returned(py.None().into_bound(py));
        match resumed {
            Ok(Resumed::Yielded(waiter)) => Ok(Resumed::Yielded(waiter)),
            Ok(Resumed::Returned(_)) => {
                self.cycle.get().end(py, &Outcome::Returned);
                Ok(none())
            }
            Err(error) => {
                // The task of a cancelled call is to be a cancelled task.
                let cancelled = error.is_instance_of::<CancelledError>(py);
                let again = cancelled.then(|| error.clone_ref(py));
                self.cycle.get().end(py, &Outcome::Raised(error));
                again.map_or_else(|| Ok(none()), Err)
            }
        }
    }
}

impl Resume for Call {
    fn resume<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Resumed<'py>> {
        let (py, call) = (slf.py(), slf.get());
        call.end(py, resume(call.coroutine.bind(py), value))
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
        let thrown = call
            .coroutine
            .bind(py)
            .call_method1(intern!(py, "throw"), exception);
        let resumed = match thrown {
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
                Ok(Resumed::Returned(py.None().into_bound(py)))
            }
            thrown => thrown.map(Resumed::Yielded),
        };
        stepped(call.end(py, resumed))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.coroutine
            .call_method0(py, intern!(py, "close"))
            .map(drop)
    }

    /// The application's coroutine answers for its frame, its name and its state.
    fn __getattr__<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.coroutine
            .bind(py)
            .getattr(name.cast::<pyo3::types::PyString>()?)
    }
}

/// A step in the language of iterators.
fn stepped(resumed: PyResult<Resumed<'_>>) -> PyResult<Bound<'_, PyAny>> {
    match resumed? {
        Resumed::Yielded(waiter) => Ok(waiter),
        Resumed::Returned(result) => Err(PyStopIteration::new_err((result.unbind(),))),
    }
}

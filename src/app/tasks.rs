//! Runs on: loop thread.
//!
//! The tasks that the application's calls run in, and the futures that they wait for.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::asgi::call::Call;

/// Makes tasks of calls, and futures, on one loop.
///
/// `asyncio.Task` is called itself, as `create_task` does in the end. From Python 3.12 on the task
/// takes its first step at once, which for many a request is the only one. Before, it is given a name,
/// or asyncio would write it one with a number.
pub(super) struct Tasks {
    class: Py<PyAny>,
    keywords: Py<PyDict>,
    /// The loop's, which asks the application's task factory.
    create_task: Py<PyAny>,
    /// Whether the application has set one.
    has_factory: AtomicBool,
    /// Whether somebody has put a `create_task` on the loop, before it was the server's.
    is_replaced: bool,
    /// `asyncio.Future` and its arguments; or a `create_future` that somebody has put on the loop.
    future: Py<PyAny>,
    future_keywords: Option<Py<PyDict>>,
}

impl Tasks {
    pub(super) fn new(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let asyncio = py.import("asyncio")?;
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "loop"), event_loop)?;
        let (create_task, create_future) =
            (intern!(py, "create_task"), intern!(py, "create_future"));
        let attributes = event_loop.getattr(intern!(py, "__dict__"))?;
        let (future, future_keywords) = if attributes.contains(create_future)? {
            (event_loop.getattr(create_future)?, None)
        } else {
            let keywords = keywords.copy()?.unbind();
            (asyncio.getattr("Future")?, Some(keywords))
        };
        if py.version_info() < (3, 12) {
            keywords.set_item(intern!(py, "name"), intern!(py, "request"))?;
        } else {
            keywords.set_item(intern!(py, "eager_start"), true)?;
        }
        // One may have been set while the application was imported.
        let factory = event_loop.call_method0(intern!(py, "get_task_factory"))?;
        Ok(Self {
            class: asyncio.getattr("Task")?.unbind(),
            keywords: keywords.unbind(),
            create_task: event_loop.getattr(create_task)?.unbind(),
            is_replaced: attributes.contains(create_task)?,
            has_factory: AtomicBool::new(!factory.is_none()),
            future: future.unbind(),
            future_keywords,
        })
    }

    /// The application has set a task factory, or taken it back.
    pub(super) fn use_factory(&self, has_factory: bool) {
        self.has_factory.store(has_factory, Ordering::Relaxed);
    }

    /// A task that runs `call`. If it is eager it may have ended already.
    pub(super) fn create<'py>(&self, py: Python<'py>, call: Call) -> PyResult<Bound<'py, PyAny>> {
        if self.is_replaced || self.has_factory.load(Ordering::Relaxed) {
            return self.create_task.bind(py).call1((call,));
        }
        let class = self.class.bind(py);
        class.call((call,), Some(self.keywords.bind(py)))
    }

    /// A new future, made as the loop's `create_future` makes it.
    pub(super) fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let keywords = self.future_keywords.as_ref().map(|it| it.bind(py));
        self.future.bind(py).call((), keywords)
    }
}

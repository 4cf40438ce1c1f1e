//! Runs on: the thread of Python's that runs a server; any of them makes and stops one.
//!
//! The extension module, for a server in an ordinary process of Python's.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use log::LevelFilter;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::app::python::{log as python_log, traceback};
use crate::config::{Config, NetworkConfig};
use crate::life::{NetworkServer, Told};

/// A server that listens on sockets of its own.
#[pyclass(frozen, module = "aiovoy")]
struct Server(NetworkServer);

#[pymethods]
impl Server {
    /// `config` is JSON, as the bootstrap extension has it, `network` likewise. `listeners` are descriptors, which stay
    /// their owner's. `opening` has them listen, `ready` hears that connections are accepted, and `closing` closes what the
    /// owner has, once who has come is let in. All are called without arguments, on any thread. `app` is the application,
    /// if that is an object of this process, which goes on when the server has ended.
    #[new]
    #[pyo3(signature = (config, network, listeners, opening, ready, closing, app=None))]
    fn new(
        config: &str,
        network: &str,
        listeners: Vec<RawFd>,
        opening: Py<PyAny>,
        ready: Py<PyAny>,
        closing: Py<PyAny>,
        app: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let config = Config::parse(config.as_bytes()).map_err(PyValueError::new_err)?;
        Python::attach(|py| {
            python_log::set_up(py, &config)?;
            python_log::configure(py, &config)
        })?;
        let network = NetworkConfig::parse(network).map_err(PyValueError::new_err)?;
        let own = listeners.into_iter().map(envoy::duplicate);
        let own = own.collect::<std::io::Result<Vec<OwnedFd>>>();
        let own = own.map_err(|error| PyOSError::new_err(error.to_string()))?;
        let told = [opening, ready, closing].map(called);
        NetworkServer::new(config, network, own, told, app)
            .map(Self)
            .map_err(PyRuntimeError::new_err)
    }

    /// Serves on this thread until the server has stopped. `loaded` hears that the applications are imported. Returns
    /// the exit code.
    fn run(&self, py: Python<'_>, loaded: Py<PyAny>) -> PyResult<i32> {
        let code = self.0.run(py, called(loaded));
        code.map_err(PyRuntimeError::new_err)
    }

    /// Why the server has not started; `None` if it has.
    #[getter]
    fn failure(&self) -> Option<&str> {
        self.0.failure()
    }

    /// Stops gracefully. Does not wait.
    fn stop(&self) {
        self.0.stop();
    }

    /// Stops without waiting for requests, or for the application's shutdown. Does not wait.
    fn abort(&self) {
        self.0.abort();
    }
}

/// A function of Python's, for threads that are not attached. What it raises is an error for the log.
fn called(function: Py<PyAny>) -> Told {
    Arc::new(move || {
        Python::attach(|py| {
            let called = function.call0(py).map(drop);
            called.map_err(|error| traceback::format(py, &error))
        })
    })
}

/// Makes standard error the log, from `level` on.
#[pyfunction]
fn log_to_stderr(level: &str) -> PyResult<()> {
    let level = level.parse::<LevelFilter>();
    let level = level.map_err(|error| PyValueError::new_err(error.to_string()))?;
    envoy::log_to_stderr(level).map_err(|error| PyOSError::new_err(error.to_string()))
}

/// The module `aiovoy.network`.
#[pymodule]
fn network(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Server>()?;
    module.add_function(wrap_pyfunction!(log_to_stderr, module)?)
}

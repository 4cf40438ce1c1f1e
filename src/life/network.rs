//! Runs on: Python's main thread; any thread of Python's for an application of that process.
//!
//! The life of the server in an ordinary process of Python's: the loop runs on the thread that runs the server, and a
//! network of our own is the front.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use pyo3::prelude::*;

use super::front::{Front, Gauges};
use super::leftovers;
use super::server::{self, Supervision};
use super::stop::{END_GRACE, NOT_STARTED, Stop};
use crate::app::event_loop::{self, LoopThread};
use crate::app::python::app;
use crate::config::{Config, NetworkConfig};
use crate::exchange::Process;
use crate::network::NetworkThread;

/// A network of our own.
struct Own {
    thread: Mutex<Option<Arc<NetworkThread>>>,
    listeners: Mutex<Vec<OwnedFd>>,
    /// Has the sockets listen.
    opening: Told,
    /// Has nobody come to them any more.
    closing: Told,
    /// Is told when connections are accepted.
    ready: Told,
}

/// Somebody to be told something. An error is for the log.
pub(crate) type Told = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// How long its owner gets to close the sockets.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A server that has not begun.
pub(crate) struct Server {
    supervision: Arc<Supervision>,
    front: Arc<Own>,
    app: Option<Py<PyAny>>,
}

impl Server {
    /// A server of `config` with these sockets, which `opening` has listen; `closing` has nobody come to them any more,
    /// while who has come can still be let in. `ready` hears that it accepts connections. With `app`, an application of
    /// this process, nothing is imported, and the process goes on when the server has ended.
    pub(crate) fn new(
        config: Config,
        network: NetworkConfig,
        listeners: Vec<OwnedFd>,
        [opening, ready, closing]: [Told; 3],
        app: Option<Py<PyAny>>,
    ) -> Result<Self, String> {
        let front = Arc::new(Own {
            thread: Mutex::default(),
            listeners: Mutex::new(listeners),
            opening,
            closing,
            ready,
        });
        let stop = match app {
            Some(_) => Stop::of_guest(),
            None => Stop::default(),
        };
        let stop = Arc::new(stop);
        let supervision = Supervision::new(front.clone(), stop, Arc::new(config), 1)?;
        let thread = NetworkThread::start(supervision.process.clone(), network);
        let thread = thread.map_err(|error| format!("no network: {error}"))?;
        *front.thread.lock() = Some(Arc::new(thread));
        Ok(Self {
            supervision,
            front,
            app,
        })
    }

    /// Stops it gracefully.
    pub(crate) fn stop(&self) {
        self.supervision.stop.request();
    }

    /// Stops it without waiting for requests, or for the application's shutdown.
    pub(crate) fn abort(&self) {
        self.supervision.stop.abort();
    }

    /// Why it has not started.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.supervision.failure()
    }

    /// Serves on this thread until it has been stopped. `loaded` hears, on this thread, that the applications are
    /// imported. Returns the exit code.
    pub(crate) fn run(&self, py: Python<'_>, loaded: Told) -> Result<i32, String> {
        let supervision = &self.supervision;
        let process: &Arc<Process> = &supervision.process;
        let app_dir = server::app_dir(&process.config)?;
        let (started, outcome) = mpsc::channel();
        let first = server::loop_start(&supervision.stop, process, 0, {
            let (config, supervision) = (process.config.clone(), supervision.clone());
            let app = self.app.as_ref().map(|app| app.clone_ref(py));
            move |py: Python<'_>| {
                let apps = app::load_all(py, &config, &app_dir.to_string_lossy(), app);
                supervision.look_at_logging(py);
                let apps = apps?;
                loaded()?;
                Ok(apps)
            }
        });
        let begun = std::thread::Builder::new()
            .name("aiovoy-start".into())
            .spawn({
                let supervision = supervision.clone();
                move || match LoopThread::wait_for(&outcome) {
                    Ok(started) => supervision.begin(vec![started]),
                    Err(message) => {
                        log::error!("{message}");
                        supervision.has_failed(&message);
                        supervision.stop.fail(NOT_STARTED);
                        supervision.stop.complete();
                    }
                }
            });
        begun.map_err(|error| format!("no thread for the start: {error}"))?;
        event_loop::run(py, first, &started);
        let stop = &supervision.stop;
        if !py.detach(|| stop.wait_for_end()) {
            stop.give_up("the server does not end", 2 * END_GRACE);
        }
        py.detach(|| supervision.python_ends());
        let thread = self.front.thread.lock().take();
        if let Some(thread) = thread.and_then(Arc::into_inner) {
            py.detach(|| thread.end());
        }
        leftovers::remove();
        Ok(stop.exit_code())
    }
}

impl Own {
    fn thread(&self) -> Option<Arc<NetworkThread>> {
        self.thread.lock().clone()
    }
}

impl Front for Own {
    fn open(&self) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        if let Err(error) = (self.opening)() {
            log::error!("{error}");
        }
        if let Some(thread) = self.thread() {
            thread.open(listeners);
        }
    }

    fn opened<'a>(&'a self, _: &'a Config) -> BoxFuture<'a, ()> {
        // Orders are obeyed in their order.
        let told = self.gauges().map(|_| (self.ready)());
        told.map(|told| told.unwrap_or_else(|error| log::error!("{error}")))
            .boxed()
    }

    fn close<'a>(&'a self, _: &'a Config) -> BoxFuture<'a, Result<(), String>> {
        async {
            let closing = self.closing.clone();
            // It may have to wait for the GIL, which nobody here does.
            let closed = tokio::task::spawn_blocking(move || closing());
            let closed = tokio::time::timeout(CLOSE_GRACE, closed).await;
            if let Some(thread) = self.thread() {
                thread.close();
            }
            match closed {
                Ok(Ok(closed)) => closed,
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the port is open still: nobody has the time to close it".into()),
            }
        }
        .boxed()
    }

    fn pause(&self, wanted: bool) {
        if let Some(thread) = self.thread() {
            thread.pause(wanted);
        }
    }

    fn gauges(&self) -> BoxFuture<'_, Gauges> {
        async {
            let Some(thread) = self.thread() else {
                return Gauges::default();
            };
            let load = thread.load().await;
            Gauges {
                accepts: load.accepts,
                connections: load.connections as u64,
                buffered: load.is_unwritten,
            }
        }
        .boxed()
    }

    /// Python's main thread goes on by itself.
    fn end(&self) {}
}

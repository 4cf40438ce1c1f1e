//! Runs on: Envoy's main thread for the hooks, tokio for what waits.
//!
//! The life of the server in Envoy: the bootstrap extension, and Envoy as the front.
//!
//! ```text
//! new_bootstrap_extension   interpreter, loops, application imported     (Envoy waits)
//!         │
//!     supervise             see `server`                                 (tokio)
//!         │
//!   signal_init_complete    Envoy opens its listeners                    (main)
//!         │
//!   ShutdownCompletion      Envoy ends its workers                       (main)
//!         │
//!     on_destroy            Python ends
//! ```

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Instant;

use envoy::{BootstrapExtension, BootstrapScheduler, EnvoyBootstrap, ShutdownCompletion};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::{oneshot, watch};

use super::front::{Front, GAUGE_INTERVAL, Gauges};
use super::server::{self, Supervision};
use super::stop::{ECHO, END_GRACE, NOT_STARTED, Stop, abort, give_up, until};
use super::{admin, leftovers, runtime};
use crate::app::event_loop::{self, LoopThread};
use crate::app::python::app;
use crate::app::python::main_thread::MainThread;
use crate::config::Config;
use crate::exchange::Process;

/// Events of the bootstrap scheduler.
const STARTED: u64 = 1;
const READ_GAUGES: u64 = 2;

/// The bootstrap extension.
pub(crate) struct Server {
    supervision: Arc<Supervision>,
    front: Arc<Envoy>,
    python: Cell<Option<MainThread>>,
}

/// Envoy, as the front.
struct Envoy {
    scheduler: BootstrapScheduler,
    gauge_readers: Mutex<Vec<oneshot::Sender<Gauges>>>,
    /// Its main thread waits for our end, and does nothing else any more.
    ends: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the first signal came.
    signalled: Option<Instant>,
    complete: bool,
    waiting: Vec<ShutdownCompletion>,
}

impl Server {
    /// Starts Python, the loops and the application of `config`.
    pub(crate) fn start(
        envoy: &EnvoyBootstrap<'_>,
        config: Config,
    ) -> Result<(Self, Arc<Process>), String> {
        let stop = Arc::new(Stop::default());
        let front = Arc::new(Envoy {
            scheduler: envoy.new_scheduler(),
            gauge_readers: Mutex::default(),
            ends: watch::Sender::default(),
            state: Mutex::default(),
        });
        let workers = envoy::concurrency().max(1);
        let supervision = Supervision::new(front.clone(), stop, Arc::new(config), workers)?;
        let process = supervision.process.clone();
        let (python, loops) = start_python(&supervision).inspect_err(|_| {
            if supervision.has_launcher() {
                // Envoy would add lines of its own, which say nothing to who wrote the application.
                leftovers::exit_now(NOT_STARTED);
            }
        })?;
        supervision.begin(loops);
        let server = Self {
            supervision,
            front,
            python: Cell::new(Some(python)),
        };
        Ok((server, process))
    }
}

/// Starts Python on a thread of its own, and a loop for each worker. The launcher has heard of an error.
fn start_python(supervision: &Arc<Supervision>) -> Result<(MainThread, Vec<LoopThread>), String> {
    let (stop, process) = (&supervision.stop, &supervision.process);
    let failed = |message: &String| {
        if supervision.has_failed(message) {
            log::error!("{message}");
        }
    };
    let config = &process.config;
    let app_dir = server::app_dir(config).inspect_err(failed)?;
    let (started, outcome) = mpsc::channel();
    let first = server::loop_start(stop, process, 0, {
        let (supervision, app_dir) = (supervision.clone(), app_dir.clone());
        move |py: Python<'_>| {
            let config = &supervision.process.config;
            let apps = app::load_all(py, config, &app_dir.to_string_lossy(), None);
            supervision.look_at_logging(py);
            apps
        }
    });
    let python = MainThread::start(config.clone(), app_dir, move |py| {
        event_loop::run(py, first, &started);
    })
    .inspect_err(failed)?;
    let mut loops: Vec<LoopThread> = Vec::new();
    for index in 0..process.workers().len() {
        let started = match loops.first() {
            None => LoopThread::wait_for(&outcome),
            // The first loop has imported the applications; the others share them.
            Some(first) => {
                let apps = Python::attach(|py| first.dispatcher.get().apps(py));
                let start = server::loop_start(stop, process, index, |_: Python<'_>| Ok(apps));
                LoopThread::start(index, start)
            }
        };
        match started {
            Ok(started) => loops.push(started),
            Err(error) => {
                runtime::get().block_on(server::stop_loops(loops));
                // By `logging`, if it takes that.
                failed(&error);
                supervision.python_ends();
                python.end(END_GRACE);
                return Err(error);
            }
        }
    }
    Ok((python, loops))
}

impl BootstrapExtension for Server {
    fn on_shutdown(&self, _: &EnvoyBootstrap<'_>, done: ShutdownCompletion) {
        {
            let mut state = self.front.state.lock();
            if state.complete {
                drop(state);
                return done.complete();
            }
            state.waiting.push(done);
            let first = *state.signalled.get_or_insert_with(Instant::now);
            if first.elapsed() >= ECHO {
                abort();
            }
        }
        self.supervision.stop.request();
    }

    fn on_scheduled(&self, envoy: &EnvoyBootstrap<'_>, event: u64) {
        match event {
            STARTED => envoy.signal_init_complete(),
            READ_GAUGES => {
                let gauges = read_gauges(envoy);
                for reader in self.front.gauge_readers.lock().drain(..) {
                    // A reader that ran out of time has gone.
                    let _ = reader.send(gauges);
                }
            }
            _ => {}
        }
    }

    fn on_destroy(&self) {
        // Without a shutdown before it, Envoy has not come up: it has failed, which it has told, or
        // got a signal. What has started ends all the same.
        self.front.ends.send_replace(true);
        let stop = &self.supervision.stop;
        stop.request();
        if !envoy::waiting(|| stop.wait_for_end()) {
            give_up(
                "the server has not come up, and does not end",
                2 * END_GRACE,
            );
        }
        self.supervision.python_ends();
        if let Some(python) = self.python.take()
            && !python.end(END_GRACE)
        {
            give_up(
                "`atexit` functions or threads of the application do not end",
                END_GRACE,
            );
        }
        let code = stop.exit_code();
        if code != 0 {
            // Envoy itself would exit with 0 after an orderly end.
            leftovers::exit_now(code);
        }
        leftovers::remove();
        watch_envoy(|| true);
    }
}

impl Front for Envoy {
    fn open(&self) {
        self.scheduler.commit(STARTED);
    }

    fn opened<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, ()> {
        async {
            while !self.gauges().await.accepts {
                tokio::time::sleep(GAUGE_INTERVAL).await;
            }
            if config.log_refusals
                && let Some(address) = &config.admin
                && let Err(error) = admin::log_info(address).await
            {
                log::warn!(
                    "the log does not say what is refused: Envoy's admin at `{address}`: {error}"
                );
            }
        }
        .boxed()
    }

    fn close<'a>(&'a self, config: &'a Config) -> BoxFuture<'a, Result<(), String>> {
        async {
            let Some(address) = &config.admin else {
                return Ok(());
            };
            let stopped = self.unless_it_ends(admin::stop_listening(address)).await;
            stopped.unwrap_or(Ok(())).map_err(|error| {
                format!("Envoy still accepts connections: its admin at `{address}`: {error}")
            })
        }
        .boxed()
    }

    /// Its overload manager looks at a file of the launcher's for that.
    fn pause(&self, _: bool) {}

    /// Read on Envoy's main thread once its main loop runs.
    fn gauges(&self) -> BoxFuture<'_, Gauges> {
        let (sender, gauges) = oneshot::channel();
        self.gauge_readers.lock().push(sender);
        self.scheduler.commit(READ_GAUGES);
        async {
            let gauges = self.unless_it_ends(gauges).await;
            gauges.and_then(Result::ok).unwrap_or_default()
        }
        .boxed()
    }

    /// Envoy goes on with its own end, or is told to begin it.
    fn end(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.complete = true;
            std::mem::take(&mut state.waiting)
        };
        let ends = self.ends.subscribe();
        watch_envoy(move || !*ends.borrow());
        if waiting.is_empty() && !*self.ends.borrow() {
            // Nothing but a signal begins an orderly end of Envoy.
            let process = rustix::process::getpid();
            let signal = rustix::process::Signal::TERM;
            if let Err(error) = rustix::process::kill_process(process, signal) {
                log::error!("Envoy could not be told to end: {error}");
            }
        }
        waiting.into_iter().for_each(ShutdownCompletion::complete);
    }
}

impl Envoy {
    /// What `future` gives; `None` once Envoy's main thread waits for our end.
    async fn unless_it_ends<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            output = future => Some(output),
            () = until(&self.ends) => None,
        }
    }
}

fn read_gauges(envoy: &EnvoyBootstrap<'_>) -> Gauges {
    let mut gauges = Gauges::default();
    envoy.for_each_gauge(|name, value| {
        if name == "listener_manager.workers_started" {
            gauges.accepts = value == 1;
        } else if name.starts_with("http.") && !name.starts_with("http.admin.") {
            // Those of every connection manager, whatever its `stat_prefix`.
            if name.ends_with(".downstream_cx_active") {
                gauges.connections += value;
            } else if name.ends_with(".downstream_cx_tx_bytes_buffered") {
                gauges.buffered |= value > 0;
            }
        }
    });
    gauges
}

/// Ends the process in a while if Envoy, whose turn it is, has not gone on by then.
fn watch_envoy(is_stuck: impl FnOnce() -> bool + Send + 'static) {
    let watch = std::thread::Builder::new().name("aiovoy-end".into());
    let watch = watch.spawn(|| {
        std::thread::sleep(END_GRACE);
        if is_stuck() {
            give_up(
                "Envoy does not end, perhaps because nobody reads what it logs",
                END_GRACE,
            );
        }
    });
    if let Err(error) = watch {
        log::warn!("nothing bounds the end of Envoy: no thread for it: {error}");
    }
}

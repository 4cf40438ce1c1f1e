//! Runs on: Envoy's main thread for the hooks, tokio for the supervision.
//!
//! The life of the server, from the bootstrap extension's configuration to the end of Python.
//!
//! ```text
//! new_bootstrap_extension   interpreter, loops, application imported     (Envoy waits)
//!         │
//!     supervise             lifespan.startup on every loop               (tokio)
//!         │                       │ failed ──▶ exit code 3, stop
//!         │                 the launcher says `listen`
//!   signal_init_complete    Envoy opens its listeners                    (main)
//!         │
//!       serve               until SIGTERM, SIGINT, or the launcher's word
//!         │
//!       drain               stop listening, wait for what is in flight   (tokio)
//!         │                 lifespan.shutdown, loops end
//!   ShutdownCompletion      Envoy ends its workers                       (main)
//!         │
//!     on_destroy            Python ends
//! ```

use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use envoy::{BootstrapExtension, BootstrapScheduler, EnvoyBootstrap, ShutdownCompletion};
use futures::future::join_all;
use parking_lot::Mutex;
use pyo3::prelude::*;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::control::Event;
use super::gauges::{GAUGE_INTERVAL, Gauges};
use super::launcher::Launcher;
use super::leftovers;
use super::stop::{END_GRACE, Signal, Stop, abort, give_up, watch_envoy};
use super::{admin, runtime};
use crate::app::asgi::lifespan::Lifespans;
use crate::app::event_loop::{self, LoopStart, LoopThread};
use crate::app::python::app;
use crate::app::python::main_thread::MainThread;
use crate::config::Config;
use crate::exchange::{Process, Worker};

/// Exit code when the application's lifespan fails, as uvicorn's.
const LIFESPAN_FAILED: i32 = 3;
/// Exit code when an event loop fails.
const FAILED: i32 = 1;

/// Events of the bootstrap scheduler.
const STARTED: u64 = 1;
const READ_GAUGES: u64 = 2;

/// The bootstrap extension.
pub(crate) struct Server {
    shared: Arc<Shared>,
    python: Cell<Option<MainThread>>,
}

/// What the main thread and the supervision share.
pub(super) struct Shared {
    pub(super) process: Arc<Process>,
    launcher: Arc<Launcher>,
    scheduler: BootstrapScheduler,
    pub(super) stop: Arc<Stop>,
    gauge_readers: Mutex<Vec<oneshot::Sender<Gauges>>>,
}

impl Server {
    /// Starts Python, the loops and the application of `config`.
    pub(crate) fn start(
        envoy: &EnvoyBootstrap<'_>,
        config: Config,
    ) -> Result<(Self, Arc<Process>), String> {
        leftovers::know();
        let stop = Arc::new(Stop::default());
        let launcher = Launcher::connect(stop.clone())?;
        let started = Self::start_python(&Arc::new(config), &stop);
        let (python, process, loops) =
            started.inspect_err(|message| launcher.tell(&Event::Failed { message }))?;
        launcher.know(process.clone());
        let shared = Arc::new(Shared {
            process: process.clone(),
            launcher,
            scheduler: envoy.new_scheduler(),
            stop,
            gauge_readers: Mutex::default(),
        });
        shared.stop.supervise();
        runtime::get().spawn(shared.clone().supervise(loops));
        let python = Cell::new(Some(python));
        Ok((Self { shared, python }, process))
    }

    fn start_python(
        config: &Arc<Config>,
        stop: &Arc<Stop>,
    ) -> Result<(MainThread, Arc<Process>, Vec<LoopThread>), String> {
        let app_dir = app_dir(config)?;
        let workers = (0..envoy::concurrency().max(1)).map(|_| Arc::<Worker>::default());
        let tokio = runtime::get().handle().clone();
        let process = Arc::new(Process::new(config.clone(), tokio, workers.collect()));
        runtime::serve_python();
        let (started, outcome) = mpsc::channel();
        let first = loop_start(stop, &process, 0, {
            let (config, app_dir) = (config.clone(), app_dir.clone());
            move |py: Python<'_>| app::load_all(py, &config, &app_dir.to_string_lossy())
        });
        let python = MainThread::start(config.clone(), app_dir, move |py| {
            event_loop::run(py, first, &started);
        })?;
        let mut loops: Vec<LoopThread> = Vec::new();
        for index in 0..process.workers().len() {
            let started = match loops.first() {
                None => LoopThread::wait_for(&outcome),
                // The first loop has imported the applications; the others share them.
                Some(first) => {
                    let apps = Python::attach(|py| first.dispatcher.get().apps(py));
                    let start = loop_start(stop, &process, index, |_: Python<'_>| Ok(apps));
                    LoopThread::start(index, start)
                }
            };
            match started {
                Ok(started) => loops.push(started),
                Err(error) => {
                    runtime::get().block_on(stop_loops(loops));
                    python.end(END_GRACE);
                    return Err(error);
                }
            }
        }
        Ok((python, process, loops))
    }
}

/// The start of the loop of worker `index`. If that fails, the server stops.
fn loop_start<A>(stop: &Arc<Stop>, process: &Arc<Process>, index: usize, apps: A) -> LoopStart<A> {
    let stop = stop.clone();
    LoopStart {
        worker: process.workers()[index].clone(),
        process: process.clone(),
        apps,
        failed: Arc::new(move |error| {
            log::error!("an event loop has failed: its Envoy ends\n{error}");
            stop.fail(FAILED);
        }),
    }
}

impl BootstrapExtension for Server {
    fn on_shutdown(&self, _: &EnvoyBootstrap<'_>, done: ShutdownCompletion) {
        if self.shared.stop.signalled(done) == Signal::Second {
            abort();
        }
    }

    fn on_scheduled(&self, envoy: &EnvoyBootstrap<'_>, event: u64) {
        match event {
            STARTED => envoy.signal_init_complete(),
            READ_GAUGES => {
                let gauges = Gauges::read(envoy);
                for reader in self.shared.gauge_readers.lock().drain(..) {
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
        if !self.shared.stop.destroyed() {
            give_up(
                "the server has not come up, and does not end",
                2 * END_GRACE,
            );
        }
        self.shared.launcher.python_ends();
        if let Some(python) = self.python.take()
            && !python.end(END_GRACE)
        {
            give_up(
                "`atexit` functions or threads of the application do not end",
                END_GRACE,
            );
        }
        let code = self.shared.stop.exit_code();
        if code != 0 {
            // Envoy itself would exit with 0 after an orderly end.
            leftovers::exit_now(code);
        }
        leftovers::remove();
        watch_envoy(|| true);
    }
}

impl Shared {
    async fn supervise(self: Arc<Self>, loops: Vec<LoopThread>) {
        let startup = tokio::select! {
            startup = self.startup(&loops) => Some(startup),
            // A signal during start-up: nothing is served yet, so nothing is drained, and the
            // end of the loops cancels what has begun.
            () = self.stop.requested() => None,
        };
        match startup {
            None => {}
            Some(Ok(lifespans)) => {
                let may_listen = tokio::select! {
                    () = self.launcher.may_listen() => true,
                    () = self.stop.requested() => false,
                };
                if may_listen {
                    self.serve(&loops).await;
                    self.drain(&loops).await;
                }
                self.shutdown_lifespans(&loops, &lifespans).await;
            }
            Some(Err(message)) => {
                log::error!("{message}");
                self.launcher.tell(&Event::Failed { message: &message });
                self.stop.fail(LIFESPAN_FAILED);
            }
        }
        // Before its main loop runs, which this waits for, Envoy handles no signal.
        self.gauges().await;
        if timeout(END_GRACE, stop_loops(loops)).await.is_err() {
            give_up(
                "application code holds an event loop or its threads",
                END_GRACE,
            );
        }
        self.stop.complete();
    }

    /// Has Envoy open its listeners, and waits until the server is to stop.
    async fn serve(&self, loops: &[LoopThread]) {
        self.scheduler.commit(STARTED);
        tokio::select! {
            () = self.announce(loops) => self.stop.requested().await,
            () = self.stop.requested() => {}
        }
    }

    /// Starts the applications on each loop. If one fails, those that have started are shut down.
    async fn startup(&self, loops: &[LoopThread]) -> Result<Vec<Lifespans>, String> {
        let startups = loops
            .iter()
            .map(|thread| Lifespans::startup(&self.process.config, thread));
        let (lifespans, outcomes): (Vec<_>, Vec<_>) = join_all(startups).await.into_iter().unzip();
        // What fails on one loop is likely to fail on all, and is told once.
        match outcomes.into_iter().find_map(Result::err) {
            None => Ok(lifespans),
            Some(message) => {
                self.shutdown_lifespans(loops, &lifespans).await;
                Err(message)
            }
        }
    }

    /// Tells the launcher once Envoy accepts connections.
    async fn announce(&self, loops: &[LoopThread]) {
        while !self.gauges().await.workers_started {
            tokio::time::sleep(GAUGE_INTERVAL).await;
        }
        loops[0].handle_signals_again();
        if self.process.config.log_refusals
            && let Some(address) = &self.process.config.admin
            && let Err(error) = admin::log_info(address).await
        {
            log::warn!(
                "the log does not say what is refused: Envoy's admin at `{address}`: {error}"
            );
        }
        let python = Python::version_str();
        self.launcher.tell(&Event::Ready {
            python: python.split_whitespace().next().unwrap_or_default(),
            workers: loops.len(),
            event_loop: self.process.config.event_loop.name(),
        });
    }

    async fn shutdown_lifespans(&self, loops: &[LoopThread], lifespans: &[Lifespans]) {
        let shutdowns = loops
            .iter()
            .zip(lifespans)
            .map(|(thread, lifespan)| lifespan.shutdown(thread));
        // A time-out that is meant to cut requests short still leaves the application its end.
        let limit = self.process.config.timeout_graceful_shutdown.max(END_GRACE);
        match timeout(limit, join_all(shutdowns)).await {
            Ok(outcomes) => {
                for message in outcomes.into_iter().flatten() {
                    log::error!("{message}");
                    self.stop.fail(LIFESPAN_FAILED);
                }
            }
            Err(_) => {
                log::error!(
                    "application shutdown has not ended after {} s: given up",
                    limit.as_secs_f64()
                );
                self.stop.fail(LIFESPAN_FAILED);
            }
        }
    }

    /// Envoy's gauges, read on its main thread once its main loop runs; nothing is left of them
    /// when Envoy ends.
    pub(super) async fn gauges(&self) -> Gauges {
        let (sender, gauges) = oneshot::channel();
        self.gauge_readers.lock().push(sender);
        self.scheduler.commit(READ_GAUGES);
        let gauges = self.unless_destroyed(gauges).await;
        gauges.and_then(Result::ok).unwrap_or_default()
    }

    /// What `future` gives; `None` once Envoy's main thread waits for our end, and does nothing
    /// else any more.
    pub(super) async fn unless_destroyed<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            output = future => Some(output),
            () = self.stop.envoy_ends() => None,
        }
    }
}

async fn stop_loops(loops: Vec<LoopThread>) {
    join_all(loops.iter().map(LoopThread::stop)).await;
}

/// The absolute path of the folder, or zip archive, with the application's modules.
fn app_dir(config: &Config) -> Result<PathBuf, String> {
    let directory = config.app_dir.clone().unwrap_or_else(|| PathBuf::from("."));
    directory
        .canonicalize()
        .map_err(|error| format!("`app_dir` is `{}`: {error}", directory.display()))
}

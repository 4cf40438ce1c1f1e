//! Runs on: tokio, but for [`Supervision::start`].
//!
//! The life of the server, from its configuration to the end of the loops.
//!
//! ```text
//!      start                loops, application imported
//!        │
//!     supervise             lifespan.startup on every loop
//!        │                        │ failed ──▶ exit code 3, stop
//!        │                  the launcher says `listen`
//!        │                  the front lets clients in
//!      serve                until SIGTERM, SIGINT, or the launcher's word
//!        │
//!      drain                stop listening, wait for what is in flight
//!        │                  lifespan.shutdown, loops end
//!     complete              the front ends, and Python
//! ```

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use futures::future::join_all;
use pyo3::prelude::*;
use tokio::time::timeout;

use super::control::Event;
use super::front::AnyFront;
use super::launcher::Launcher;
use super::stop::{END_GRACE, Stop};
use super::{leftovers, runtime};
use crate::app::asgi::lifespan::Lifespans;
use crate::app::event_loop::{LoopStart, LoopThread};
use crate::app::python::log::{self as python_log};
use crate::config::{Config, LogForm};
use crate::exchange::{Process, Worker};

/// Exit code when the application's lifespan fails, as uvicorn's.
const LIFESPAN_FAILED: i32 = 3;
/// Exit code when an event loop fails.
const FAILED: i32 = 1;

/// What the supervision and the process's main thread share.
pub(super) struct Supervision {
    pub(super) process: Arc<Process>,
    launcher: Arc<Launcher>,
    pub(super) front: AnyFront,
    pub(super) stop: Arc<Stop>,
    failure: OnceLock<String>,
}

impl Supervision {
    /// A server of `config` with so many workers, before its loops have started.
    pub(super) fn new(
        front: AnyFront,
        stop: Arc<Stop>,
        config: Arc<Config>,
        workers: u32,
    ) -> Result<Arc<Self>, String> {
        leftovers::know();
        envoy::set_log_form(match config.log_form {
            LogForm::Envoys => envoy::LogForm::Envoys,
            LogForm::Text => envoy::LogForm::Text,
            LogForm::Colored => envoy::LogForm::Colored,
            LogForm::Json => envoy::LogForm::Json,
        });
        let launcher = Launcher::connect(stop.clone())?;
        let workers = (0..workers).map(|_| Arc::<Worker>::default());
        let tokio = runtime::get().handle().clone();
        let process = Arc::new(Process::new(config, tokio, workers.collect()));
        runtime::serve_python();
        Ok(Arc::new(Self {
            process,
            launcher,
            front,
            stop,
            failure: OnceLock::new(),
        }))
    }

    /// Supervises the loops, which have started.
    pub(super) fn begin(self: &Arc<Self>, loops: Vec<LoopThread>) {
        self.launcher.know(self.process.clone(), self.front.clone());
        self.stop.supervise();
        runtime::get().spawn(self.clone().supervise(loops));
    }

    /// The applications have not started. Says whether there is a launcher, which knows now.
    pub(super) fn has_failed(&self, message: &str) -> bool {
        // A server starts once.
        let _ = self.failure.set(message.to_owned());
        self.launcher.tell(&Event::Failed { message });
        self.launcher.is_there()
    }

    pub(super) fn has_launcher(&self) -> bool {
        self.launcher.is_there()
    }

    /// Why the server has not started.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Python is about to end, unless the process is somebody else's: nobody wants anything of it any more. The calling
    /// thread must not be attached to it.
    pub(super) fn python_ends(&self) {
        if self.stop.is_guest() {
            return;
        }
        python_log::end(END_GRACE);
        self.launcher.python_ends();
    }

    /// Looks at what the application has made of `logging`, in which it may have begun only now.
    pub(super) fn look_at_logging(&self, py: Python<'_>) {
        let logging = python_log::look(py);
        let config = &self.process.config;
        let takes_requests = config.log_requests && logging.takes_requests;
        let logs_requests = &self.process.app_logs_requests;
        let took_requests = logs_requests.swap(takes_requests, Ordering::Relaxed);
        if logging.is_json || takes_requests != took_requests {
            self.launcher.tell(&Event::Logs {
                json: logging.is_json,
                requests: takes_requests,
            });
        }
    }

    async fn supervise(self: Arc<Self>, loops: Vec<LoopThread>) {
        let startup = tokio::select! {
            startup = self.startup(&loops) => Some(startup),
            // A signal during start-up: nothing is served yet, so nothing is drained, and the
            // end of the loops cancels what has begun.
            () = self.stop.requested() => None,
        };
        match startup {
            None => {}
            Some(Ok(lifespans)) => tokio::select! {
                () = self.live(&loops, &lifespans) => {}
                () = self.stop.aborted() => {}
            },
            Some(Err(message)) => {
                log::error!("{message}");
                self.has_failed(&message);
                self.stop.fail(LIFESPAN_FAILED);
            }
        }
        // Before Envoy's main loop runs, which this waits for, it handles no signal.
        self.front.gauges().await;
        if timeout(END_GRACE, stop_loops(loops)).await.is_err() {
            self.stop.give_up(
                "application code holds an event loop or its threads",
                END_GRACE,
            );
        }
        self.stop.complete();
        self.front.end();
    }

    /// From the start of the applications to their orderly end.
    async fn live(&self, loops: &[LoopThread], lifespans: &[Lifespans]) {
        let may_listen = tokio::select! {
            () = self.launcher.may_listen() => true,
            () = self.stop.requested() => false,
        };
        if may_listen {
            self.serve(loops).await;
            self.drain(loops).await;
        }
        self.shutdown_lifespans(loops, lifespans).await;
    }

    /// Has the front let clients in, and waits until the server is to stop.
    async fn serve(&self, loops: &[LoopThread]) {
        self.front.open();
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
        Python::attach(|py| self.look_at_logging(py));
        match outcomes.into_iter().find_map(Result::err) {
            None => Ok(lifespans),
            Some(message) => {
                self.shutdown_lifespans(loops, &lifespans).await;
                Err(message)
            }
        }
    }

    /// Tells the launcher once connections are accepted.
    async fn announce(&self, loops: &[LoopThread]) {
        self.front.opened(&self.process.config).await;
        loops[0].handle_signals_again();
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
}

/// The start of the loop of worker `index`. If that fails, the server stops.
pub(super) fn loop_start<A>(
    stop: &Arc<Stop>,
    process: &Arc<Process>,
    index: usize,
    apps: A,
) -> LoopStart<A> {
    let stop = stop.clone();
    LoopStart {
        worker: process.workers()[index].clone(),
        process: process.clone(),
        apps,
        failed: Arc::new(move |error| {
            log::error!("an event loop has failed: its server ends\n{error}");
            stop.fail(FAILED);
        }),
    }
}

pub(super) async fn stop_loops(loops: Vec<LoopThread>) {
    join_all(loops.iter().map(LoopThread::stop)).await;
}

/// The absolute path of the folder, or zip archive, with the application's modules.
pub(super) fn app_dir(config: &Config) -> Result<PathBuf, String> {
    let directory = config.app_dir.clone().unwrap_or_else(|| PathBuf::from("."));
    directory
        .canonicalize()
        .map_err(|error| format!("`app_dir` is `{}`: {error}", directory.display()))
}

//! Runs on: any thread.
//!
//! What all workers of the process share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;

use super::in_flight::InFlight;
use super::worker::Worker;
use crate::config::Config;

/// The workers of this process, what they go by, and what is in flight on them.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) config: Arc<Config>,
    /// Runs what waits for something else than a request.
    pub(crate) tokio: Handle,
    workers: Vec<Arc<Worker>>,
    pub(crate) in_flight: InFlight,
    /// The application's side logs the requests that it answers. Set before the first of them.
    pub(crate) app_logs_requests: AtomicBool,
}

impl Process {
    pub(crate) fn new(config: Arc<Config>, tokio: Handle, workers: Vec<Arc<Worker>>) -> Self {
        Self {
            config,
            tokio,
            workers,
            in_flight: InFlight::default(),
            app_logs_requests: AtomicBool::default(),
        }
    }

    /// The worker of an Envoy worker thread, by the index that Envoy gives it.
    pub(crate) fn worker(&self, index: u32) -> Arc<Worker> {
        self.workers[index as usize].clone()
    }

    pub(crate) fn workers(&self) -> &[Arc<Worker>] {
        &self.workers
    }
}

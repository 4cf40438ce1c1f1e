//! Runs on: any thread.
//!
//! [`Scheduler`]: posts an event back to the filter's Envoy worker thread.

use std::ptr::NonNull;

use super::EnvoyFilter;
use crate::sys;

/// Has [`on_scheduled`](super::HttpFilter::on_scheduled) of one stream called on its thread.
///
/// It does not keep the stream alive. Stop using schedulers before Envoy ends its worker threads,
/// that is, before the [`ShutdownCompletion`](crate::ShutdownCompletion) is completed.
#[derive(Debug)]
pub struct Scheduler {
    /// `None` if the stream was over when the scheduler was asked for.
    raw: Option<NonNull<sys::HttpFilterScheduler>>,
}

// SAFETY: Envoy's `http_filter_scheduler_commit` and `http_filter_scheduler_delete`, the only
// functions called with the pointer, may be called from any thread.
unsafe impl Send for Scheduler {}

// SAFETY: of those, `&Scheduler` gives `commit` only, which may run on several threads at once.
unsafe impl Sync for Scheduler {}

impl Scheduler {
    pub(super) fn new(envoy: &EnvoyFilter<'_>) -> Self {
        // SAFETY: the filter is live while it is lent, and this is its thread.
        let raw = unsafe { sys::http_filter_scheduler_new(envoy.raw()) };
        Self {
            raw: NonNull::new(raw),
        }
    }

    /// Posts `event`. It is dropped if the stream is over before it is delivered.
    pub fn commit(&self, event: u64) {
        if let Some(raw) = self.raw {
            // SAFETY: `raw` is live until `drop` deletes it.
            unsafe { sys::http_filter_scheduler_commit(raw.as_ptr(), event) }
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        if let Some(raw) = self.raw {
            // SAFETY: `raw` came from `http_filter_scheduler_new` and is deleted here only.
            unsafe { sys::http_filter_scheduler_delete(raw.as_ptr()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crosses_threads() {
        fn is_send_and_sync<T: Send + Sync>() {}
        is_send_and_sync::<Scheduler>();
    }
}

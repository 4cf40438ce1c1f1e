//! Runs on: the threads of either front.
//!
//! Says in the log what is refused, and why.

use std::borrow::Borrow;
use std::cell::Cell;
use std::time::{Duration, Instant};

use super::clock::now;
use crate::exchange::RequestHead;
use crate::exchange::escape::escaped;

/// How many lines a thread writes in a second. What is refused beyond them is counted only: a
/// client can have as much refused as it likes.
const LINES: u64 = 100;

/// Bytes of method and path that a line shows.
const SHOWN: usize = 500;

/// What a thread says in the log of what is refused.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    /// This second.
    since: Cell<Option<Instant>>,
    wanted: Cell<u64>,
}

impl RefusalLog {
    /// Logs a refusal of the request that `head` has, if it has any; `status` is none if the stream is reset.
    pub(crate) fn log<H: Borrow<RequestHead>>(
        &self,
        status: Option<u64>,
        reason: &[u8],
        head: impl FnOnce() -> Option<H>,
    ) {
        if !log::log_enabled!(log::Level::Info) {
            return;
        }
        let Some(left_out) = self.take() else {
            return;
        };
        if left_out > 0 {
            log::info!("{left_out} more were refused");
        }
        let Some(head) = head() else {
            return;
        };
        let head = head.borrow();
        let name = head.name();
        let name = match head.method.is_empty() {
            true => "no head",
            // CONNECT has no path.
            false => name[..name.len().min(SHOWN)].trim_end(),
        };
        let outcome = status.map_or_else(|| "a reset".to_owned(), |status| status.to_string());
        log::info!(
            "refused with {outcome} ({}): {name}, from {}",
            escaped(reason),
            escaped(&head.client.host)
        );
    }

    /// Whether there is a line left in this second; if so, how many wanted one in vain before it.
    fn take(&self) -> Option<u64> {
        let (since, now) = (self.since.get(), now());
        if since.is_some_and(|since| now.duration_since(since) < Duration::from_secs(1)) {
            self.wanted.set(self.wanted.get() + 1);
            return (self.wanted.get() <= LINES).then_some(0);
        }
        self.since.set(Some(now));
        Some(self.wanted.replace(1).saturating_sub(LINES))
    }
}

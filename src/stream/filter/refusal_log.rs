//! Runs on: Envoy worker thread.
//!
//! Says in the log what is refused, and why.

use std::cell::Cell;
use std::time::Duration;

use envoy::{AttributeId, EnvoyFilter};

use super::Filter;
use crate::exchange::escape::escaped;
use crate::stream::clock::Instant;

/// How many lines a worker writes in a second. What is refused beyond them is counted only: a
/// client can have as much refused as it likes.
const LINES: u64 = 100;

/// Bytes of method and path that a line shows.
const SHOWN: usize = 500;

/// The lines of this second.
#[derive(Default)]
pub(crate) struct Quota {
    since: Cell<Option<Instant>>,
    wanted: Cell<u64>,
}

impl Quota {
    /// Whether there is a line left; if so, how many wanted one in vain before.
    fn take(&self) -> Option<u64> {
        let since = self.since.get();
        if since.is_some_and(|since| since.elapsed() < Duration::from_secs(1)) {
            self.wanted.set(self.wanted.get() + 1);
            return (self.wanted.get() <= LINES).then_some(0);
        }
        self.since.set(Some(Instant::now()));
        Some(self.wanted.replace(1).saturating_sub(LINES))
    }
}

impl Filter {
    /// Logs a refusal, before it is answered; `status` is none if the stream is reset.
    pub(super) fn log_refusal(&self, envoy: &EnvoyFilter<'_>, status: Option<u64>, reason: &[u8]) {
        if !log::log_enabled!(log::Level::Info) {
            return;
        }
        let Some(left_out) = self.streams.refusals.take() else {
            return;
        };
        if left_out > 0 {
            log::info!("{left_out} more were refused");
        }
        let Some(head) = self.read_head_again(envoy) else {
            return;
        };
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

    /// Logs what Envoy, or another filter, has refused, if that is how the stream ends. The status of a
    /// response that has `begun` is not theirs.
    pub(super) fn log_end(&self, envoy: &EnvoyFilter<'_>, begun: bool) {
        let faulty = envoy
            .attribute_int(AttributeId::ResponseFlags)
            .is_some_and(|flags| flags & PROTOCOL_ERROR != 0);
        let status = envoy.attribute_int(AttributeId::ResponseCode);
        let status = status.filter(|_| !begun);
        if faulty || status.is_some_and(|status| status >= 400) {
            let reason = envoy.attribute_bytes(AttributeId::ResponseCodeDetails);
            self.log_refusal(envoy, status, reason.unwrap_or_default());
        }
    }
}

/// Envoy's flag `DPE` among those of a response: the request breaks the protocol.
const PROTOCOL_ERROR: u64 = 1 << 18;

//! Runs on: Envoy worker thread.
//!
//! Says in the log what is refused, and why.

use envoy::{AttributeId, EnvoyFilter};

use super::Filter;

impl Filter {
    /// Logs a refusal, before it is answered; `status` is none if the stream is reset.
    pub(super) fn log_refusal(&self, envoy: &EnvoyFilter<'_>, status: Option<u64>, reason: &[u8]) {
        let refusals = &self.streams.refusals;
        refusals.log(status, reason, || self.read_head_again(envoy));
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

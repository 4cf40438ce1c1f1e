//! Runs on: Envoy worker thread.
//!
//! What access logs know of a request by the bridge: filter states `aiovoy.KEY`.

use envoy::EnvoyFilter;

use super::Filter;
use crate::admission::write_log_field;
use crate::exchange::RequestHead;

impl Filter {
    /// Sets what the access log asks for.
    pub(super) fn tell_access_log(&self, envoy: &EnvoyFilter<'_>, head: &RequestHead) {
        let fields = &self.streams.rules.access_log;
        if fields.is_empty() {
            return;
        }
        let mut value = self.streams.log_value.borrow_mut();
        for &field in fields {
            value.clear();
            write_log_field(field, head, &mut value);
            if !value.is_empty() {
                envoy.set_filter_state(field.key(), &value);
            }
        }
    }
}

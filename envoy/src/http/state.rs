//! Runs on: Envoy worker thread.
//!
//! What filters leave for each other, for routes and for access logs: dynamic metadata and filter state.

use super::EnvoyFilter;
use crate::sys::{self, EnvoyBuffer};

impl EnvoyFilter<'_> {
    /// Sets `key` of `namespace` in the stream's dynamic metadata, which routes can match.
    #[inline]
    pub fn set_dynamic_metadata(&self, namespace: &str, key: &str, value: &str) {
        // SAFETY: the filter is live while it is lent; Envoy copies what it is handed, all of
        // which outlives the call. Nothing that is lent out by `&self` is of dynamic metadata.
        unsafe {
            sys::http_set_dynamic_metadata_string(
                self.raw(),
                namespace.into(),
                key.into(),
                value.into(),
            );
        }
    }

    /// Sets the filter state `key` of the stream to a string, in place of what it was. For access logs it costs
    /// half of what dynamic metadata does.
    #[inline]
    pub fn set_filter_state(&self, key: &str, value: &[u8]) {
        // SAFETY: the filter is live while it is lent; Envoy copies what it is handed, all of which
        // outlives the call. Nothing that is lent out by `&self` is of filter state.
        let set = unsafe { sys::http_set_filter_state_bytes(self.raw(), key.into(), value.into()) };
        debug_assert!(set, "a filter state of Envoy's own can't be changed");
    }

    /// Has Envoy choose the route anew, by what is set now. Routes can match headers and dynamic metadata.
    pub fn clear_route_cache(&mut self) {
        // SAFETY: the filter is live while it is lent. What `&self` lends out is none of the route's.
        unsafe { sys::http_clear_route_cache(self.raw()) };
    }

    /// The filter state `key`, of the stream or else of its connection, if it is a string.
    #[inline]
    pub fn filter_state(&self, key: &str) -> Option<Vec<u8>> {
        let mut value = EnvoyBuffer::EMPTY;
        // SAFETY: the filter is live while it is lent; `key` and `value` outlive the call.
        let found =
            unsafe { sys::http_get_filter_state_bytes(self.raw(), key.into(), &raw mut value) };
        // SAFETY: Envoy wrote `value` as it answered true. The next such call may write over the
        // bytes where Envoy had to make them, so they are copied before.
        found.then(|| unsafe { value.as_bytes() }.to_vec())
    }
}

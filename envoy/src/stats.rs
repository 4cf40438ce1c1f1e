//! Runs on: Envoy main thread (define), Envoy worker thread (record).
//!
//! Counters, gauges and histograms, without labels: those are one atomic addition each, while a
//! labelled metric is looked up by a name put together at every call.
//!
//! Envoy publishes a metric as `<metrics_namespace>.<name>`, see `metrics_namespace` in the
//! filter's `dynamic_module_config`.

use std::ptr;

use crate::error::Error;
use crate::http::{EnvoyFilter, EnvoyFilterConfig};
use crate::sys;

/// A counter, as [`EnvoyFilterConfig::define_counter`] made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CounterId(usize);

/// A gauge, as [`EnvoyFilterConfig::define_gauge`] made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GaugeId(usize);

/// A histogram, as [`EnvoyFilterConfig::define_histogram`] made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HistogramId(usize);

impl EnvoyFilterConfig<'_> {
    /// A new counter. Its id serves the streams of this configuration.
    pub fn define_counter(&mut self, name: &str) -> Result<CounterId, Error> {
        let (labels, mut id) = (ptr::null_mut(), 0);
        // SAFETY: the configuration is live while it is lent; `name` and `id` outlive the call,
        // and no label is read as there are 0.
        let result = unsafe {
            sys::http_filter_config_define_counter(self.raw(), name.into(), labels, 0, &raw mut id)
        };
        Error::check_metric("http_filter_config_define_counter", result).map(|()| CounterId(id))
    }

    /// A new gauge. Its id serves the streams of this configuration.
    pub fn define_gauge(&mut self, name: &str) -> Result<GaugeId, Error> {
        let (labels, mut id) = (ptr::null_mut(), 0);
        // SAFETY: as in `define_counter`.
        let result = unsafe {
            sys::http_filter_config_define_gauge(self.raw(), name.into(), labels, 0, &raw mut id)
        };
        Error::check_metric("http_filter_config_define_gauge", result).map(|()| GaugeId(id))
    }

    /// A new histogram of integers. Its id serves the streams of this configuration.
    pub fn define_histogram(&mut self, name: &str) -> Result<HistogramId, Error> {
        let (labels, mut id) = (ptr::null_mut(), 0);
        // SAFETY: as in `define_counter`.
        let result = unsafe {
            sys::http_filter_config_define_histogram(
                self.raw(),
                name.into(),
                labels,
                0,
                &raw mut id,
            )
        };
        Error::check_metric("http_filter_config_define_histogram", result).map(|()| HistogramId(id))
    }
}

/// Recording works after the stream has ended too, up to and including its destruction. An id of
/// another configuration records nothing, or another metric: Envoy knows metrics by number.
impl EnvoyFilter<'_> {
    /// Adds `value` to a counter.
    #[inline]
    pub fn increment_counter(&self, counter: CounterId, value: u64) {
        let labels = ptr::null_mut();
        // SAFETY: the filter is live while it is lent; no label is read as there are 0.
        let result =
            unsafe { sys::http_filter_increment_counter(self.raw(), counter.0, labels, 0, value) };
        recorded("http_filter_increment_counter", result);
    }

    /// Sets a gauge.
    #[inline]
    pub fn set_gauge(&self, gauge: GaugeId, value: u64) {
        let labels = ptr::null_mut();
        // SAFETY: as in `increment_counter`.
        let result = unsafe { sys::http_filter_set_gauge(self.raw(), gauge.0, labels, 0, value) };
        recorded("http_filter_set_gauge", result);
    }

    /// Adds `value` to a gauge.
    #[inline]
    pub fn increment_gauge(&self, gauge: GaugeId, value: u64) {
        let labels = ptr::null_mut();
        // SAFETY: as in `increment_counter`.
        let result =
            unsafe { sys::http_filter_increment_gauge(self.raw(), gauge.0, labels, 0, value) };
        recorded("http_filter_increment_gauge", result);
    }

    /// Takes `value` off a gauge.
    #[inline]
    pub fn decrement_gauge(&self, gauge: GaugeId, value: u64) {
        let labels = ptr::null_mut();
        // SAFETY: as in `increment_counter`.
        let result =
            unsafe { sys::http_filter_decrement_gauge(self.raw(), gauge.0, labels, 0, value) };
        recorded("http_filter_decrement_gauge", result);
    }

    /// Adds a sample to a histogram.
    #[inline]
    pub fn record_histogram(&self, histogram: HistogramId, value: u64) {
        let labels = ptr::null_mut();
        // SAFETY: as in `increment_counter`.
        let result = unsafe {
            sys::http_filter_record_histogram_value(self.raw(), histogram.0, labels, 0, value)
        };
        recorded("http_filter_record_histogram_value", result);
    }
}

/// A statistic must not fail a request, so that a refusal is only logged.
#[inline]
fn recorded(callback: &'static str, result: u32) {
    if let Err(error) = Error::check_metric(callback, result) {
        log::debug!("{error}");
    }
}

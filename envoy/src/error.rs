//! Runs on: any thread.
//!
//! A callback refused.

use std::fmt;

use crate::sys::metrics_result;

/// A callback refused what it was asked: which, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error {
    callback: &'static str,
    reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    MetricNotFound,
    InvalidLabels,
    Frozen,
    /// A number this SDK does not know.
    Other(u32),
}

impl Error {
    /// `Ok` if `result`, a `metrics_result`, says success.
    #[inline]
    pub(crate) fn check_metric(callback: &'static str, result: u32) -> Result<(), Self> {
        let reason = match result {
            metrics_result::SUCCESS => return Ok(()),
            metrics_result::METRIC_NOT_FOUND => Reason::MetricNotFound,
            metrics_result::INVALID_LABELS => Reason::InvalidLabels,
            metrics_result::FROZEN => Reason::Frozen,
            other => Reason::Other(other),
        };
        Err(Self { callback, reason })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "envoy refused `{}`: ", self.callback)?;
        match self.reason {
            Reason::MetricNotFound => f.write_str("no such metric in this filter configuration"),
            Reason::InvalidLabels => f.write_str("the labels are not those it was defined with"),
            Reason::Frozen => {
                f.write_str("metrics can be defined only while the configuration is made")
            }
            Reason::Other(number) => write!(f, "result `{number}`"),
        }
    }
}

impl std::error::Error for Error {}

//! Runs on: any thread.
//!
//! The `log` backend that writes to Envoy's logger `dynamic_modules`.
//!
//! `log`'s own maximum stays at `trace`: Envoy's level can change while it runs (`/logging` of its
//! admin interface), so Envoy is asked for each record.

use std::borrow::Cow;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::sys;

/// Makes Envoy's logger the one of the `log` macros. Does nothing if there is one already, as when
/// Envoy initialises a module again that stayed mapped.
pub(crate) fn install() {
    if log::set_logger(&EnvoyLog).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
}

struct EnvoyLog;

impl Log for EnvoyLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // SAFETY: `log_enabled` may be called from any thread and has no pointer arguments.
        unsafe { sys::log_enabled(metadata.level().into()) }
    }

    fn log(&self, record: &Record<'_>) {
        // The macros ask `log::max_level` only.
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = match record.args().as_str() {
            Some(message) => Cow::Borrowed(message),
            None => Cow::Owned(record.args().to_string()),
        };
        let file = record.file().unwrap_or_default();
        let line = record.line().unwrap_or_default();
        // SAFETY: `log_v2` may be called from any thread; it copies `message` and `file`, which
        // outlive the call.
        unsafe { sys::log_v2(record.level().into(), (&*message).into(), file.into(), line) };
    }

    /// Envoy flushes its sinks.
    fn flush(&self) {}
}

impl From<Level> for sys::LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

//! Safe Rust over the C ABI of Envoy 1.40.0's dynamic modules.
//!
//! A module implements [`Module`] and hands it to [`export!`]. Envoy then loads the shared library
//! and calls its *hooks*; while a hook runs, it is lent an object with which it can call Envoy's
//! *callbacks*.
//!
//! ```text
//! Module ── new_http_filter_config ──> HttpFilterConfig ── new_filter ──> HttpFilter
//!    │          per filter chain              any Envoy thread               per stream, one thread
//!    └───── new_bootstrap_extension ──> BootstrapExtension
//!                                          main thread
//! ```
//!
//! # Threads
//!
//! | object | its thread |
//! | --- | --- |
//! | [`Module`], [`BootstrapExtension`], [`EnvoyBootstrap`], [`EnvoyFilterConfig`] | Envoy's main thread |
//! | [`HttpFilterConfig`] | made on the main thread, used on every Envoy worker thread |
//! | [`HttpFilter`], [`EnvoyFilter`], [`FilterRef`] | the Envoy worker thread of the stream |
//! | [`Scheduler`], [`BootstrapScheduler`], [`ShutdownCompletion`], the `log` macros | any |
//!
//! # Lifetimes
//!
//! Whatever is lent ends with the hook, and bytes read from Envoy borrow from what was lent.
//! A method that may free such bytes takes `&mut self`, so the borrow checker keeps Envoy's rule
//! that they are valid until the hook returns or their map or buffer changes.
//!
//! # Layout
//!
//! - [`module`]: the [`Module`] trait and [`export!`]; what holds for the whole process.
//! - [`http`]: filters. The traits and their statuses, then one file for each side of a stream.
//! - [`bootstrap`]: the extension that sees Envoy start and stop.
//! - [`attributes`]: facts about a stream: addresses, TLS, protocol, response code.
//! - [`stats`]: counters, gauges, histograms.
//! - [`error`]: a callback refused.
//! - [`children`]: what Envoy leaves to children of the process.
//! - `log`: the `log` backend that writes to Envoy's logger.
//! - `hooks`: the functions that Envoy calls.
//! - `buffer`: bytes lent by Envoy, bytes lent to Envoy.
//! - `sys`: the C declarations.
//! - `fake`, with the feature of that name: an Envoy for tests.

// Elsewhere than in Envoy nobody calls what Envoy calls.
#![cfg_attr(not(feature = "module"), allow(dead_code))]

pub mod module;

pub mod http;

pub mod bootstrap;

pub mod attributes;

pub mod stats;

pub mod error;

pub mod children;

pub mod signals;

mod log;

mod hooks;

mod buffer;

mod sys;

#[cfg(feature = "fake")]
pub mod fake;

pub use attributes::AttributeId;
pub use bootstrap::{BootstrapExtension, BootstrapScheduler, EnvoyBootstrap, ShutdownCompletion};
pub use children::{
    close_known, duplicate, is_forked, keep_from_children, know_inherited, waiting,
};
pub use error::Error;
pub use http::{
    BodyChunks, DataStatus, EnvoyFilter, EnvoyFilterConfig, FilterRef, Header, Headers,
    HeadersStatus, HttpFilter, HttpFilterConfig, LocalReply, LocalReplyStatus, ResetReason,
    Scheduler, TrailersStatus,
};
pub use log::{
    Diversion, LogForm, divert_log, end_diversion, is_log_diverted, level_name, log_directly,
    log_to_stderr, log_without_waiting, set_log_form,
};
pub use module::{Module, concurrency, exit_now, is_validation_mode};
pub use signals::{last_signal, raise_if_handled};
pub use stats::{CounterId, GaugeId, HistogramId};

/// Has `cargo test` compile the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

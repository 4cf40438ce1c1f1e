//! Hooks, trait, callbacks: a filter in a fake Envoy.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod hooks;
mod request;
mod response;
mod scheduler;
mod filter_ref;
mod panics;
mod configuration;

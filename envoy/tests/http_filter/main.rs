//! Hooks, trait, callbacks: a filter in a fake Envoy.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod configuration;
mod filter_ref;
mod hooks;
mod panics;
mod request;
mod response;
mod scheduler;

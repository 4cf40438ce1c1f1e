//! Runs on: Envoy's main thread, tokio.
//!
//! The life of the process.

mod admin;
mod control;
mod runtime;
mod server;

pub(crate) use server::Server;

#[cfg(test)]
pub(crate) use runtime::get as runtime;

//! Runs on: Envoy's main thread for its hooks, tokio for what takes time.
//!
//! The life of the process: start, drain, end. No request passes through here.
//!
//! What is here knows `app` and `exchange`; nothing knows it but the module's entry in `lib.rs`. It may
//! attach to Python, but Envoy's main thread at the start and at the end alone: in between it must not
//! wait for anything.
//!
//! - [`server`], start-up, readiness, serving and end, in this order
//! - [`drain`], what is in flight ends
//! - [`stop`], the request to stop, from whichever side, and who waits for its completion
//! - [`launcher`], what the launcher asks for
//! - [`control`], the channel to it
//! - [`explain`], why a loop does not turn, for the log
//! - [`admin`], what Envoy's admin interface is asked for
//! - [`leftovers`], what is removed in the launcher's place, if that was killed
//! - [`gauges`], what Envoy counts, as far as it is waited for
//! - [`runtime`], tokio

mod admin;
mod control;
mod drain;
mod explain;
mod gauges;
mod launcher;
mod leftovers;
mod runtime;
mod server;
mod stop;

pub(crate) use server::Server;

#[cfg(test)]
pub(crate) use runtime::get as runtime;

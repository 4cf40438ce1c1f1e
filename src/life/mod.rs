//! Runs on: Envoy's main thread for its hooks, tokio for what takes time.
//!
//! The life of the process: start, drain, end. No request passes through here.
//!
//! What is here knows `app` and `exchange`; nothing knows it but the module's entry in `lib.rs`. It may
//! attach to Python, but Envoy's main thread at the start and at the end alone: in between it must not
//! wait for anything.
//!
//! - [`server`], start-up, readiness, serving and end, in this order
//! - [`front`], who brings the requests, and [`mod@envoy`] and [`network`], the two of them
//! - [`drain`], what is in flight ends
//! - [`stop`], the request to stop, from whichever side, and who waits for its completion
//! - [`launcher`], what the launcher asks for
//! - [`control`], the channel to it
//! - [`explain`], why a loop does not turn, for the log
//! - [`admin`], what Envoy's admin interface is asked for
//! - [`leftovers`], what is removed in the launcher's place, if that was killed
//! - [`runtime`], tokio

#[cfg(feature = "module")]
mod admin;
mod control;
mod drain;
#[cfg(feature = "module")]
mod envoy;
mod explain;
mod front;
mod launcher;
mod leftovers;
mod network;
mod runtime;
mod server;
mod stop;

#[cfg(feature = "module")]
pub(crate) use envoy::Server;
#[cfg(feature = "extension")]
pub(crate) use network::{Server as NetworkServer, Told};

#[cfg(test)]
pub(crate) use runtime::get as runtime;

//! aiovoy as an upstream: the application stands behind a router, and not in the filter chain that
//! the client's connection has.
//!
//! - [`router`], the router of the same Envoy, by an internal listener
//! - [`server`], a server of HTTP, for Envoys and other proxies that run elsewhere
#![deny(unsafe_code)]

pub mod router;
pub mod server;

//! Runs on: Envoy worker threads.
//!
//! Envoy's side of an exchange: Envoy's hooks in, bytes out.
//!
//! What is here may call Envoy, by what a hook lends it and for as long as the hook runs, and post to
//! the mailboxes of `exchange`. It must not attach to Python or wait for anything: all connections of
//! its worker would wait with it. It knows neither `app` nor `life`.
//!
//! - [`filter`], one stream: what Envoy tells of it, and what the application wants of it
//! - [`streams`], the streams of one thread, its mailboxes, and the turns in which they meet
//! - [`request`], Envoy's request copied out
//! - [`tls`], what Envoy says of a TLS connection
//! - [`ticker`], what tells streams that time has passed

mod filter;
mod request;
mod streams;
mod ticker;
mod tls;

pub(crate) use filter::{FilterConfig, Place};

#[cfg(test)]
pub(crate) use crate::admission::clock::advance;
#[cfg(test)]
pub(crate) use streams::Streams;

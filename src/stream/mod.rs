//! Runs on: Envoy worker thread.
//!
//! One stream: Envoy's hooks in, bytes out.

mod clock;
mod filter;
mod proxies;
mod request;
mod streams;
mod ticker;
mod tls;

pub(crate) use filter::FilterConfig;

#[cfg(test)]
pub(crate) use clock::advance;

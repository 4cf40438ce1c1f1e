//! Runs on: the threads of either front; pure.
//!
//! Which requests are let in, and what of them is believed: the same for all who bring them.
//!
//! - [`request`], what the fields of a request say to the server, and what is wrong with them
//! - [`rules`], what the configuration says of requests, such as limits
//! - [`proxies`], whose word on the client is taken
//! - [`clock`], which tests put forward
//! - [`client_cert`], what a proxy says of the client's certificate
//! - [`refusal`], the answers to those that do not get to the application
//! - [`refusal_log`], what the log says of them
//! - [`log_field`], what a request has for access logs

mod client_cert;
pub(crate) mod clock;
mod log_field;
mod proxies;
mod refusal;
mod refusal_log;
mod request;
mod rules;

pub(crate) use client_cert::client_certificate;
pub(crate) use log_field::write_log_field;
pub(crate) use refusal::Refusal;
pub(crate) use refusal_log::RefusalLog;
pub(crate) use request::{Known, Said};
pub(crate) use rules::Rules;

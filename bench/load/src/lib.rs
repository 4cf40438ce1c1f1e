//! What the load generators `wsload` and `h3load` have in common: their command line, and the figures they print.
//!
//! `NAME PORT FOLDER CONNECTIONS SECONDS REQUESTS`, with a server on 127.0.0.1 and what is sent in files of FOLDER. On
//! each connection one request is on its way at a time, or one message of a WebSocket. The load ends after so many
//! seconds or so many requests, 0 being no limit. One line of JSON is printed, with times in seconds. A server that
//! does anything else than it should ends it with status 1.

#![forbid(unsafe_code)]

mod arguments;
mod figures;

pub use arguments::{Arguments, run};
pub use figures::Figures;

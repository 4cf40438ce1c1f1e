//! Runs on: Envoy worker thread.
//!
//! The path through Envoy's own router. A request passes two filter chains of one Envoy, on one
//! worker thread:
//!
//! ```text
//! client ──▶ listener ──▶ Front ──▶ router ──▶ cluster ──▶ internal listener ──▶ the bridge's filter
//!                           │                                                        ▲
//!                           └────────── Handover: what the first has read ───────────┘
//! ```
//!
//! The second chain sees another connection, one of Envoy's to itself, and another HTTP version. So
//! the [`Front`] reads the request where it is the client's, lets it in or not, and hands over what
//! it has read under a number, which goes along in a header. The second chain takes it by that
//! number, and with it the way back to the first stream, for all that concerns the client's
//! connection.
//!
//! An internal listener has no address outside the process, so nobody else brings a number; what a
//! client sends under that name is replaced.

mod front;
mod handover;

pub use front::{Front, Gate};
pub use handover::{HandedOver, Handover, NUMBER};

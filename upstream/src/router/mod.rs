//! Runs on: Envoy worker thread.
//!
//! The path through Envoy's own router. A request passes two filter chains of one Envoy, on one
//! worker thread:
//!
//! ```text
//! client ──▶ listener ──▶ Front ──▶ router ──▶ cluster ──▶ internal listener ──▶ the bridge's filter
//!                           │                                                        ▲
//!                           └────────── Handover: the way back to it ────────────────┘
//! ```
//!
//! The second chain sees another connection, one of Envoy's to itself, and another HTTP version. So
//! the [`Front`] lets the request in or answers it, where it is the client's, and hands it over under
//! a number, which goes along in a header. By that number the second chain finds the first stream. It
//! reads the request there, where the router has it, too: with what that has put in or rewritten. All
//! that concerns the client's connection goes by the first stream as well.
//!
//! An internal listener has no address outside the process, so nobody else brings a number; what a
//! client sends under that name is replaced.

mod front;
mod handover;

pub use front::{Front, Gate};
pub use handover::{Handover, Lost, NUMBER, Second, UnderWay};

//! Runs on: loop thread.
//!
//! ASGI 3: what an application is called with, and what it answers.

pub(crate) mod call;
mod checked_fields;
pub(crate) mod cycle;
mod disconnect;
pub(crate) mod http;
pub(crate) mod lifespan;
pub(crate) mod message;
pub(crate) mod outcome;
pub(crate) mod scope;
mod state;
mod waiters;
pub(crate) mod websocket;

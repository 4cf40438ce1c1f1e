//! Runs on: loop thread.
//!
//! ASGI 3: what an application is called with, and what it answers.

pub(crate) mod call;
pub(crate) mod cycle;
pub(crate) mod http;
pub(crate) mod lifespan;
pub(crate) mod message;
pub(crate) mod scope;
mod waiters;
pub(crate) mod websocket;

//! Runs on: Envoy's main thread for the interpreter, loop threads for the rest.
//!
//! What aiovoy adds to Python's own API: the interpreter's start, awaitables, tracebacks.

pub(crate) mod app;
pub(crate) mod awaitable;
pub(crate) mod interpreter;
pub(crate) mod slots;
pub(crate) mod traceback;

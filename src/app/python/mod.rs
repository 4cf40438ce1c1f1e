//! Runs on: loop threads, of which the first is Python's main thread.
//!
//! What aiovoy adds to Python's own API: the interpreter's start, awaitables, tracebacks.

pub(crate) mod app;
pub(crate) mod awaitable;
pub(crate) mod child;
pub(crate) mod interpreter;
pub(crate) mod main_thread;
pub(crate) mod slots;
pub(crate) mod traceback;

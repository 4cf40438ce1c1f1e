//! Runs on: loop threads, of which the first is Python's main thread.
//!
//! What aiovoy adds to Python's own API.
//!
//! - [`interpreter`], its start and its end
//! - [`main_thread`], the thread that Python takes for its main one
//! - [`app`], the applications, imported
//! - [`awaitable`], what `receive` and `send` return
//! - [`mod@log`], the log of the server, for Python
//! - [`slots`], how CPython resumes a coroutine
//! - [`child`], the end of a forked child
//! - [`stacks`], what threads are amid
//! - [`traceback`], exceptions as text

pub(crate) mod app;
pub(crate) mod awaitable;
pub(crate) mod child;
#[cfg(feature = "module")]
pub(crate) mod interpreter;
pub(crate) mod log;
#[cfg(feature = "module")]
pub(crate) mod main_thread;
pub(crate) mod slots;
pub(crate) mod stacks;
pub(crate) mod traceback;

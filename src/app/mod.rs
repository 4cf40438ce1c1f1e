//! Runs on: loop threads, of which the first is Python's main thread.
//!
//! The application's side of an exchange: Python, and what applications see.
//!
//! What is here may run Python, and post to the mailboxes of `exchange`. It must not wait for Envoy,
//! or hold a lock while Python runs: any object that goes may run any code. Envoy it knows as the
//! process that it lives in, for forks and exits, and not as streams; it knows neither `stream` nor
//! `life`.
//!
//! Two things here begin on other threads: Python's main thread is started by Envoy's, and the
//! lifespan is driven by tokio.
//!
//! - [`event_loop`], the thread of one loop, from its start to its end
//! - [`dispatch`], what comes from the inbox: new calls, and news for those that run
//! - [`calls`], which calls there are, and which have to wait
//! - [`tasks`], the tasks that they run in
//! - [`asgi`], what an application is called with, what it sends, its lifespan
//! - [`response_order`], the order of a response: what may be sent next, and what it comes to
//! - [`checked_fields`], the checks of its header fields
//! - [`access_log`], requests as `logging` has them
//! - [`outcome`], what the end of a call means
//! - [`disconnect`], a client that has gone, as applications hear of it
//! - [`python`], the interpreter's start and end, awaitables, tracebacks

mod access_log;
pub(crate) mod asgi;
mod calls;
mod checked_fields;
mod disconnect;
mod dispatch;
pub(crate) mod event_loop;
mod outcome;
pub(crate) mod python;
mod response_order;
mod tasks;

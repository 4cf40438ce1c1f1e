//! Runs on: network threads.
//!
//! The other front: requests come from a server of our own ([`upstream::server`]), behind somebody else's proxy, and
//! no Envoy is in the process.
//!
//! What is here may say something to the streams of its thread, and post to the mailboxes of `exchange`. It must not
//! attach to Python or wait for anything: all connections of its thread would wait with it. It knows neither `app` nor
//! `life`.
//!
//! - [`thread`], the thread, and what it is told
//! - [`front`], the thread's requests, its mailboxes, and the turns in which they meet
//! - [`request`], a request copied out of its connection, and the checks that refuse it
//! - [`stream`], one request: what comes of it, and what the application wants of it
//! - [`websocket`], what it is besides, if it is one

mod access_log;
mod front;
mod log_writer;
mod request;
mod stream;
mod thread;
mod websocket;

pub(crate) use thread::NetworkThread;

//! Runs on: loop threads.
//!
//! ASGI 3: what an application is called with, and what it answers.
//!
//! - [`call`], the application's call, as the coroutine of its task
//! - [`scope`], the scope
//! - [`known`], objects that scopes share
//! - [`http`], `receive` and `send` of an `http` scope
//! - [`message`], the messages of an `http` scope as dicts
//! - [`websocket`], the same of a `websocket` scope
//! - [`cycle`], an exchange of either kind
//! - [`lifespan`], the start and the end of an application; on tokio
//! - [`waiters`], who waits in `receive` or `send`

pub(crate) mod call;
pub(crate) mod cycle;
pub(crate) mod http;
mod known;
pub(crate) mod lifespan;
pub(crate) mod message;
pub(crate) mod scope;
mod waiters;
pub(crate) mod websocket;

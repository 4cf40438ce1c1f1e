//! Runs on: loop thread.
//!
//! The application: Python.

pub(crate) mod asgi;
mod checked_fields;
mod disconnect;
mod dispatch;
pub(crate) mod event_loop;
mod outcome;
pub(crate) mod python;
mod response;

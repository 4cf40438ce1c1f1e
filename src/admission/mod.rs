//! Runs on: the threads of either front; pure.
//!
//! Which requests are let in, and what of them is believed: the same for all who bring them.
//!
//! - [`request`], what the fields of a request say to the server, and what is wrong with them
//! - [`rules`], what the configuration says of requests, such as limits
//! - [`proxies`], whose word on the client is taken
//! - [`websocket`], what WebSockets go by
//! - [`refusal`], the answers to those that do not get to the application

mod proxies;
mod refusal;
mod request;
mod rules;
mod websocket;

pub(crate) use refusal::Refusal;
pub(crate) use request::{Known, Said};
pub(crate) use rules::Rules;
pub(crate) use websocket::{
    ANSWERS, CLOSE_TIMEOUT, Due, PING_TIMEOUT_CODE, WebSockets, read_handshake,
};

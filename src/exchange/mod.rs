//! Runs on: any thread.
//!
//! What the two sides of an exchange share, and all that they know of each other: `stream` and `app`
//! meet here alone.
//!
//! What is here calls neither Envoy nor Python, and never blocks but for a lock that is held for a few
//! instructions, or where it says so: [`mod@file`] reads. It knows no other room but `config`.
//!
//! - [`message`], one request and its response, as the sides speak of it
//! - [`window`], how much of a body may wait where, and what counts in it
//! - [`head`], the head of a request
//! - [`fields`], header fields
//! - [`data`], a piece of a response's body
//! - [`table`], the names of exchanges, and what a thread keeps by them
//! - [`mailbox`], the queue between threads
//! - [`wake`], what wakes the reader of a mailbox
//! - [`inbox`] and [`outbox`], the mailboxes towards the application and towards the client
//! - [`gathered`], what a front has for the inbox until its turn is over
//! - [`pulse`], whether a loop turns
//! - [`running`], which requests have not ended, for who wants to know why it does not
//! - [`worker`], what the two threads of a worker share of these
//! - [`process`], all workers
//! - [`in_flight`], the count of what is in flight
//! - [`mod@file`], files that responses are made of
//! - [`escape`], what peers have sent, for logs

mod data;
pub(crate) mod escape;
mod fields;
pub(crate) mod file;
mod gathered;
mod head;
mod in_flight;
mod inbox;
mod mailbox;
mod message;
mod outbox;
mod process;
mod pulse;
mod running;
mod table;
mod wake;
mod window;
mod worker;

pub(crate) use data::Data;
pub(crate) use fields::{Fields, alphanumeric_or};
pub(crate) use gathered::Gathered;
pub(crate) use head::{
    ClientCertificate, Endpoint, HttpVersion, RequestHead, Short, Tls, decimal, decode, port,
    split_target,
};
pub(crate) use message::{
    Failure, Handshakes, Inbound, Outbound, Payload, Request, ResponseHead, WebSocketOffer,
};
pub(crate) use process::Process;
pub(crate) use running::Running;
pub(crate) use table::{ExchangeId, Table};
pub(crate) use wake::{LoopWaker, Waker};
pub(crate) use window::{
    LEAST_COST, REQUEST_WINDOW, RESPONSE_WINDOW, WINDOW_STEP, interim_cost, piece_cost,
};
pub(crate) use worker::Worker;

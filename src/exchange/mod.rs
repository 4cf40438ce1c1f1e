//! Runs on: any thread.
//!
//! What the two sides share.

pub(crate) mod escape;
mod fields;
pub(crate) mod file;
mod head;
mod mailbox;
mod message;
mod process;
mod table;
mod wake;
mod worker;

pub(crate) use fields::Fields;
pub(crate) use head::{
    ClientCertificate, Endpoint, HttpVersion, RequestHead, Tls, decode, port, split_target,
};
pub(crate) use message::{
    ExchangeId, Failure, Inbound, LEAST_COST, Outbound, Payload, REQUEST_WINDOW, RESPONSE_WINDOW,
    Request, ResponseHead, WINDOW_STEP, WebSocketOffer, interim_cost, piece_cost,
};
pub(crate) use process::Process;
pub(crate) use table::Table;
pub(crate) use wake::{LoopWaker, Waker};
pub(crate) use worker::Worker;

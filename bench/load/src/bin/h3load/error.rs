//! Why there are no figures.

use std::io;
use std::time::Duration;

use http::StatusCode;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to port {port}: {why}")]
    Connect { port: u16, why: String },
    #[error("no answer in {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("expected status 200, got {0}")]
    Status(StatusCode),
    #[error("expected a body of {expected} bytes, got one of {got} that differs from it")]
    Content { expected: usize, got: usize },
    #[error("the server ended a request: {0}")]
    Stream(#[from] h3::error::StreamError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

//! Why there are no figures.

use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to port {port}: {error}")]
    Connect { port: u16, error: io::Error },
    #[error("expected a handshake {wanted} compression, got `{got}`")]
    Handshake { wanted: &'static str, got: String },
    #[error("no answer in {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("the server closed a connection")]
    Closed,
    #[error("the server closed a connection with a close frame: {0}")]
    CloseFrame(String),
    #[error("expected a frame that begins with `{expected:#04x}`, got `{got:#04x}`")]
    Kind { expected: u8, got: u8 },
    #[error("expected a message of {expected} bytes, got one of {got}")]
    Length { expected: usize, got: u64 },
    #[error("expected the message that was sent, got another one")]
    Content,
    #[error("expected a control frame of 125 bytes at most, got one of {0}")]
    Control(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

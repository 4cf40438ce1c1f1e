//! Puts the load of a WebSocket case on a server. The command line is that of [`load`].
//!
//! # Layout
//!
//! - `case`: the files in FOLDER: what is sent, and what must come back
//! - `frame`: heads of frames
//! - `connection`: one WebSocket: its handshake, what it sends and receives
//! - `sockets`: all of them together, and what was measured
//! - `error`: why there are no figures

#![forbid(unsafe_code)]

mod case;
mod connection;
mod error;
mod frame;
mod sockets;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use load::{Arguments, Figures};

use case::Case;
use sockets::Load;

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    load::run(run)
}

fn run(arguments: Arguments) -> Result<Figures, Box<dyn Error>> {
    let case = Case::read(&arguments.folder)?;
    let load = Load {
        arguments,
        case,
        patience: PATIENCE,
    };
    Ok(load.run()?)
}

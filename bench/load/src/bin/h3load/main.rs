//! Puts the load of a case over HTTP/3 on a server. The command line is that of [`load`].
//!
//! # Layout
//!
//! - `case`: the files in FOLDER: what is sent, what must come back, and whose certificates to trust
//! - `connections`: all of them, and what was measured
//! - `error`: why there are no figures

#![forbid(unsafe_code)]

mod case;
mod connections;
mod error;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use load::{Arguments, Figures};

use case::Case;
use connections::Load;

/// How long a server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    load::run(run)
}

fn run(arguments: Arguments) -> Result<Figures, Box<dyn Error>> {
    let case = Case::read(&arguments.folder, arguments.port)?;
    let load = Load {
        arguments,
        case,
        patience: PATIENCE,
    };
    Ok(load.run()?)
}

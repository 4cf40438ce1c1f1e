//! Puts the load of a WebSocket case on a server: `wsload PORT FOLDER CONNECTIONS SECONDS MESSAGES`.
//!
//! On each connection one message is on its way at a time. The load ends after so many seconds or
//! so many messages, 0 being no limit. Prints one line of JSON, with times in seconds. A server
//! that does anything else than to send the message back ends it with status 1.
//!
//! # Layout
//!
//! - `case`: the files in FOLDER: what is sent, and what must come back
//! - `frame`: heads of frames
//! - `connection`: one WebSocket: its handshake, what it sends and receives
//! - `load`: all of them together, and what was measured
//! - `error`: why there are no figures

#![forbid(unsafe_code)]

mod case;
mod connection;
mod error;
mod frame;
mod load;

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use case::Case;
use load::{Figures, Load};

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<Figures, Box<dyn Error>> {
    let [port, folder, connections, seconds, messages] = arguments else {
        return Err("expected PORT FOLDER CONNECTIONS SECONDS MESSAGES".into());
    };
    let load = Load {
        port: number("PORT", port)?,
        case: Case::read(Path::new(folder))?,
        connections: number("CONNECTIONS", connections)?,
        duration: limit(number("SECONDS", seconds)?).map(Duration::from_secs),
        messages: limit(number("MESSAGES", messages)?),
        patience: PATIENCE,
    };
    Ok(load.run()?)
}

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("expected a number for {name}, got `{text}`"))
}

fn limit<T: Default + PartialEq>(most: T) -> Option<T> {
    (most != T::default()).then_some(most)
}

//! The command line of a generator.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// How much load, on what.
#[derive(Debug)]
pub struct Arguments {
    /// Of the server, on 127.0.0.1.
    pub port: u16,
    /// With what is sent and what must come back.
    pub folder: PathBuf,
    /// Each with one request at a time.
    pub connections: usize,
    /// After which the load ends.
    pub duration: Option<Duration>,
    /// After how many of them it ends.
    pub requests: Option<usize>,
}

impl Arguments {
    fn parse(words: &[String]) -> Result<Self, String> {
        let [port, folder, connections, seconds, requests] = words else {
            return Err("expected PORT FOLDER CONNECTIONS SECONDS REQUESTS".to_owned());
        };
        Ok(Self {
            port: number("PORT", port)?,
            folder: folder.into(),
            connections: number("CONNECTIONS", connections)?,
            duration: limit(number("SECONDS", seconds)?).map(Duration::from_secs),
            requests: limit(number("REQUESTS", requests)?),
        })
    }

    /// Whether more is to be asked, so long after the beginning and with so many requests behind.
    pub fn go_on(&self, elapsed: Duration, requests: usize) -> bool {
        self.duration.is_none_or(|most| elapsed < most)
            && self.requests.is_none_or(|most| requests < most)
    }
}

/// The `main` of a generator: puts the load of the command line on a server, and prints what was measured.
pub fn run<F: std::fmt::Display, E: Into<Box<dyn Error>>>(
    load: impl FnOnce(Arguments) -> Result<F, E>,
) -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let result = Arguments::parse(&words)
        .map_err(Into::into)
        .and_then(|arguments| load(arguments).map_err(Into::into));
    match result {
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

fn number<T: FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("expected a number for {name}, got `{text}`"))
}

fn limit<T: Default + PartialEq>(most: T) -> Option<T> {
    (most != T::default()).then_some(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Arguments::parse(&words)
    }

    #[test]
    fn nought_is_no_limit() {
        let arguments = parse("8000 /tmp 64 3 0").expect("all is there");
        assert_eq!(
            (arguments.port, arguments.connections, arguments.requests),
            (8000, 64, None)
        );
        let second = Duration::from_secs(1);
        assert!(arguments.go_on(2 * second, usize::MAX));
        assert!(!arguments.go_on(3 * second, 0));
        let arguments = parse("8000 /tmp 64 0 5").expect("all is there");
        assert!(arguments.go_on(Duration::MAX, 4));
        assert!(!arguments.go_on(Duration::ZERO, 5));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |line| parse(line).expect_err("it is wrong");
        assert_eq!(
            error("8000 /tmp 64"),
            "expected PORT FOLDER CONNECTIONS SECONDS REQUESTS"
        );
        assert_eq!(
            error("80000 /tmp 64 1 0"),
            "expected a number for PORT, got `80000`"
        );
        assert_eq!(
            error("8000 /tmp many 1 0"),
            "expected a number for CONNECTIONS, got `many`"
        );
    }
}

//! Runs on: a thread of its own for reading; any thread writes.
//!
//! The channel to the launcher: a Unix stream socket whose path is in `AIOVOY_CONTROL`. Lines
//! of JSON go out, words come in. Under plain `envoy -c` there is no launcher and no channel.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread::Builder;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// What the launcher is told.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    /// The applications have started. Envoy opens its listeners once the launcher says `listen`.
    Started,
    /// What Python's `logging` is like.
    Logs {
        /// Lines of the log are objects of JSON.
        json: bool,
        /// Requests are logged there, and not by the front.
        requests: bool,
    },
    /// Envoy accepts connections.
    Ready {
        /// Python's version.
        python: &'a str,
        /// How many workers there are.
        workers: usize,
        /// Which event loop they run.
        #[serde(rename = "loop")]
        event_loop: &'a str,
    },
    /// The server does not start; Envoy will exit.
    Failed {
        /// Why, as logged.
        message: &'a str,
    },
    /// The answer to a ping.
    Pong {
        /// For each loop, for how many milliseconds it has owed its answer to a ping before this one.
        /// None before all loops have started.
        loops: Vec<u128>,
        /// How many requests have arrived since the start, modulo 2^32.
        requests: u32,
        /// How much is in flight: streams and calls, so a request counts twice.
        in_flight: usize,
    },
}

/// What the launcher asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Open the listeners.
    Listen,
    /// Leave connections to others, on sockets that are shared; or not any more.
    Pause(bool),
    /// Answer, and say how the loops are.
    Ping,
    /// Say in the log why a loop does not turn.
    Explain,
    /// Stop gracefully, but leave idle connections as much time for the request whose answer tells them
    /// to close.
    Retire(Duration),
    /// Stop gracefully. Also the meaning of the launcher's end.
    Shutdown,
    /// Stop at once.
    Abort,
}

impl Command {
    fn parse(line: &str) -> Option<Self> {
        match line {
            "listen" => Some(Self::Listen),
            "pause" => Some(Self::Pause(true)),
            "resume" => Some(Self::Pause(false)),
            "ping" => Some(Self::Ping),
            "explain" => Some(Self::Explain),
            "shutdown" => Some(Self::Shutdown),
            "abort" => Some(Self::Abort),
            _ => {
                let seconds = line.strip_prefix("retire ")?.parse().ok()?;
                Duration::try_from_secs_f64(seconds).ok().map(Self::Retire)
            }
        }
    }
}

/// Our end of the channel.
#[derive(Debug)]
pub(crate) struct Control {
    stream: Option<Mutex<UnixStream>>,
}

impl Control {
    /// Connects to the launcher, if there is one.
    pub(crate) fn connect() -> Result<Self, String> {
        let Some(path) = std::env::var_os("AIOVOY_CONTROL") else {
            return Ok(Self { stream: None });
        };
        let stream = UnixStream::connect(&path).map_err(|error| {
            format!(
                "no launcher at `{}` (AIOVOY_CONTROL): {error}",
                path.display()
            )
        })?;
        Ok(Self {
            stream: Some(Mutex::new(stream)),
        })
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Hands what the launcher asks for to `handle`, on a thread of its own.
    pub(crate) fn hear(&self, handle: impl Fn(Command) + Send + 'static) -> Result<(), String> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        let reader = stream.lock().try_clone().map(BufReader::new);
        let reader = reader
            .map_err(|error| format!("no second handle to the launcher's socket: {error}"))?;
        let hear = move || {
            for line in reader.lines().map_while(Result::ok) {
                match Command::parse(&line) {
                    Some(command) => handle(command),
                    None => log::warn!("unknown command `{line}` from the launcher"),
                }
            }
            handle(Command::Shutdown);
        };
        Builder::new()
            .name("aiovoy-control".into())
            .spawn(hear)
            .map(drop)
            .map_err(|error| format!("no thread for the launcher's commands: {error}"))
    }

    /// Tells the launcher. If it has gone, `hear` has noticed.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        let Some(stream) = &self.stream else { return };
        let mut line = serde_json::to_string(event).expect("strings and numbers have a JSON form");
        line.push('\n');
        let _ = stream.lock().write_all(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    impl Control {
        /// Our end of the channel that `stream` is.
        pub(crate) fn over(stream: UnixStream) -> Self {
            Self {
                stream: Some(Mutex::new(stream)),
            }
        }

        /// What there is under plain `envoy -c`.
        pub(crate) fn to_nobody() -> Self {
            Self { stream: None }
        }
    }

    fn pair() -> (Control, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        (Control::over(ours), theirs)
    }

    #[test]
    fn events_are_lines_of_json() {
        let (control, launcher) = pair();
        control.tell(&Event::Ready {
            python: "3.11.7",
            workers: 1,
            event_loop: "uvloop",
        });
        control.tell(&Event::Failed { message: "a\nb" });
        control.tell(&Event::Started);
        control.tell(&Event::Pong {
            loops: vec![0, 5210],
            requests: 7,
            in_flight: 2,
        });
        let mut lines = BufReader::new(launcher)
            .lines()
            .map(|line| line.expect("a line"));
        let ready = r#"{"event":"ready","python":"3.11.7","workers":1,"loop":"uvloop"}"#;
        assert_eq!(lines.next().as_deref(), Some(ready));
        assert_eq!(
            lines.next().as_deref(),
            Some(r#"{"event":"failed","message":"a\nb"}"#)
        );
        assert_eq!(lines.next().as_deref(), Some(r#"{"event":"started"}"#));
        let pong = r#"{"event":"pong","loops":[0,5210],"requests":7,"in_flight":2}"#;
        assert_eq!(lines.next().as_deref(), Some(pong));
    }

    #[test]
    fn commands_are_words_and_a_retirement_has_its_seconds() {
        for (line, command) in [
            ("listen", Command::Listen),
            ("pause", Command::Pause(true)),
            ("resume", Command::Pause(false)),
            ("ping", Command::Ping),
            ("explain", Command::Explain),
            ("shutdown", Command::Shutdown),
            ("abort", Command::Abort),
            ("retire 10", Command::Retire(Duration::from_secs(10))),
            ("retire 0.25", Command::Retire(Duration::from_millis(250))),
        ] {
            assert_eq!(Command::parse(line), Some(command), "{line}");
        }
        for line in [
            "",
            "Ping",
            "retire",
            "retire ",
            "retire -1",
            "retire inf",
            "retire 1 s",
        ] {
            assert_eq!(Command::parse(line), None, "{line}");
        }
    }

    #[test]
    fn the_end_of_the_launcher_is_a_shutdown() {
        let (control, mut launcher) = pair();
        let (sender, commands) = mpsc::channel();
        control
            .hear(move |command| sender.send(command).expect("the test listens"))
            .expect("a thread");
        launcher.write_all(b"abort\nnonsense\n").expect("written");
        drop(launcher);
        assert_eq!(
            commands.iter().collect::<Vec<_>>(),
            [Command::Abort, Command::Shutdown]
        );
    }
}

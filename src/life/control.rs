//! Runs on: a thread of its own for reading; any thread writes.
//!
//! The channel to the launcher: a Unix stream socket whose path is in `AIOVOY_CONTROL`. Lines
//! of JSON go out, words come in. Under plain `envoy -c` there is no launcher and no channel.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread::Builder;

use parking_lot::Mutex;
use serde::Serialize;

/// What the launcher is told.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
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
}

/// What the launcher asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Stop gracefully. Also the meaning of the launcher's end.
    Shutdown,
    /// Stop at once.
    Abort,
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

    /// Hands what the launcher asks for to `handle`, on a thread of its own.
    pub(crate) fn listen(&self, handle: impl Fn(Command) + Send + 'static) -> Result<(), String> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        let reader = stream.lock().try_clone().map(BufReader::new);
        let reader = reader
            .map_err(|error| format!("no second handle to the launcher's socket: {error}"))?;
        let listen = move || {
            for line in reader.lines().map_while(Result::ok) {
                match line.as_str() {
                    "shutdown" => handle(Command::Shutdown),
                    "abort" => handle(Command::Abort),
                    unknown => log::warn!("unknown command `{unknown}` from the launcher"),
                }
            }
            handle(Command::Shutdown);
        };
        Builder::new()
            .name("aiovoy-control".into())
            .spawn(listen)
            .map(drop)
            .map_err(|error| format!("no thread for the launcher's commands: {error}"))
    }

    /// Tells the launcher. If it has gone, `listen` has noticed.
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

    fn pair() -> (Control, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        (
            Control {
                stream: Some(Mutex::new(ours)),
            },
            theirs,
        )
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
        let mut lines = BufReader::new(launcher)
            .lines()
            .map(|line| line.expect("a line"));
        let ready = r#"{"event":"ready","python":"3.11.7","workers":1,"loop":"uvloop"}"#;
        assert_eq!(lines.next().as_deref(), Some(ready));
        assert_eq!(
            lines.next().as_deref(),
            Some(r#"{"event":"failed","message":"a\nb"}"#)
        );
    }

    #[test]
    fn the_end_of_the_launcher_is_a_shutdown() {
        let (control, mut launcher) = pair();
        let (sender, commands) = mpsc::channel();
        control
            .listen(move |command| sender.send(command).expect("the test listens"))
            .expect("a thread");
        launcher.write_all(b"abort\nnonsense\n").expect("written");
        drop(launcher);
        assert_eq!(
            commands.iter().collect::<Vec<_>>(),
            [Command::Abort, Command::Shutdown]
        );
    }
}

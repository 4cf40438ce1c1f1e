//! Runs on: loop thread; pure.
//!
//! Which message an application may send next in an `http` scope, and what it makes of the
//! response. ASGI HTTP 2.5, "Response Start" and "Response Body", and the extensions of ASGI.
//!
//! ```text
//!            start            body, more          body, more
//! Expecting ───────▶ Held ───────────────▶ Sending ────┐
//!                     │                    │  ▲        │
//!                     │                    │  └────────┘
//!                     │ body, last         │ body, last
//!                     ├────────────────────┴──────────────▶ Trailing  if there are trailers
//!                     ▼                                        │ trailers, last
//!                  Complete ◀──────────────────────────────────┘   anything more is ignored
//! ```
//!
//! The head is held until the first body message, so that both leave together; early hints go
//! ahead of it. A file counts as the body messages that its bytes would make.

use crate::exchange::file::FileReader;
use crate::exchange::{Data, Fields, ResponseHead};

/// What an application sends in an `http` scope.
#[derive(Debug)]
pub(crate) enum Message {
    /// `http.response.start`
    Start(Head),
    /// `http.response.body`
    Body {
        /// The piece.
        data: Data,
        /// Whether more follows.
        more: bool,
    },
    /// `http.response.pathsend` and `http.response.zerocopysend`
    File(FileMessage),
    /// `http.response.early_hint`
    EarlyHint(Fields),
    /// `http.response.trailers`
    Trailers {
        /// The fields.
        fields: Fields,
        /// Whether more follow.
        more: bool,
    },
}

/// A message that has a file for its body.
#[derive(Debug)]
pub(crate) struct FileMessage {
    /// Its name.
    pub(crate) name: &'static str,
    pub(crate) reader: FileReader,
    /// It is all of the body.
    pub(crate) alone: bool,
    /// Whether more body follows.
    pub(crate) more: bool,
}

/// The head of a response with what was read from its fields.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) response: ResponseHead,
    /// Its `content-length`.
    pub(crate) content_length: Option<u64>,
    /// Trailers follow the body.
    pub(crate) trailers: bool,
}

/// What a message comes to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing to send yet, or ever.
    Nothing,
    /// The response begins.
    Start {
        head: ResponseHead,
        body: Data,
        end: bool,
    },
    /// The response goes on.
    Body { data: Data, end: bool },
    /// A file is to be read; its pieces come back as body messages, of which the last has `more`.
    File { reader: FileReader, more: bool },
    /// Hints to the client before the response.
    EarlyHint(Fields),
    /// The response ends.
    Trailers(Fields),
}

/// The application broke the order or the promised length.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Violation {
    #[error("expected ASGI message `http.response.start`, but got `{0}`")]
    ExpectedStart(&'static str),
    #[error("expected ASGI message `http.response.body`, but got `{0}`")]
    ExpectedBody(&'static str),
    #[error("expected ASGI message `http.response.trailers`, but got `{0}`")]
    ExpectedTrailers(&'static str),
    #[error("`{0}` after another part of the body: it has to be all of the body")]
    NotAlone(&'static str),
    #[error("response body is longer than its content-length of {0} bytes")]
    TooLong(u64),
    #[error("response body is shorter than its content-length of {0} bytes by {1}")]
    TooShort(u64, u64),
}

/// What of a request bears on its response.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Client {
    /// The request was HEAD.
    pub(crate) head_request: bool,
    /// The client asked for trailers (RFC 9110, section 6.5.1).
    pub(crate) takes_trailers: bool,
    /// The client knows interim responses, which HTTP/1.0 does not.
    pub(crate) takes_interim: bool,
}

/// The state of one response.
#[derive(Debug)]
pub(crate) struct Response {
    phase: Phase,
    client: Client,
    length: Option<Length>,
    /// No byte of body may follow this head (RFC 9112, section 6.3).
    bodyless: bool,
    /// Trailers follow the body.
    trailers: bool,
}

#[derive(Debug)]
enum Phase {
    Expecting,
    Held(ResponseHead),
    Sending,
    /// The body is complete, the trailers are not.
    Trailing(Fields),
    Complete,
}

/// A promised content-length.
#[derive(Debug, Clone, Copy)]
struct Length {
    promised: u64,
    left: u64,
}

impl Message {
    fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "http.response.start",
            Self::Body { .. } => "http.response.body",
            Self::File(file) => file.name,
            Self::EarlyHint(_) => "http.response.early_hint",
            Self::Trailers { .. } => "http.response.trailers",
        }
    }
}

impl Response {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            phase: Phase::Expecting,
            client,
            length: None,
            bodyless: false,
            trailers: false,
        }
    }

    /// Whether the application has completed the response.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.phase, Phase::Complete)
    }

    /// Whether the application has begun the response.
    pub(crate) fn is_begun(&self) -> bool {
        !matches!(self.phase, Phase::Expecting)
    }

    /// Takes the application's next message. A violation changes nothing but that a body which
    /// ends too short leaves the response incomplete for good.
    pub(crate) fn accept(&mut self, message: Message) -> Result<Step, Violation> {
        match (&mut self.phase, message) {
            (Phase::Complete, _) => Ok(Step::Nothing),
            (Phase::Expecting | Phase::Held(_), Message::EarlyHint(fields)) => {
                let sent = self.client.takes_interim;
                Ok(if sent {
                    Step::EarlyHint(fields)
                } else {
                    Step::Nothing
                })
            }
            // Too late to be early (ASGI, "Early Hints": the server may ignore them).
            (_, Message::EarlyHint(_)) => Ok(Step::Nothing),
            (Phase::Expecting, Message::Start(head)) => {
                self.hold(head);
                Ok(Step::Nothing)
            }
            (Phase::Expecting, message) => Err(Violation::ExpectedStart(message.name())),
            (Phase::Trailing(all), Message::Trailers { fields, more }) => {
                fields
                    .iter()
                    .for_each(|(name, value)| all.push(name, value));
                if more {
                    return Ok(Step::Nothing);
                }
                let all = std::mem::take(all);
                self.phase = Phase::Complete;
                Ok(Step::Trailers(all))
            }
            (Phase::Trailing(_), message) => Err(Violation::ExpectedTrailers(message.name())),
            (_, Message::Body { data, more }) => self.body(data, more),
            (phase, Message::File(file)) => {
                if file.alone && matches!(phase, Phase::Sending) {
                    return Err(Violation::NotAlone(file.name));
                }
                if self.bodyless {
                    return self.body(Data::default(), file.more);
                }
                // It may have grown since its length was taken, as logs do.
                let reader = match self.length {
                    Some(length) => file.reader.at_most(length.left),
                    None => file.reader,
                };
                Ok(Step::File {
                    reader,
                    more: file.more,
                })
            }
            (_, message) => Err(Violation::ExpectedBody(message.name())),
        }
    }

    fn hold(&mut self, head: Head) {
        let Head {
            response,
            content_length,
            trailers,
        } = head;
        // RFC 9110, section 6.4.1: responses to HEAD, 204 and 304 have no content.
        self.bodyless = self.client.head_request || matches!(response.status, 204 | 304);
        // Trailers that nobody asked for are messages after the end.
        self.trailers = trailers && self.client.takes_trailers && !self.bodyless;
        self.length = content_length.map(|promised| Length {
            promised,
            left: promised,
        });
        self.phase = Phase::Held(response);
    }

    fn body(&mut self, mut data: Data, more: bool) -> Result<Step, Violation> {
        if self.bodyless {
            data = Data::default();
        } else {
            self.count(data.len(), more)?;
        }
        let end = !more && !self.trailers;
        let next = match more {
            true => Phase::Sending,
            false if self.trailers => Phase::Trailing(Fields::default()),
            false => Phase::Complete,
        };
        match std::mem::replace(&mut self.phase, next) {
            Phase::Held(mut head) => {
                if end && self.length.is_none() && !self.bodyless {
                    head.fields
                        .push(b"content-length", data.len().to_string().as_bytes());
                }
                Ok(Step::Start {
                    head,
                    body: data,
                    end,
                })
            }
            _ if data.is_empty() && !end => Ok(Step::Nothing),
            _ => Ok(Step::Body { data, end }),
        }
    }

    /// Holds more of the body against its promised length.
    pub(crate) fn count(&mut self, bytes: usize, more: bool) -> Result<(), Violation> {
        let Some(length) = &mut self.length else {
            return Ok(());
        };
        let left = u64::try_from(bytes)
            .ok()
            .and_then(|bytes| length.left.checked_sub(bytes));
        let left = left.ok_or(Violation::TooLong(length.promised))?;
        if !more && left > 0 {
            return Err(Violation::TooShort(length.promised, left));
        }
        length.left = left;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Fields;

    const TAKES_ALL: Client = Client {
        head_request: false,
        takes_trailers: true,
        takes_interim: true,
    };

    fn start(status: u16, content_length: Option<u64>) -> Message {
        start_with(status, content_length, false)
    }

    fn start_with(status: u16, content_length: Option<u64>, trailers: bool) -> Message {
        let response = ResponseHead {
            status,
            fields: Fields::default(),
            close: false,
        };
        Message::Start(Head {
            response,
            content_length,
            trailers,
        })
    }

    fn body(data: &[u8], more: bool) -> Message {
        Message::Body {
            data: data.to_vec().into(),
            more,
        }
    }

    fn file(alone: bool, more: bool) -> Message {
        Message::File(FileMessage {
            name: "file",
            reader: FileReader::whole("/nowhere".into()),
            alone,
            more,
        })
    }

    fn fields(name: &str) -> Fields {
        let mut fields = Fields::default();
        fields.push(name.as_bytes(), b"");
        fields
    }

    fn hint() -> Message {
        Message::EarlyHint(fields("link"))
    }

    fn trailers(name: &str, more: bool) -> Message {
        Message::Trailers {
            fields: fields(name),
            more,
        }
    }

    /// What a step puts on the wire: `S` a head, the body, `H` a hint, `F` a file, `[names]`
    /// trailers, `.` the end.
    fn wire(step: Step) -> String {
        let (head, data, end) = match step {
            Step::Nothing => return String::new(),
            Step::EarlyHint(_) => return "H".into(),
            Step::File { more, .. } => return if more { "F" } else { "F." }.into(),
            Step::Trailers(fields) => {
                let names = fields
                    .iter()
                    .map(|(name, _)| String::from_utf8_lossy(name).into());
                return format!("[{}].", names.collect::<Vec<String>>().join(" "));
            }
            Step::Start { body, end, .. } => ("S", body, end),
            Step::Body { data, end } => ("", data, end),
        };
        format!(
            "{head}{}{}",
            String::from_utf8_lossy(&data),
            if end { "." } else { "" }
        )
    }

    fn run(
        client: Client,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<String, Violation> {
        let mut response = Response::new(client);
        messages
            .into_iter()
            .map(|message| response.accept(message).map(wire))
            .collect()
    }

    #[test]
    fn trailers_end_the_response_of_a_client_that_takes_them() {
        let messages = || {
            [
                start_with(200, None, true),
                body(b"a", false),
                trailers("x", true),
                trailers("y", false),
                trailers("z", false),
            ]
        };
        assert_eq!(run(TAKES_ALL, messages()).as_deref(), Ok("Sa[x y]."));
        assert_eq!(run(Client::default(), messages()).as_deref(), Ok("Sa."));
        let head_request = Client {
            head_request: true,
            ..TAKES_ALL
        };
        assert_eq!(run(head_request, messages()).as_deref(), Ok("S."));
        let unannounced = [start(200, None), body(b"a", false), trailers("x", false)];
        assert_eq!(run(TAKES_ALL, unannounced).as_deref(), Ok("Sa."));
    }

    #[test]
    fn hints_go_ahead_of_the_head() {
        let messages = || {
            [
                hint(),
                start(200, None),
                hint(),
                body(b"a", true),
                hint(),
                body(b"", false),
                hint(),
            ]
        };
        assert_eq!(run(TAKES_ALL, messages()).as_deref(), Ok("HHSa."));
        assert_eq!(run(Client::default(), messages()).as_deref(), Ok("Sa."));
    }

    #[test]
    fn a_file_is_sent_alone_or_among_others() {
        for (messages, expected) in [
            (vec![start(200, None), file(true, false)], Ok("F.")),
            (
                vec![start(200, None), body(b"a", true), file(false, true)],
                Ok("SaF"),
            ),
            (
                vec![start(200, None), body(b"a", true), file(true, false)],
                Err(Violation::NotAlone("file")),
            ),
            (
                vec![file(true, false)],
                Err(Violation::ExpectedStart("file")),
            ),
            // Nothing is read of what is not sent.
            (vec![start(304, None), file(true, false)], Ok("S.")),
            (vec![start(304, None), file(false, true)], Ok("S")),
        ] {
            let sent = run(TAKES_ALL, messages);
            assert_eq!(sent.as_deref(), expected.as_ref().copied());
        }
    }

    #[test]
    fn legal_orders() {
        let cases: [(&str, bool, Vec<Message>, &str); 9] = [
            (
                "whole",
                false,
                vec![start(200, None), body(b"ab", false)],
                "Sab.",
            ),
            (
                "streamed",
                false,
                vec![start(200, None), body(b"a", true), body(b"b", false)],
                "Sab.",
            ),
            (
                "head leaves with an empty piece",
                false,
                vec![start(200, None), body(b"", true)],
                "S",
            ),
            (
                "empty pieces are dropped",
                false,
                vec![start(200, None), body(b"a", true), body(b"", true)],
                "Sa",
            ),
            ("held", false, vec![start(200, None)], ""),
            (
                "after the end",
                false,
                vec![
                    start(200, None),
                    body(b"a", false),
                    body(b"b", false),
                    start(200, None),
                ],
                "Sa.",
            ),
            (
                "HEAD",
                true,
                vec![start(200, Some(9)), body(b"a", true), body(b"b", false)],
                "S.",
            ),
            (
                "204",
                false,
                vec![start(204, None), body(b"a", false)],
                "S.",
            ),
            (
                "length met",
                false,
                vec![start(200, Some(2)), body(b"a", true), body(b"b", false)],
                "Sab.",
            ),
        ];
        for (name, head_request, messages, expected) in cases {
            let client = Client {
                head_request,
                ..Client::default()
            };
            assert_eq!(run(client, messages).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn violations() {
        let cases = [
            (
                vec![body(b"", false)],
                Violation::ExpectedStart("http.response.body"),
            ),
            (
                vec![start(200, None), start(200, None)],
                Violation::ExpectedBody("http.response.start"),
            ),
            (
                vec![start(200, None), body(b"a", true), start(200, None)],
                Violation::ExpectedBody("http.response.start"),
            ),
            (
                vec![start(200, Some(1)), body(b"ab", false)],
                Violation::TooLong(1),
            ),
            (
                vec![start(200, Some(3)), body(b"ab", false)],
                Violation::TooShort(3, 1),
            ),
            (
                vec![start_with(200, None, true), trailers("x", false)],
                Violation::ExpectedBody("http.response.trailers"),
            ),
            (
                vec![
                    start_with(200, None, true),
                    body(b"", false),
                    body(b"", false),
                ],
                Violation::ExpectedTrailers("http.response.body"),
            ),
        ];
        for (messages, expected) in cases {
            assert_eq!(run(TAKES_ALL, messages), Err(expected));
        }
    }

    #[test]
    fn a_whole_body_gets_a_content_length() {
        let lengths = |message, head_request| {
            let mut response = Response::new(Client {
                head_request,
                ..Client::default()
            });
            response.accept(message).expect("start");
            match response.accept(body(b"abc", false)).expect("body") {
                Step::Start { head, .. } => head
                    .fields
                    .iter()
                    .map(|(_, value)| value.to_vec())
                    .collect::<Vec<_>>(),
                step => panic!("{step:?}"),
            }
        };
        assert_eq!(lengths(start(200, None), false), [b"3".to_vec()]);
        assert!(
            lengths(start(200, Some(3)), false).is_empty(),
            "the application's own stands in its fields"
        );
        assert!(lengths(start(304, None), false).is_empty());
        assert!(lengths(start(200, None), true).is_empty());
    }
}

//! Runs on: loop thread; pure.
//!
//! Which message an application may send next in an `http` scope, and what it makes of the
//! response. ASGI HTTP 2.5, "Response Start" and "Response Body".
//!
//! ```text
//!            start            body, more          body, more
//! Expecting ───────▶ Held ───────────────▶ Sending ────┐
//!                     │                    │  ▲        │
//!                     │ body, last         │  └────────┘
//!                     ▼                    ▼ body, last
//!                  Complete ◀──────────────┘        anything more is ignored
//! ```
//!
//! The head is held until the first body message, so that both leave together.

use crate::exchange::ResponseHead;

/// What an application sends in an `http` scope.
#[derive(Debug)]
pub(crate) enum Message {
    /// `http.response.start`
    Start(Head),
    /// `http.response.body`
    Body {
        /// The piece.
        data: Vec<u8>,
        /// Whether more follows.
        more: bool,
    },
}

/// The head of a response with what was read from its fields.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) response: ResponseHead,
    /// Its `content-length`.
    pub(crate) content_length: Option<u64>,
}

/// What a message comes to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing to send yet, or ever.
    Nothing,
    /// The response begins.
    Start {
        head: ResponseHead,
        body: Vec<u8>,
        end: bool,
    },
    /// The response goes on.
    Body { data: Vec<u8>, end: bool },
}

/// The application broke the order or the promised length.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Violation {
    #[error("expected ASGI message `http.response.start`, but got `{0}`")]
    ExpectedStart(&'static str),
    #[error("expected ASGI message `http.response.body`, but got `{0}`")]
    ExpectedBody(&'static str),
    #[error("response body is longer than its content-length of {0} bytes")]
    TooLong(u64),
    #[error("response body is shorter than its content-length of {0} bytes by {1}")]
    TooShort(u64, u64),
}

/// The state of one response.
#[derive(Debug)]
pub(crate) struct Response {
    phase: Phase,
    /// The request was HEAD.
    head_request: bool,
    length: Option<Length>,
    /// No byte of body may follow this head (RFC 9112, section 6.3).
    bodyless: bool,
}

#[derive(Debug)]
enum Phase {
    Expecting,
    Held(ResponseHead),
    Sending,
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
        }
    }
}

impl Response {
    pub(crate) fn new(head_request: bool) -> Self {
        Self {
            phase: Phase::Expecting,
            head_request,
            length: None,
            bodyless: false,
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
        match (&self.phase, message) {
            (Phase::Complete, _) => Ok(Step::Nothing),
            (Phase::Expecting, Message::Start(head)) => {
                self.hold(head);
                Ok(Step::Nothing)
            }
            (Phase::Expecting, message) => Err(Violation::ExpectedStart(message.name())),
            (_, Message::Body { data, more }) => self.body(data, more),
            (_, message) => Err(Violation::ExpectedBody(message.name())),
        }
    }

    fn hold(&mut self, head: Head) {
        let Head {
            response,
            content_length,
        } = head;
        // RFC 9110, section 6.4.1: responses to HEAD, 204 and 304 have no content.
        self.bodyless = self.head_request || matches!(response.status, 204 | 304);
        self.length = content_length.map(|promised| Length {
            promised,
            left: promised,
        });
        self.phase = Phase::Held(response);
    }

    fn body(&mut self, mut data: Vec<u8>, more: bool) -> Result<Step, Violation> {
        if self.bodyless {
            data.clear();
        } else {
            self.count(data.len(), more)?;
        }
        let end = !more;
        let next = if end { Phase::Complete } else { Phase::Sending };
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

    /// Holds a body against its promised length.
    fn count(&mut self, bytes: usize, more: bool) -> Result<(), Violation> {
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

    fn start(status: u16, content_length: Option<u64>) -> Message {
        let response = ResponseHead {
            status,
            fields: Fields::default(),
            close: false,
        };
        Message::Start(Head {
            response,
            content_length,
        })
    }

    fn body(data: &[u8], more: bool) -> Message {
        Message::Body {
            data: data.to_vec(),
            more,
        }
    }

    /// What a step puts on the wire: `S` a head, the body, `.` the end.
    fn wire(step: Step) -> String {
        let (head, data, end) = match step {
            Step::Nothing => return String::new(),
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
        head_request: bool,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<String, Violation> {
        let mut response = Response::new(head_request);
        messages
            .into_iter()
            .map(|message| response.accept(message).map(wire))
            .collect()
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
            assert_eq!(
                run(head_request, messages).as_deref(),
                Ok(expected),
                "{name}"
            );
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
        ];
        for (messages, expected) in cases {
            assert_eq!(run(false, messages), Err(expected));
        }
    }

    #[test]
    fn a_whole_body_gets_a_content_length() {
        let lengths = |message, head_request| {
            let mut response = Response::new(head_request);
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

//! Runs on: loop thread; pure.
//!
//! Which message an application may send next in a `websocket` scope. ASGI WebSocket 2.5, and its
//! extension "WebSocket Denial Response".
//!
//! ```text
//!               accept          close, or the client's
//! Connecting ───────────▶ Open ────────────────────────▶ Closed   anything more is an OSError
//!     │  │                                                  ▲
//!     │  └── close: 403 ────────────────────────────────────┤
//!     └───── http.response.start ──▶ Denying ── last body ──┘
//! ```

use crate::app::response_order::{self as http, Response};
use crate::exchange::{Fields, Payload};

/// What an application sends in a `websocket` scope.
#[derive(Debug)]
pub(crate) enum Message {
    /// `websocket.accept`
    Accept {
        /// The one of the client's that was chosen.
        subprotocol: Option<String>,
        /// More fields of the response.
        fields: Fields,
    },
    /// `websocket.send`
    Send(Payload),
    /// `websocket.close`
    Close {
        /// RFC 6455, section 7.4.
        code: u16,
        /// In words; 123 bytes at most.
        reason: String,
    },
    /// `websocket.http.response.start` and `websocket.http.response.body`, as the messages of an
    /// `http` scope that they are like.
    Deny(http::Message),
}

/// What a message comes to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The handshake succeeds.
    Accept {
        subprotocol: Option<String>,
        fields: Fields,
    },
    /// The handshake fails by 403.
    Refuse,
    /// The handshake fails by a response of the application's.
    Deny(http::Step),
    /// A message to the client.
    Send(Payload),
    /// The closing handshake begins.
    Close { code: u16, reason: String },
}

/// The application's message can't be sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Violation {
    #[error(
        "expected ASGI message `websocket.accept`, `websocket.close` or \
         `websocket.http.response.start`, but got `{0}`"
    )]
    ExpectedAnswer(&'static str),
    #[error("expected ASGI message `websocket.send` or `websocket.close`, but got `{0}`")]
    ExpectedSend(&'static str),
    #[error("expected ASGI message `websocket.http.response.body`, but got `{0}`")]
    ExpectedBody(&'static str),
    #[error("subprotocol `{0}` is none of those that the client offered")]
    NotOffered(String),
    #[error(transparent)]
    Response(#[from] http::Violation),
    /// The connection is closed, or closing.
    #[error("the WebSocket is closed")]
    Closed,
}

/// The state of one WebSocket.
#[derive(Debug)]
pub(crate) struct Socket {
    phase: Phase,
    /// What the client offered, in its order.
    subprotocols: Vec<String>,
}

#[derive(Debug)]
enum Phase {
    Connecting,
    Denying(Box<Response>),
    Open,
    Closed,
}

/// How far a WebSocket has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The handshake waits for the application.
    Connecting,
    /// The application has begun to deny it.
    Denying,
    /// Messages go to and fro.
    Open,
    /// It is over.
    Closed,
}

impl Message {
    fn name(&self) -> &'static str {
        match self {
            Self::Accept { .. } => "websocket.accept",
            Self::Send(_) => "websocket.send",
            Self::Close { .. } => "websocket.close",
            Self::Deny(http::Message::Start(_)) => "websocket.http.response.start",
            Self::Deny(_) => "websocket.http.response.body",
        }
    }
}

impl Socket {
    pub(crate) fn new(subprotocols: Vec<String>) -> Self {
        Self {
            phase: Phase::Connecting,
            subprotocols,
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        match self.phase {
            Phase::Connecting => Progress::Connecting,
            Phase::Denying(_) => Progress::Denying,
            Phase::Open => Progress::Open,
            Phase::Closed => Progress::Closed,
        }
    }

    /// The client has closed it, or gone.
    pub(crate) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    /// Takes the application's next message. A violation changes nothing.
    pub(crate) fn accept(&mut self, message: Message) -> Result<Step, Violation> {
        match (&mut self.phase, message) {
            (Phase::Closed, _) => Err(Violation::Closed),
            (
                Phase::Connecting,
                Message::Accept {
                    subprotocol,
                    fields,
                },
            ) => {
                let unknown = subprotocol
                    .as_ref()
                    .filter(|chosen| !self.subprotocols.contains(chosen));
                if let Some(unknown) = unknown {
                    return Err(Violation::NotOffered(unknown.clone()));
                }
                self.phase = Phase::Open;
                Ok(Step::Accept {
                    subprotocol,
                    fields,
                })
            }
            (Phase::Connecting, Message::Close { .. }) => {
                self.phase = Phase::Closed;
                Ok(Step::Refuse)
            }
            (Phase::Connecting, Message::Deny(start @ http::Message::Start(_))) => {
                let mut response = Response::new(http::Client::default());
                let step = response.accept(start)?;
                self.phase = Phase::Denying(Box::new(response));
                Ok(Step::Deny(step))
            }
            (Phase::Connecting, message) => Err(Violation::ExpectedAnswer(message.name())),
            (Phase::Denying(response), Message::Deny(body @ http::Message::Body { .. })) => {
                let step = response.accept(body)?;
                if response.is_complete() {
                    self.phase = Phase::Closed;
                }
                Ok(Step::Deny(step))
            }
            (Phase::Denying(_), message) => Err(Violation::ExpectedBody(message.name())),
            (Phase::Open, Message::Send(payload)) => Ok(Step::Send(payload)),
            (Phase::Open, Message::Close { code, reason }) => {
                self.phase = Phase::Closed;
                Ok(Step::Close { code, reason })
            }
            (Phase::Open, message) => Err(Violation::ExpectedSend(message.name())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::ResponseHead;

    fn accept(subprotocol: Option<&str>) -> Message {
        Message::Accept {
            subprotocol: subprotocol.map(str::to_owned),
            fields: Fields::default(),
        }
    }

    fn send() -> Message {
        Message::Send(Payload::Text(b"a".to_vec()))
    }

    fn close() -> Message {
        Message::Close {
            code: 1000,
            reason: String::new(),
        }
    }

    fn deny() -> Message {
        Message::Deny(http::Message::Start(http::Head {
            response: ResponseHead {
                status: 401,
                fields: Fields::default(),
                close: false,
            },
            content_length: None,
            trailers: false,
        }))
    }

    fn deny_body(more: bool) -> Message {
        Message::Deny(http::Message::Body {
            data: b"b".to_vec().into(),
            more,
        })
    }

    /// What a step comes to, in a letter: `A`ccept, `R`efuse, `D`eny, `S`end, `C`lose.
    fn letter(step: Step) -> char {
        match step {
            Step::Accept { .. } => 'A',
            Step::Refuse => 'R',
            Step::Deny(_) => 'D',
            Step::Send(_) => 'S',
            Step::Close { .. } => 'C',
        }
    }

    fn run(messages: Vec<Message>) -> Result<String, Violation> {
        let mut socket = Socket::new(vec!["a".into(), "b".into()]);
        messages
            .into_iter()
            .map(|message| socket.accept(message).map(letter))
            .collect()
    }

    #[test]
    fn legal_orders() {
        for (messages, expected) in [
            (vec![accept(None), send(), send(), close()], "ASSC"),
            (vec![accept(Some("b")), close()], "AC"),
            (vec![close()], "R"),
            (vec![deny(), deny_body(true), deny_body(false)], "DDD"),
        ] {
            assert_eq!(run(messages).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn violations() {
        for (messages, expected) in [
            (vec![send()], Violation::ExpectedAnswer("websocket.send")),
            (
                vec![deny_body(false)],
                Violation::ExpectedAnswer("websocket.http.response.body"),
            ),
            (
                vec![accept(Some("c"))],
                Violation::NotOffered("c".to_owned()),
            ),
            (
                vec![accept(None), accept(None)],
                Violation::ExpectedSend("websocket.accept"),
            ),
            (
                vec![accept(None), deny()],
                Violation::ExpectedSend("websocket.http.response.start"),
            ),
            (
                vec![deny(), accept(None)],
                Violation::ExpectedBody("websocket.accept"),
            ),
            (
                vec![deny(), close()],
                Violation::ExpectedBody("websocket.close"),
            ),
            (vec![accept(None), close(), send()], Violation::Closed),
            (vec![close(), accept(None)], Violation::Closed),
            (vec![deny(), deny_body(false), deny()], Violation::Closed),
        ] {
            assert_eq!(run(messages), Err(expected));
        }
    }

    #[test]
    fn a_client_that_closes_ends_it() {
        let mut socket = Socket::new(Vec::new());
        socket.accept(accept(None)).expect("legal");
        assert_eq!(socket.progress(), Progress::Open);
        socket.close();
        assert_eq!(socket.progress(), Progress::Closed);
        assert!(matches!(socket.accept(send()), Err(Violation::Closed)));
    }
}

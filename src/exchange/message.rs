//! Runs on: any thread.
//!
//! One request and its response, as the two sides speak of it. The Envoy worker thread and the
//! loop thread share no object but the bytes of large bodies ([`Data`]) and the heads of requests, which
//! nobody changes: they name an exchange by its [`ExchangeId`] and send each other the messages below. A message for an exchange that is over finds nobody and is dropped, so
//! none can reach another request's stream.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::data::Data;
use super::fields::Fields;
use super::file::{FilePart, FileRead};
use super::head::RequestHead;
use super::running::Running;
use super::table::ExchangeId;
use super::window::LEAST_COST;

/// From the Envoy worker to the loop. Bounded by Envoy's limit on concurrent streams and, for
/// bodies, by [`REQUEST_WINDOW`](super::REQUEST_WINDOW).
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A request has arrived.
    Start(ExchangeId, Request),
    /// More of its body; `end` with the last piece, which may be empty.
    Body {
        /// Whose body it is.
        id: ExchangeId,
        /// The piece.
        data: Vec<u8>,
        /// Whether the body is complete.
        end: bool,
    },
    /// Envoy has taken this many bytes of the response.
    Room(ExchangeId, usize),
    /// A message of a WebSocket.
    Message(ExchangeId, Payload),
    /// The client has closed its WebSocket, or is not to be heard any more.
    Closed {
        /// Whose WebSocket it is.
        id: ExchangeId,
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// The stream has ended before its response was complete.
    Disconnect(ExchangeId),
    /// Envoy has given the exchange up, before its response was complete: nobody will read what the
    /// application still answers.
    GivenUp(ExchangeId),
    /// A piece of a file that the response is to have has been read, by tokio.
    File(ExchangeId, Box<FileRead>),
    /// The file that the network thread was given has been sent, or why not.
    FileSent(ExchangeId, io::Result<()>),
    /// Much of what the loop's side has kept for bodies has been dropped: that it runs frees it.
    Dropped,
    /// Has the loop answer that it turns: see [`Pulse`](super::pulse::Pulse).
    Ping,
    /// Close all WebSockets: the server stops, or this process of it.
    CloseWebSockets(Handshakes),
    /// Cancel what still runs: the time for a graceful shutdown is over.
    CancelAll,
}

impl Inbound {
    /// Whose message it is; `None` if it is every exchange's.
    pub(crate) fn id(&self) -> Option<ExchangeId> {
        match self {
            Self::Start(id, _)
            | Self::Body { id, .. }
            | Self::Room(id, _)
            | Self::Message(id, _)
            | Self::Closed { id, .. }
            | Self::Disconnect(id)
            | Self::GivenUp(id)
            | Self::File(id, _)
            | Self::FileSent(id, _) => Some(*id),
            Self::Dropped | Self::Ping | Self::CloseWebSockets(_) | Self::CancelAll => None,
        }
    }
}

/// What becomes of handshakes that the application has not answered when WebSockets are closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshakes {
    /// They fail: there is no server any more.
    Fail,
    /// They succeed if the application accepts, and are closed then: another process serves.
    Finish,
}

/// From the loop to the Envoy worker. Bounded by [`RESPONSE_WINDOW`](super::RESPONSE_WINDOW) an exchange.
#[derive(Debug)]
pub(crate) enum Outbound {
    /// The head of the response with the first of its body.
    Start {
        /// Whose response it is.
        id: ExchangeId,
        /// Status and headers.
        head: ResponseHead,
        /// The first piece of the body.
        body: Data,
        /// Whether the response is complete.
        end: bool,
    },
    /// More of the body.
    Body {
        /// Whose response it is.
        id: ExchangeId,
        /// The piece.
        data: Data,
        /// Whether the response is complete.
        end: bool,
    },
    /// The application has taken this many bytes of the request body, or messages of this cost.
    Read(ExchangeId, usize),
    /// The handshake of a WebSocket succeeds.
    Accept {
        /// Whose WebSocket it is.
        id: ExchangeId,
        /// The one of the client's that the application has chosen.
        subprotocol: Option<String>,
        /// More fields of the response.
        fields: Fields,
    },
    /// A message of a WebSocket.
    Message(ExchangeId, Payload),
    /// Close a WebSocket.
    Close {
        /// Whose WebSocket it is.
        id: ExchangeId,
        /// The close code.
        code: u16,
        /// The reason.
        reason: String,
    },
    /// Time has passed: see to the streams.
    Tick,
    /// Say which requests have not ended.
    Running(Sender<Running>),
    /// An interim head, before the final one.
    Interim {
        /// Whose response it announces.
        id: ExchangeId,
        /// 100 or 103.
        status: u16,
        /// Its fields.
        fields: Fields,
    },
    /// More of the body, of a request whose side [takes files](Request::sends_files).
    File(ExchangeId, FilePart),
    /// The end of the response, with trailers.
    Trailers(ExchangeId, Fields),
    /// The response will not be completed: an error status if nothing was sent and it did not come too late, else a
    /// reset.
    Fail(ExchangeId, Failure),
}

/// Why a response will not be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The application does not complete it.
    Application,
    /// The client neither sends what the application waits for nor takes the response.
    Idle,
    /// The application does not want this WebSocket.
    Refused,
    /// The server stops.
    Stopping,
    /// It came when the server had stopped already: the application has not heard of it.
    TooLate,
}

/// A message of a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Text in UTF-8.
    Text(Vec<u8>),
    /// Any bytes.
    Binary(Vec<u8>),
}

impl Payload {
    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(data) | Self::Binary(data) => data.len(),
        }
    }

    /// What it counts for in [`REQUEST_WINDOW`](super::REQUEST_WINDOW): its bytes, but not so little that the window
    /// would hold more messages than the queue may have.
    pub(crate) fn request_cost(&self, least: usize) -> usize {
        self.len().max(least)
    }

    /// What it counts for in [`RESPONSE_WINDOW`](super::RESPONSE_WINDOW).
    pub(crate) fn response_cost(&self) -> usize {
        self.len().max(LEAST_COST)
    }
}

impl Outbound {
    /// Whose message it is; `None` if it is all streams'.
    pub(crate) fn id(&self) -> Option<ExchangeId> {
        match self {
            Self::Tick | Self::Running(_) => None,
            Self::Start { id, .. }
            | Self::Body { id, .. }
            | Self::Read(id, _)
            | Self::Interim { id, .. }
            | Self::File(id, _)
            | Self::Trailers(id, _)
            | Self::Accept { id, .. }
            | Self::Message(id, _)
            | Self::Close { id, .. }
            | Self::Fail(id, _) => Some(*id),
        }
    }

    /// Bytes of a body that are [kept](Data::kept).
    pub(crate) fn kept(&self) -> usize {
        match self {
            Self::Start { body: data, .. } | Self::Body { data, .. } => data.kept(),
            _ => 0,
        }
    }

    /// Takes `next` into this message if both carry the body of one response in sequence: what
    /// Envoy has not taken yet may as well leave in one piece.
    pub(crate) fn merge(&mut self, next: Self) -> Option<Self> {
        if matches!((&*self, &next), (Self::Tick, Self::Tick)) {
            return None;
        }
        let Self::Body {
            id: next_id,
            data: next_data,
            end: next_end,
        } = next
        else {
            return Some(next);
        };
        match self {
            Self::Start {
                id,
                body: data,
                end,
                ..
            }
            | Self::Body { id, data, end }
                if *id == next_id =>
            {
                let left = data.append(next_data);
                if left.is_none() {
                    *end = next_end;
                }
                left.map(|data| Self::Body {
                    id: next_id,
                    data,
                    end: next_end,
                })
            }
            _ => Some(Self::Body {
                id: next_id,
                data: next_data,
                end: next_end,
            }),
        }
    }
}

/// A request as it left Envoy: its head, and its body as far as it arrived with it.
#[derive(Debug)]
pub(crate) struct Request {
    /// The head, which both sides may keep for the log.
    pub head: Arc<RequestHead>,
    /// The body so far.
    pub body: Vec<u8>,
    /// Whether `body` is all of it.
    pub complete: bool,
    /// What it offers, if it asks for a WebSocket.
    pub websocket: Option<Box<WebSocketOffer>>,
    /// Whether files may be given to its side as such.
    pub sends_files: bool,
}

/// What the loop's side needs to know of the handshake of a WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocketOffer {
    /// The subprotocols that the client knows, in its order.
    pub subprotocols: Vec<String>,
    /// See [`Payload::request_cost`].
    pub least_cost: usize,
}

/// The head of a final response, checked: see `app::checked_fields`.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// 200 to 999.
    pub status: u16,
    /// The fields in the application's order.
    pub fields: Fields,
    /// The connection is to be closed after this response.
    pub close: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Table;

    #[test]
    fn body_joins_only_the_same_open_response() {
        let mut table = Table::default();
        let (one, two) = (table.insert_with(|_| ()), table.insert_with(|_| ()));
        let body = |id, end| Outbound::Body {
            id,
            data: b"x".to_vec().into(),
            end,
        };
        let mut newest = body(one, false);
        assert!(newest.merge(body(two, false)).is_some());
        let fail = Outbound::Fail(one, Failure::Application);
        assert!(newest.merge(fail).is_some());
        assert!(newest.merge(body(one, true)).is_none());
        assert!(matches!(newest, Outbound::Body { data, end: true, .. } if *data == *b"xx"));
    }
}

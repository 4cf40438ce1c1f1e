//! A WebSocket on its stream: from the client's frames to the loop, and back.

mod closing;
mod keepalive;
mod messages;
mod opening;

use std::time::Duration;

use envoy::fake::{Request, Stream};
use envoy::{AttributeId, DataStatus};

use crate::envoy_thread::{self, EnvoyThread, PlayedLoop};
use crate::websocket::tests::{BINARY, CLOSE, FIN, PING, PONG, RSV1, TEXT, frames, script};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

const INSTANT: Duration = Duration::from_millis(1);

/// A stream that asks for a WebSocket, with its thread and the loop. The stream goes first.
struct Socket {
    stream: Stream,
    played: PlayedLoop,
    envoy: EnvoyThread,
}

/// A request for a WebSocket over HTTP/1.1.
pub(super) fn handshake() -> Request {
    Request::get("/")
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// The same over HTTP/2, as Envoy shows it.
fn handshake_of_http_2() -> Request {
    Request::get("/")
        .attribute(AttributeId::RequestProtocol, "HTTP/2")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
}

/// A WebSocket of which the loop knows, and which it has not accepted.
fn offered() -> Socket {
    offered_by("{}", handshake())
}

fn offered_by(settings: &str, request: Request) -> Socket {
    offered_in(envoy_thread::start_with(settings), request)
}

fn offered_in((envoy, mut played): (EnvoyThread, PlayedLoop), request: Request) -> Socket {
    let stream = envoy.stream(request);
    stream.request_headers(false);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start """#]);
    Socket {
        stream,
        played,
        envoy,
    }
}

/// One that is open.
fn opened() -> Socket {
    opened_by("{}", handshake())
}

fn opened_by(settings: &str, request: Request) -> Socket {
    opened_in(envoy_thread::start_with(settings), request)
}

fn opened_in(started: (EnvoyThread, PlayedLoop), request: Request) -> Socket {
    let socket = offered_in(started, request);
    socket.played.accept(0);
    socket.envoy.run_events();
    assert_eq!(socket.stream.response().status(), Some(101));
    socket
}

impl Socket {
    /// The client sends frames, which are in one piece.
    #[track_caller]
    fn client(&self, frames: &[(u8, &[u8])]) -> DataStatus {
        let status = self.stream.request_body(script(frames), false);
        self.envoy.run_events();
        status
    }

    /// The client ends its side.
    #[track_caller]
    fn client_ends(&self) {
        self.stream.request_body("", true);
        self.envoy.run_events();
    }

    /// Time passes.
    fn after(&self, time: Duration) {
        self.played.advance(time);
        self.envoy.run_events();
    }

    /// The frames that were sent to the client.
    fn sent(&self) -> Vec<(u8, Vec<u8>)> {
        frames(&self.stream.response().body)
    }

    /// The last of them.
    fn last_sent(&self) -> Option<(u8, Vec<u8>)> {
        self.sent().pop()
    }

    /// The stream was ended, and not reset; of it only the application's call is in flight.
    #[track_caller]
    fn assert_ended(&self) {
        let response = self.stream.response();
        assert!(response.end_of_stream);
        assert_eq!(response.reset, None);
        assert!(self.stream.is_complete());
        self.assert_over();
    }

    /// Of the stream only the application's call is in flight.
    #[track_caller]
    fn assert_over(&self) {
        assert_eq!(self.envoy.in_flight(), 1);
    }
}

/// A close frame, as [`Socket::sent`] gives it.
fn close(code: u16, reason: &str) -> (u8, Vec<u8>) {
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    (FIN | CLOSE, payload)
}

const BYE: &[u8] = b"\x03\xe8bye";

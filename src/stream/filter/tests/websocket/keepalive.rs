//! Pings, and clients that do not answer them.

use super::*;
use crate::envoy_thread::NOTHING;

const INTERVAL: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(5);

const SETTINGS: &str = r#"{"ws_ping_interval": 20, "ws_ping_timeout": 5}"#;

fn ping() -> (u8, Vec<u8>) {
    (FIN | PING, Vec::new())
}

#[test]
fn a_ping_is_sent_after_each_interval() {
    let mut socket = opened_by(SETTINGS, handshake());
    for pings in 1..4 {
        socket.after(INTERVAL - INSTANT);
        assert_eq!(socket.sent().len(), pings - 1);
        socket.after(INSTANT);
        assert_eq!(socket.sent(), vec![ping(); pings]);
        socket.client(&[(FIN | PONG, b"")]);
    }
    assert_eq!(socket.played.take(), NOTHING);
}

#[test]
fn a_client_that_does_not_answer_is_closed() {
    let mut socket = opened_by(SETTINGS, handshake());
    socket.after(INTERVAL);
    // A message is no answer.
    socket.client(&[(FIN | TEXT, b"ab")]);
    socket.after(TIMEOUT - INSTANT);
    assert_eq!(socket.sent(), [ping()]);
    socket.after(INSTANT);
    let reason = "keepalive ping timeout";
    assert_eq!(socket.sent(), [ping(), close(1011, reason)]);
    assert_eq!(
        socket.played.take(),
        [
            r#"0: text "ab""#,
            r#"0: closed 1011 "keepalive ping timeout""#
        ]
    );
    socket.assert_ended();
}

/// A pong can't come in the middle of a frame.
#[test]
fn a_client_amid_a_long_frame_has_time() {
    let mut socket = opened_by(SETTINGS, handshake());
    let frame = script(&[(FIN | BINARY, &[0; 100])]);
    socket.stream.request_body(&frame[..50], false);
    socket.after(INTERVAL);
    for byte in 50..60 {
        socket.after(TIMEOUT - INSTANT);
        socket.stream.request_body(&frame[byte..=byte], false);
    }
    assert_eq!(socket.sent(), [ping()]);
    socket.stream.request_body(&frame[60..], false);
    socket.after(TIMEOUT);
    assert_eq!(
        socket.last_sent(),
        Some(close(1011, "keepalive ping timeout"))
    );
    assert_eq!(socket.played.take().len(), 2, "the message, and the close");
}

#[test]
fn an_answer_ends_the_wait() {
    let mut socket = opened_by(SETTINGS, handshake());
    socket.after(INTERVAL);
    socket.client(&[(FIN | PONG, b"")]);
    socket.after(TIMEOUT);
    assert_eq!(socket.sent(), [ping()]);
    assert_eq!(socket.played.take(), NOTHING);
    assert!(!socket.stream.is_complete());
}

#[test]
fn an_interval_of_zero_is_never() {
    let socket = opened_by(r#"{"ws_ping_interval": 0}"#, handshake());
    socket.after(1000 * INTERVAL);
    assert!(socket.sent().is_empty());
    assert!(!socket.stream.is_complete());
}

#[test]
fn a_timeout_of_zero_is_for_ever() {
    let socket = opened_by(r#"{"ws_ping_timeout": 0}"#, handshake());
    socket.after(INTERVAL);
    socket.after(1000 * INTERVAL);
    assert_eq!(socket.sent(), [ping()]);
    socket.client(&[(FIN | PONG, b"")]);
    socket.after(INSTANT);
    assert_eq!(socket.sent(), [ping(), ping()]);
}

#[test]
fn there_is_none_before_the_accept() {
    let mut socket = offered_by(SETTINGS, handshake());
    socket.after(10 * INTERVAL);
    assert_eq!(socket.played.take(), NOTHING);
    socket.played.accept(0);
    socket.envoy.run_events();
    socket.after(INTERVAL - INSTANT);
    assert!(
        socket.sent().is_empty(),
        "the interval begins at the accept"
    );
    socket.after(INSTANT);
    assert_eq!(socket.sent(), [ping()]);
}

#[test]
fn there_is_none_after_a_close_frame() {
    let socket = opened_by(r#"{"ws_ping_interval": 1}"#, handshake());
    socket.played.close_websocket(0, 1000, "");
    socket.envoy.run_events();
    socket.after(Duration::from_secs(2));
    assert_eq!(socket.sent(), [close(1000, "")]);
}

/// Its answer may be behind what there is no room for.
#[test]
fn a_client_that_waits_for_the_application_is_pinged_and_not_closed() {
    let mut socket = opened_by(SETTINGS, handshake());
    let message: (u8, &[u8]) = (FIN | TEXT, b"a");
    socket.client(&[message; 33]);
    assert_eq!(socket.played.take().len(), 32);
    for _ in 0..5 {
        socket.after(INTERVAL);
    }
    assert_eq!(socket.sent(), vec![ping(); 5]);
    assert!(!socket.stream.is_complete());
    // From here on it has to answer again.
    socket.played.read(0, 32 * 8192);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "a""#]);
    socket.after(TIMEOUT);
    assert_eq!(
        socket.last_sent(),
        Some(close(1011, "keepalive ping timeout"))
    );
    socket.assert_ended();
}

#[test]
fn the_workers_clock_brings_them() {
    let ticking = envoy_thread::start_ticking(r#"{"ws_ping_interval": "0.02"}"#);
    let socket = opened_in(ticking, handshake());
    crate::admission::clock::advance(INTERVAL);
    socket.envoy.run_until(|| !socket.sent().is_empty());
    assert_eq!(socket.sent(), [ping()]);
}

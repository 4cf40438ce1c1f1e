//! Every way in which a WebSocket ends.

use std::time::Duration;

use super::*;
use crate::envoy_thread::NOTHING;

/// Of HTTP/2, with a client that has had our last frame but has not ended its side.
fn opened_over_http_2() -> Socket {
    opened_by("{}", handshake_of_http_2())
}

/// Whatever the loop still posts, nothing comes of it.
#[track_caller]
fn assert_deaf(socket: &mut Socket) {
    let response = socket.stream.response();
    socket.played.text(0, "late");
    socket.played.read(0, 1);
    socket.played.close_websocket(0, 1000, "late");
    socket.played.fail(0);
    socket.after(CLOSE_TIMEOUT);
    assert_eq!(socket.stream.response(), response);
    assert_eq!(socket.played.take(), NOTHING);
}

#[test]
fn the_client_closes() {
    let mut socket = opened();
    socket.client(&[
        (FIN | TEXT, b"ab"),
        (FIN | CLOSE, BYE),
        (FIN | TEXT, b"cd"),
        (FIN | CLOSE, BYE),
    ]);
    assert_eq!(
        socket.played.take(),
        [r#"0: text "ab""#, r#"0: closed 1000 "bye""#]
    );
    assert_eq!(socket.sent(), [close(1000, "")]);
    socket.assert_ended();
    assert_deaf(&mut socket);
    socket.played.return_calls();
    assert_eq!(socket.envoy.in_flight(), 0);
}

#[test]
fn the_client_closes_over_http_2() {
    let mut socket = opened_over_http_2();
    socket.client(&[(FIN | CLOSE, b"")]);
    assert_eq!(socket.played.take(), [r#"0: closed 1005 """#]);
    assert_eq!(socket.sent(), [(FIN | CLOSE, Vec::new())]);
    socket.assert_ended();
}

/// One over HTTP/2 that is sent more than a client's window may have room for.
fn in_a_burst() -> Socket {
    let mut socket = opened_over_http_2();
    socket.played.binary(0, vec![0; 70_000]);
    socket.envoy.run_events();
    socket.played.take();
    socket
}

#[test]
fn the_client_closes_in_a_burst_and_ends_its_side() {
    let mut socket = in_a_burst();
    socket.client(&[(FIN | CLOSE, b"")]);
    assert_eq!(socket.played.take(), [r#"0: closed 1005 """#]);
    assert_eq!(socket.sent().len(), 2);
    assert!(!socket.stream.is_complete(), "its end would be a reset");
    socket.client(&[(FIN | TEXT, b"ab")]);
    socket.played.text(0, "late");
    socket.played.close_websocket(0, 1000, "");
    socket.client_ends();
    assert_eq!(socket.sent().len(), 2);
    assert_eq!(socket.played.take(), NOTHING);
    socket.assert_ended();
}

#[test]
fn the_client_closes_in_a_burst_and_does_not_end_its_side() {
    let mut socket = in_a_burst();
    socket.client(&[(FIN | CLOSE, BYE)]);
    socket.played.take();
    assert_eq!(socket.envoy.in_flight(), 2);
    socket.after(Duration::from_millis(499));
    assert!(!socket.stream.is_complete());
    socket.after(INSTANT);
    assert_eq!(socket.played.take(), NOTHING);
    socket.assert_ended();
}

#[test]
fn a_client_that_closes_and_goes_is_not_told_again() {
    let mut socket = in_a_burst();
    socket.client(&[(FIN | CLOSE, BYE)]);
    socket.stream.disconnect();
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: closed 1000 "bye""#]);
    socket.assert_over();
}

#[test]
fn what_a_client_sent_before_it_went_is_told() {
    let mut socket = opened_by(r#"{"ws_max_queue": 1}"#, handshake());
    socket.client(&[(FIN | TEXT, b"a"), (FIN | TEXT, b"b"), (FIN | TEXT, b"c")]);
    assert_eq!(socket.played.take(), [r#"0: text "a""#]);
    socket.stream.disconnect();
    socket.envoy.run_events();
    assert_eq!(
        socket.played.take(),
        [r#"0: text "b""#, r#"0: text "c""#, "0: disconnect"]
    );
}

/// Else a client could have us fill any memory: a message of 16 MiB is sent in 16 KiB.
#[test]
fn of_compressed_messages_before_it_went_only_some_are_told() {
    let request = handshake().header("sec-websocket-extensions", "permessage-deflate");
    let mut socket = opened_by(r#"{"ws_max_queue": 1}"#, request);
    let mut compressed = Vec::with_capacity(10_000);
    flate2::Compress::new(flate2::Compression::best(), false)
        .compress_vec(&[0; 200_000], &mut compressed, flate2::FlushCompress::Sync)
        .expect("compressed");
    compressed.truncate(compressed.len() - 4);
    for _ in 0..10 {
        socket.client(&[(FIN | RSV1 | BINARY, &compressed)]);
    }
    assert_eq!(socket.played.take().len(), 1);
    socket.stream.disconnect();
    socket.envoy.run_events();
    let told = socket.played.take();
    assert_eq!(told.len(), 3, "what fills the window, and the disconnect");
}

#[test]
fn close_frame_and_end_may_come_together() {
    for request in [handshake(), handshake_of_http_2()] {
        std::thread::spawn(|| {
            let mut socket = opened_by("{}", request);
            let bytes = script(&[(FIN | CLOSE, BYE)]);
            socket.stream.request_body(bytes, true);
            socket.envoy.run_events();
            assert_eq!(socket.played.take(), [r#"0: closed 1000 "bye""#]);
            assert_eq!(socket.sent(), [close(1000, "")]);
            socket.assert_ended();
        })
        .join()
        .expect("the test passes");
    }
}

#[test]
fn we_close_and_the_client_answers() {
    for request in [handshake(), handshake_of_http_2()] {
        std::thread::spawn(|| {
            let mut socket = opened_by("{}", request);
            socket.played.text(0, "ab");
            socket.played.close_websocket(0, 4000, "done");
            socket.played.text(0, "late");
            socket.envoy.run_events();
            let expected = [(FIN | TEXT, b"ab".to_vec()), close(4000, "done")];
            assert_eq!(socket.sent(), expected);
            assert!(!socket.stream.is_complete());
            // Sent before our close frame was there.
            socket.client(&[(FIN | TEXT, b"ab"), (FIN | PING, b"")]);
            assert_eq!(socket.played.take(), NOTHING);
            socket.client(&[(FIN | CLOSE, b"\x0f\xa0")]);
            assert_eq!(socket.played.take(), [r#"0: closed 4000 """#]);
            assert_eq!(socket.sent(), expected);
            socket.assert_ended();
            assert_deaf(&mut socket);
        })
        .join()
        .expect("the test passes");
    }
}

#[test]
fn both_close_at_once() {
    let mut socket = opened();
    // Its close frame is there before ours is sent.
    socket
        .stream
        .request_body(script(&[(FIN | CLOSE, BYE)]), false);
    socket.played.close_websocket(0, 4000, "done");
    socket.envoy.run_events();
    assert_eq!(socket.sent(), [close(1000, "")]);
    assert_eq!(socket.played.take(), [r#"0: closed 1000 "bye""#]);
    socket.assert_ended();
}

#[test]
fn a_client_that_does_not_answer_our_close_frame_has_its_time() {
    for request in [handshake(), handshake_of_http_2()] {
        std::thread::spawn(|| {
            let mut socket = opened_by("{}", request);
            socket.after(Duration::from_secs(5));
            socket.played.close_websocket(0, 1000, "");
            socket.envoy.run_events();
            socket.after(CLOSE_TIMEOUT - INSTANT);
            assert!(!socket.stream.is_complete());
            socket.after(INSTANT);
            assert_eq!(socket.sent(), [close(1000, "")]);
            assert_eq!(socket.played.take(), NOTHING);
            socket.assert_ended();
        })
        .join()
        .expect("the test passes");
    }
}

#[test]
fn a_client_that_ends_its_side_instead_of_an_answer_is_gone() {
    let mut socket = opened();
    socket.played.close_websocket(0, 1000, "");
    socket.envoy.run_events();
    socket.client_ends();
    assert_eq!(socket.played.take(), ["0: disconnect"]);
    socket.assert_ended();
}

#[test]
fn the_answer_to_our_close_frame_is_found_behind_what_was_kept() {
    let mut socket = opened();
    let message: (u8, &[u8]) = (FIN | TEXT, b"a");
    socket.client(&[message; 50]);
    socket.client(&[message, (FIN | CLOSE, BYE)]);
    assert_eq!(socket.played.take().len(), 32);
    socket.played.close_websocket(0, 1000, "");
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: closed 1000 "bye""#]);
    socket.assert_ended();
}

#[test]
fn a_client_that_ends_its_side_without_a_close_frame_is_gone() {
    for request in [handshake(), handshake_of_http_2()] {
        std::thread::spawn(|| {
            let mut socket = opened_by("{}", request);
            // The frame is not complete.
            let bytes = script(&[(FIN | TEXT, b"ab"), (FIN | TEXT, b"cd")]);
            let bytes = &bytes[..bytes.len() - 1];
            socket.stream.request_body(bytes, true);
            socket.envoy.run_events();
            assert_eq!(socket.played.take(), [r#"0: text "ab""#, "0: disconnect"]);
            assert!(socket.sent().is_empty());
            socket.assert_ended();
            assert_deaf(&mut socket);
        })
        .join()
        .expect("the test passes");
    }
}

#[test]
fn the_end_of_its_side_waits_for_what_is_kept() {
    let mut socket = opened();
    let message: (u8, &[u8]) = (FIN | TEXT, b"a");
    socket.client(&[message; 33]);
    socket.client_ends();
    assert_eq!(socket.played.take().len(), 32);
    assert!(!socket.stream.is_complete());
    socket.played.read(0, 65536);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "a""#, "0: disconnect"]);
    socket.assert_ended();
}

#[test]
fn a_client_that_goes_is_told() {
    let mut socket = opened();
    socket.client(&[(FIN | TEXT, b"ab")]);
    socket.stream.disconnect();
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "ab""#, "0: disconnect"]);
    socket.assert_over();
    assert_deaf(&mut socket);
}

#[test]
fn a_client_that_goes_after_our_close_frame_is_told() {
    let mut socket = opened();
    socket.played.close_websocket(0, 1000, "");
    socket.envoy.run_events();
    socket.stream.disconnect();
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), ["0: disconnect"]);
    socket.assert_over();
    assert_deaf(&mut socket);
}

#[test]
fn an_end_inside_a_send_is_told() {
    let mut socket = opened();
    socket.stream.set_response_limit(10);
    socket.played.binary(0, vec![0; 5000]);
    socket.played.text(0, "late");
    socket.envoy.run_events();
    assert!(socket.stream.response().reset.is_some());
    assert_eq!(socket.played.take(), ["0: disconnect"]);
    socket.assert_over();
}

#[test]
fn an_end_inside_a_pong_is_told() {
    let mut socket = opened();
    socket.stream.set_response_limit(1);
    socket
        .stream
        .request_body(script(&[(FIN | PING, b"a"), (FIN | TEXT, b"b")]), false);
    socket.envoy.run_events();
    assert!(socket.stream.response().reset.is_some());
    assert_eq!(socket.played.take(), [r#"0: text "b""#, "0: disconnect"]);
    socket.assert_over();
}

#[test]
fn a_failure_after_the_accept_is_a_reset() {
    let mut socket = opened();
    socket.played.fail(0);
    socket.envoy.run_events();
    assert!(socket.stream.response().reset.is_some());
    assert_eq!(socket.played.take(), NOTHING);
    socket.assert_over();
}

#[test]
fn broken_frames_close_it() {
    let cases: [(u8, &[u8], u16); 4] = [
        (FIN | 3, b"", 1002),
        (FIN | TEXT, b"\xff", 1007),
        (FIN | BINARY, &[0; 11], 1009),
        (FIN | CLOSE, b"\x03", 1002),
    ];
    for (first, payload, code) in cases {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut socket = opened_by(r#"{"ws_max_size": 10}"#, handshake());
                socket.client(&[(FIN | TEXT, b"ab")]);
                socket.client(&[(first, payload)]);
                let messages = socket.played.take();
                assert_eq!(messages.len(), 2);
                assert!(messages[1].starts_with(&format!("0: closed {code} ")));
                let (first, payload) = socket.last_sent().expect("a close frame");
                assert_eq!(first, FIN | CLOSE);
                assert!(payload.starts_with(&code.to_be_bytes()));
                socket.assert_ended();
                assert_deaf(&mut socket);
            });
        });
    }
}

#[test]
fn the_largest_message_is_taken() {
    let mut socket = opened_by(r#"{"ws_max_size": 10}"#, handshake());
    socket.client(&[(FIN | BINARY, &[b'a'; 10])]);
    assert_eq!(socket.played.take(), [r#"0: binary "aaaaaaaaaa""#]);
}

#[test]
fn broken_frames_after_our_close_frame_end_it() {
    let mut socket = opened();
    socket.played.close_websocket(0, 1000, "");
    socket.envoy.run_events();
    socket.client(&[(FIN | 3, b"")]);
    assert_eq!(socket.sent(), [close(1000, "")]);
    assert_eq!(socket.played.take().len(), 1);
    socket.assert_ended();
}

#[test]
fn streams_beside_it_go_on() {
    let mut socket = opened();
    let other = socket.envoy.stream(handshake());
    other.request_headers(false);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"1: start """#]);
    socket.played.accept(1);
    socket.envoy.run_events();
    socket.client(&[(FIN | CLOSE, BYE)]);
    other.request_body(script(&[(FIN | TEXT, b"ab")]), false);
    socket.played.text(1, "cd");
    socket.envoy.run_events();
    assert_eq!(
        socket.played.take(),
        [r#"0: closed 1000 "bye""#, r#"1: text "ab""#]
    );
    assert_eq!(
        frames(&other.response().body),
        [(FIN | TEXT, b"cd".to_vec())]
    );
    assert!(!other.is_complete());
}

#[test]
fn trailers_end_its_side_too() {
    let mut socket = opened_over_http_2();
    socket.client(&[(FIN | TEXT, b"ab")]);
    socket.stream.request_trailers(&[("a", "b")]);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "ab""#, "0: disconnect"]);
    socket.assert_ended();
}

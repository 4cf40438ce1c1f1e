//! Messages in both directions, and who has to wait for whom.

use super::*;
use crate::envoy_thread::{NOTHING, Random};
use crate::exchange::{REQUEST_WINDOW, WINDOW_STEP};

/// What one of the messages that fill the queue counts for.
const LEAST_COST: usize = REQUEST_WINDOW / 32;

const KEPT: DataStatus = DataStatus::StopIterationAndWatermark;
const TAKEN: DataStatus = DataStatus::StopIterationNoBuffer;

/// One whose window is full of small messages.
fn full() -> Socket {
    let mut socket = opened();
    for _ in 0..32 {
        assert_eq!(socket.client(&[(FIN | TEXT, b"a")]), TAKEN);
    }
    assert_eq!(socket.played.take().len(), 32);
    socket
}

#[test]
fn they_are_told() {
    let mut socket = opened();
    let frames: [(u8, &[u8]); 3] = [
        (FIN | TEXT, "κ".as_bytes()),
        (FIN | BINARY, b"\xff\0"),
        (FIN | TEXT, b""),
    ];
    assert_eq!(socket.client(&frames), TAKEN);
    assert_eq!(
        socket.played.take(),
        [r#"0: text "κ""#, "0: binary <2>", r#"0: text """#]
    );
    assert!(socket.sent().is_empty());
}

#[test]
fn they_are_sent() {
    let mut socket = opened();
    let large = vec![b'x'; 5000];
    socket.played.text(0, "κ");
    socket.played.binary(0, b"\xff\0");
    socket.played.binary(0, &large);
    socket.played.text(0, "");
    socket.envoy.run_events();
    assert_eq!(
        socket.sent(),
        [
            (FIN | TEXT, "κ".into()),
            (FIN | BINARY, b"\xff\0".to_vec()),
            (FIN | BINARY, large),
            (FIN | TEXT, Vec::new()),
        ]
    );
    assert_eq!(socket.played.take(), NOTHING);
}

#[test]
fn frames_may_be_split_over_hooks_and_slices() {
    let mut socket = opened();
    let bytes = script(&[
        (FIN | TEXT, b"ab"),
        (BINARY, b"c"),
        (FIN | PING, b"e"),
        (FIN, b"d"),
    ]);
    for byte in bytes.chunks(1) {
        assert_eq!(socket.stream.request_body(byte, false), TAKEN);
    }
    let expected = [r#"0: text "ab""#, r#"0: binary "cd""#];
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), expected);
    let slices: Vec<_> = bytes.chunks(3).collect();
    socket.stream.request_body_chunks(&slices, false);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), expected);
    assert_eq!(socket.sent(), vec![(FIN | PONG, b"e".to_vec()); 2]);
}

#[test]
fn half_a_message_fills_no_window() {
    let mut socket = opened();
    let piece = vec![0; REQUEST_WINDOW];
    for first in [BINARY, 0, 0] {
        assert_eq!(socket.client(&[(first, &piece)]), TAKEN);
    }
    socket.client(&[(FIN, b"")]);
    assert_eq!(socket.played.take(), ["0: binary <786432>"]);
    // Now it is full.
    assert_eq!(socket.client(&[(FIN | TEXT, b"a")]), KEPT);
}

#[test]
fn small_ones_wait_while_the_queue_is_full() {
    let mut socket = full();
    assert_eq!(socket.client(&[(FIN | TEXT, b"b")]), KEPT);
    assert_eq!(
        socket.client(&[(FIN | TEXT, b"c"), (FIN | TEXT, b"d")]),
        KEPT
    );
    assert_eq!(socket.played.take(), NOTHING);
    socket.played.read(0, 2 * LEAST_COST);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "b""#, r#"0: text "c""#]);
    let left = script(&[(FIN | TEXT, b"d")]).len();
    assert_eq!(socket.stream.buffered_request_body_len(), left);
    socket.played.read(0, LEAST_COST);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "d""#]);
    assert_eq!(socket.stream.buffered_request_body_len(), 0);
    // In order again.
    socket.played.read(0, LEAST_COST);
    socket.envoy.run_events();
    assert_eq!(socket.client(&[(FIN | TEXT, b"e")]), TAKEN);
    assert_eq!(socket.played.take(), [r#"0: text "e""#]);
}

#[test]
fn of_one_piece_what_fits_is_taken() {
    let mut socket = opened();
    let message: (u8, &[u8]) = (FIN | TEXT, b"a");
    assert_eq!(socket.client(&[message; 40]), KEPT);
    assert_eq!(socket.played.take().len(), 32);
    let kept = script(&[message; 8]).len();
    assert_eq!(socket.stream.buffered_request_body_len(), kept);
}

#[test]
fn large_ones_count_for_their_bytes() {
    let mut socket = opened();
    let large = vec![0; REQUEST_WINDOW];
    assert_eq!(socket.client(&[(FIN | BINARY, &large)]), TAKEN);
    assert_eq!(socket.client(&[(FIN | TEXT, b"a")]), KEPT);
    assert_eq!(socket.played.take(), ["0: binary <262144>"]);
    socket.played.read(0, 1);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "a""#]);
}

#[test]
fn envoy_stops_reading_meanwhile() {
    let mut socket = full();
    socket.stream.set_buffer_limit(100);
    for _ in 0..100 {
        let message = script(&[(FIN | TEXT, b"b")]);
        socket.stream.client_sends(message, false);
    }
    assert!(!socket.stream.is_reading());
    assert!(socket.stream.buffered_request_body_len() < 110);
    let mut told = 0;
    for _ in 0..200 {
        socket.played.read(0, LEAST_COST);
        socket.envoy.run_events();
        told += socket.played.take().len();
    }
    assert_eq!(told, 100);
    assert!(socket.stream.is_reading());
}

/// Pieces of any size come at any time, and the loop reads now and then.
#[test]
fn none_is_lost_or_told_out_of_turn() {
    let mut random = Random::new(0x5eed);
    let mut socket = opened();
    socket.stream.set_buffer_limit(300);
    let expected: Vec<_> = (0..2000).map(|number| number.to_string()).collect();
    let bytes: Vec<_> = expected
        .iter()
        .flat_map(|text| script(&[(FIN | TEXT, text.as_bytes()), (FIN | PING, b"")]))
        .collect();
    let (mut rest, mut told, mut unread) = (bytes.as_slice(), Vec::new(), 0);
    for _ in 0..100_000 {
        if !rest.is_empty() && random.once_in(2) {
            let piece = rest.len().min(1 + random.below(50));
            socket.stream.client_sends(&rest[..piece], false);
            rest = &rest[piece..];
        }
        if unread > 0 && random.once_in(2) {
            let read = 1 + random.below(unread);
            unread -= read;
            socket.played.read(0, read * LEAST_COST);
        }
        socket.envoy.run_events();
        let messages = socket.played.take();
        unread += messages.len();
        assert!(unread <= 32, "the queue is full");
        told.extend(messages);
        if told.len() == expected.len() {
            break;
        }
    }
    let expected: Vec<_> = expected
        .iter()
        .map(|text| format!("0: text {text:?}"))
        .collect();
    assert_eq!(told, expected);
    socket.client_ends();
    assert_eq!(socket.sent(), vec![(FIN | PONG, Vec::new()); 2000]);
}

#[test]
fn room_is_reported_by_what_messages_count_for() {
    let mut socket = opened();
    socket.played.binary(0, vec![0; WINDOW_STEP - 1]);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), NOTHING);
    socket.played.text(0, "a");
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), ["0: room 65599"]);
}

#[test]
fn room_is_withheld_while_the_client_is_slow() {
    let mut socket = opened();
    socket.stream.above_write_buffer_high_watermark();
    socket.played.binary(0, vec![0; WINDOW_STEP]);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), NOTHING);
    socket.stream.below_write_buffer_low_watermark();
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), ["0: room 65536"]);
}

#[test]
fn pings_are_answered_past_the_applications_turn() {
    let mut socket = opened();
    socket.client(&[(FIN | PING, b"a"), (FIN | PONG, b"b"), (FIN | PING, b"")]);
    let expected = [(FIN | PONG, b"a".to_vec()), (FIN | PONG, Vec::new())];
    assert_eq!(socket.sent(), expected);
    assert_eq!(socket.played.take(), NOTHING);
}

#[test]
fn pings_of_a_client_that_does_not_read_wait() {
    let mut socket = opened();
    socket.stream.set_write_buffer_limit(1000);
    // 127 bytes of answer to each.
    let pings: [(u8, &[u8]); 10] = [(FIN | PING, &[0; 125]); 10];
    let all = (0..100).filter(|_| socket.client(&pings) == TAKEN).count();
    assert!(all < 100);
    let length = socket.stream.response().body.len();
    assert!((60 * 1024..80 * 1024).contains(&length), "{length}");
    socket.client(&[(FIN | TEXT, b"a")]);
    assert_eq!(socket.played.take(), NOTHING);
    // Nothing else than reading helps.
    socket.played.read(0, 0);
    socket.envoy.run_events();
    assert_eq!(socket.stream.response().body.len(), length);
    let mut read = 0;
    for _ in 0..10 {
        let length = socket.stream.response().body.len();
        socket.stream.client_reads(length - read);
        read = length;
        socket.envoy.run_events();
    }
    assert_eq!(socket.sent().len(), 1000);
    assert_eq!(socket.played.take(), [r#"0: text "a""#]);
    assert_eq!(socket.stream.buffered_request_body_len(), 0);
}

#[test]
fn answers_that_were_read_count_no_more() {
    let mut socket = opened();
    socket.stream.above_write_buffer_high_watermark();
    // The last of them is one too many for more, and none is left over.
    let pings: [(u8, &[u8]); 517] = [(FIN | PING, &[0; 125]); 517];
    assert_eq!(socket.client(&pings), TAKEN);
    assert_eq!(socket.client(&[(FIN | PING, b"")]), KEPT);
    socket.stream.below_write_buffer_low_watermark();
    socket.stream.above_write_buffer_high_watermark();
    socket.envoy.run_events();
    assert_eq!(socket.sent().len(), 518);
    assert_eq!(socket.client(&[(FIN | TEXT, b"a")]), TAKEN);
    assert_eq!(socket.played.take(), [r#"0: text "a""#]);
}

#[test]
fn a_client_that_reads_may_ping_without_end() {
    let socket = opened();
    let pings: [(u8, &[u8]); 10] = [(FIN | PING, &[0; 125]); 10];
    for _ in 0..200 {
        assert_eq!(socket.client(&pings), TAKEN);
    }
    assert_eq!(socket.sent().len(), 2000);
}

#[test]
fn its_bytes_are_no_request_body() {
    let settings = r#"{"limit_request_body": 4}"#;
    let mut socket = opened_by(settings, handshake());
    socket.client(&[(FIN | TEXT, b"abcdef")]);
    assert_eq!(socket.played.take(), [r#"0: text "abcdef""#]);
    assert!(!socket.stream.is_complete());
}

#[test]
fn compressed_ones_are_told_and_sent() {
    let request = handshake().header("sec-websocket-extensions", "permessage-deflate");
    let mut socket = opened_by("{}", request);
    // RFC 7692, section 7.2.3.1.
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    socket.client(&[(FIN | RSV1 | TEXT, hello)]);
    assert_eq!(socket.played.take(), [r#"0: text "Hello""#]);
    let text = "ab".repeat(WINDOW_STEP / 2);
    socket.played.text(0, &text);
    socket.envoy.run_events();
    assert_eq!(
        socket.played.take(),
        ["0: room 65536"],
        "as the loop counts"
    );
    let (first, payload) = socket.last_sent().expect("a frame");
    assert_eq!(first, FIN | RSV1 | TEXT);
    assert!(payload.len() < 1000);
}

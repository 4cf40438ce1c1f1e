//! The response, on its way to the client.

use envoy::ResetReason;
use envoy::fake::Stream;

use crate::envoy_thread::{self, EnvoyThread, NOTHING, PlayedLoop};
use crate::exchange::{Failure, Fields, RESPONSE_WINDOW, ResponseHead, WINDOW_STEP, interim_cost};

/// A stream whose request the loop has.
fn requested() -> (EnvoyThread, PlayedLoop, Stream) {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.get();
    envoy.run_events();
    played.take();
    (envoy, played, stream)
}

/// The same with a response that has begun.
fn begun() -> (EnvoyThread, PlayedLoop, Stream) {
    let (envoy, played, stream) = requested();
    played.start(0, "", false);
    envoy.run_events();
    (envoy, played, stream)
}

fn head(status: u16) -> ResponseHead {
    ResponseHead {
        status,
        fields: Fields::default(),
        close: false,
    }
}

#[test]
fn a_whole_one_is_sent_as_it_is() {
    let (envoy, mut played, stream) = requested();
    let mut head = head(207);
    head.fields.push(b"set-cookie", b"a=1");
    head.fields.push(b"content-length", b"5");
    head.fields.push(b"set-cookie", b"\xff");
    head.fields.push(b"x-empty", b"");
    played.start_with(0, head, "hello", true);
    assert!(stream.response().heads.is_empty());
    envoy.run_events();
    let response = stream.response();
    assert_eq!(
        response.heads,
        [[
            (&b":status"[..], &b"207"[..]),
            (b"set-cookie", b"a=1"),
            (b"content-length", b"5"),
            (b"set-cookie", b"\xff"),
            (b"x-empty", b""),
        ]
        .map(|(name, value)| (name.to_vec(), value.to_vec()))]
    );
    assert_eq!(response.body, b"hello");
    assert!(response.end_of_stream);
    assert!(stream.is_complete());
    assert_eq!(stream.go_away(), None);
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn loop_is_told_when_much_that_it_keeps_has_been_dropped() {
    static PIECE: [u8; 40 * 1024] = [b'x'; 40 * 1024];
    let (envoy, mut played) = envoy_thread::start();
    let streams = [(); 4].map(|()| envoy.get());
    let other = envoy.get();
    envoy.run_events();
    played.take();
    // Whether there is somebody to send it to or not.
    streams[3].disconnect();
    envoy.run_events();
    played.take();
    for (exchange, told) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
        played.start(exchange, "", false);
        played.kept_body(exchange, &PIECE, true);
        envoy.run_events();
        assert_eq!(played.take(), ["dropped"][..told]);
    }
    for stream in &streams[..3] {
        assert!(stream.response().body == PIECE && stream.is_complete());
    }
    assert!(!other.is_complete());
}

#[test]
fn every_status_has_three_digits() {
    let statuses = [200, 404, 599, 999];
    let (envoy, mut played) = envoy_thread::start();
    let streams = statuses.map(|_| envoy.get());
    envoy.run_events();
    played.take();
    for (exchange, status) in statuses.into_iter().enumerate() {
        played.start_with(exchange, head(status), "", true);
    }
    envoy.run_events();
    let sent = streams.map(|stream| stream.response().status());
    assert_eq!(sent, statuses.map(|status| Some(u32::from(status))));
}

#[test]
fn an_empty_one_is_a_head_that_ends_it() {
    let (envoy, played, stream) = requested();
    played.answer(0, "");
    envoy.run_events();
    assert_eq!(stream.response().heads.len(), 1);
    assert!(stream.response().body.is_empty());
    assert!(stream.is_complete());
}

#[test]
fn parts_are_sent_in_their_turns() {
    let (envoy, mut played, stream) = requested();
    played.start(0, "", false);
    envoy.run_events();
    assert_eq!(stream.response().status(), Some(200));
    assert!(!stream.is_complete());
    played.body(0, "ab", false);
    envoy.run_events();
    assert_eq!(stream.response().body, b"ab");
    // These leave in one piece.
    played.body(0, "cd", false);
    played.body(0, "ef", false);
    envoy.run_events();
    assert_eq!(stream.response().body, b"abcdef");
    assert!(!stream.is_complete());
    played.body(0, "", true);
    envoy.run_events();
    assert!(stream.is_complete());
    assert_eq!(stream.response().body, b"abcdef");
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn those_of_several_streams_do_not_mix() {
    let (envoy, mut played) = envoy_thread::start();
    let streams = [envoy.get(), envoy.get(), envoy.get()];
    envoy.run_events();
    played.take();
    played.start(2, "c", false);
    played.start(0, "a", false);
    played.body(2, "C", false);
    played.answer(1, "b");
    played.body(0, "A", true);
    played.body(2, "!", true);
    envoy.run_events();
    let bodies = streams.each_ref().map(|stream| stream.response().body);
    assert_eq!(bodies, [&b"aA"[..], b"b", b"cC!"]);
    assert!(streams.iter().all(Stream::is_complete));
}

#[test]
fn room_is_reported_in_steps() {
    let (envoy, mut played, _stream) = begun();
    played.body(0, vec![0; WINDOW_STEP - 1], false);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    played.body(0, "a", false);
    envoy.run_events();
    assert_eq!(played.take(), ["0: room 65536"]);
    played.body(0, vec![0; RESPONSE_WINDOW], false);
    envoy.run_events();
    assert_eq!(played.take(), ["0: room 262144"]);
    played.body(0, vec![0; WINDOW_STEP - 1], false);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn room_is_reported_of_the_first_piece_too() {
    let (envoy, mut played, _stream) = requested();
    played.start(0, vec![0; WINDOW_STEP], false);
    envoy.run_events();
    assert_eq!(played.take(), ["0: room 65536"]);
}

#[test]
fn no_room_is_reported_once_it_is_complete() {
    let (envoy, mut played, stream) = begun();
    played.body(0, vec![0; WINDOW_STEP], true);
    envoy.run_events();
    assert!(stream.is_complete());
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn room_is_withheld_while_the_client_is_slow() {
    let (envoy, mut played, stream) = begun();
    stream.set_write_buffer_limit(100_000);
    played.body(0, vec![0; 100_001], false);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    stream.client_reads(40_000);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    stream.client_reads(20_000);
    envoy.run_events();
    assert_eq!(played.take(), ["0: room 100001"]);
}

#[test]
fn less_than_a_step_is_not_reported_when_the_client_keeps_up_again() {
    let (envoy, mut played, stream) = begun();
    stream.above_write_buffer_high_watermark();
    played.body(0, vec![0; WINDOW_STEP - 1], false);
    envoy.run_events();
    stream.below_write_buffer_low_watermark();
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    played.body(0, "a", false);
    envoy.run_events();
    assert_eq!(played.take(), ["0: room 65536"]);
}

#[test]
fn watermarks_nest() {
    let (envoy, mut played, stream) = begun();
    stream.above_write_buffer_high_watermark();
    stream.above_write_buffer_high_watermark();
    played.body(0, vec![0; WINDOW_STEP], false);
    envoy.run_events();
    stream.below_write_buffer_low_watermark();
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    stream.below_write_buffer_low_watermark();
    // An iteration without a turn of the loop's: the report has an event of its own.
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(played.take(), ["0: room 65536"]);
}

#[test]
fn a_failure_before_it_is_a_500() {
    let (envoy, mut played, stream) = requested();
    played.fail(0);
    envoy.run_events();
    let response = stream.response();
    assert_eq!(response.status(), Some(500));
    assert_eq!(response.body, b"Internal Server Error");
    assert_eq!(response.details, "aiovoy_application_failed");
    assert!(stream.is_complete());
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn a_failure_in_its_midst_is_a_reset() {
    let (envoy, mut played, stream) = begun();
    played.body(0, "ab", false);
    played.fail(0);
    envoy.run_events();
    let response = stream.response();
    assert_eq!(response.reset, Some(ResetReason::LocalReset));
    assert_eq!(response.details, "aiovoy_application_failed");
    assert_eq!(response.body, b"ab");
    assert!(!response.end_of_stream);
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn nothing_follows_the_end() {
    let (envoy, mut played, stream) = requested();
    played.answer(0, "ab");
    played.body(0, "cd", true);
    played.fail(0);
    played.read(0, 1);
    envoy.run_events();
    let response = stream.response();
    assert_eq!(response.body, b"abcd", "the second joined the first");
    assert_eq!(response.reset, None);
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn it_can_come_before_the_request_is_complete() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body("ab", false);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "ab""#]);
    played.answer(0, "cd");
    envoy.run_events();
    assert_eq!(stream.response().body, b"cd");
    stream.request_body("ef", true);
    assert!(stream.is_complete());
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn the_connection_is_closed_after_it_if_the_application_says_so() {
    let (envoy, played, stream) = requested();
    let head = ResponseHead {
        close: true,
        ..head(200)
    };
    played.start_with(0, head, "ab", true);
    envoy.run_events();
    assert_eq!(stream.go_away(), Some(true));
    assert_eq!(stream.response().body, b"ab");
}

#[test]
fn the_connection_is_closed_after_it_while_the_server_stops() {
    let (envoy, played, stream) = requested();
    envoy.drain();
    played.answer(0, "ab");
    envoy.run_events();
    assert_eq!(stream.go_away(), Some(true));
    assert_eq!(stream.response().status(), Some(200));
}

#[test]
fn requests_that_come_after_the_loop_has_ended_are_refused() {
    let (envoy, mut played) = envoy_thread::start();
    let answered = envoy.get();
    envoy.run_events();
    played.take();
    played.close();
    let refused = [envoy.get(), envoy.post()];
    refused[1].request_body("ab", false);
    envoy.run_events();
    for stream in &refused {
        let response = stream.response();
        assert_eq!(response.status(), None);
        assert_eq!(response.reset, Some(ResetReason::LocalReset));
        assert_eq!(response.details, "aiovoy_stopped");
        assert_eq!(stream.go_away(), Some(true));
        assert!(stream.is_complete());
    }
    // The loop's last responses still reach their clients.
    assert!(!answered.is_complete());
    played.answer(0, "late");
    envoy.run_events();
    assert_eq!(answered.response().body, b"late");
}

#[test]
fn a_stream_that_ends_while_it_is_sent_is_told_once() {
    let (envoy, mut played, stream) = begun();
    stream.set_response_limit(10);
    // The turn finds two messages for it, since something else lies between them.
    let other = envoy.get();
    envoy.run_events();
    played.take();
    played.body(0, vec![0; RESPONSE_WINDOW], false);
    played.answer(1, "");
    played.body(0, "ab", true);
    envoy.run_events();
    assert_eq!(stream.response().reset, Some(ResetReason::LocalReset));
    assert!(other.is_complete());
    assert_eq!(played.take(), ["0: disconnect"]);
}

#[test]
fn the_only_stream_may_end_while_it_is_sent() {
    let (envoy, mut played, stream) = begun();
    stream.set_response_limit(10);
    played.body(0, vec![0; RESPONSE_WINDOW], false);
    envoy.run_events();
    assert!(stream.is_complete());
    assert_eq!(played.take(), ["0: disconnect"]);
    // What comes next is served as ever.
    let next = envoy.get();
    envoy.run_events();
    assert_eq!(played.take(), [r#"1: start "" end"#]);
    played.answer(1, "ab");
    envoy.run_events();
    assert_eq!(next.response().body, b"ab");
}

#[test]
fn the_only_stream_may_end_at_the_first_piece() {
    let (envoy, mut played, stream) = requested();
    stream.set_response_limit(10);
    played.start(0, vec![0; RESPONSE_WINDOW], false);
    envoy.run_events();
    assert!(stream.is_complete());
    assert_eq!(played.take(), ["0: disconnect"]);
    let _next = envoy.get();
    envoy.run_events();
    assert_eq!(played.take(), [r#"1: start "" end"#]);
}

#[test]
fn interim_heads_go_before_the_final_one() {
    let (envoy, played, stream) = requested();
    played.interim(0, 100, "a", "1");
    played.interim(0, 103, "link", "</x>");
    played.start(0, "ab", true);
    envoy.run_events();
    let heads = stream.response().heads;
    let names: Vec<_> = heads
        .iter()
        .flatten()
        .map(|(name, value)| {
            let (name, value) = (name.as_slice(), value.as_slice());
            format!("{}={}", name.escape_ascii(), value.escape_ascii())
        })
        .collect();
    assert_eq!(
        names,
        [
            ":status=100",
            "a=1",
            ":status=103",
            "link=</x>",
            ":status=200"
        ]
    );
    assert_eq!(stream.response().body, b"ab");
    assert!(stream.is_complete());
}

#[test]
fn interim_heads_take_room() {
    let (envoy, mut played, stream) = requested();
    stream.above_write_buffer_high_watermark();
    let links = "x".repeat(WINDOW_STEP);
    played.interim(0, 103, "link", &links);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    stream.below_write_buffer_low_watermark();
    envoy.run_events();
    let mut fields = Fields::default();
    fields.push(b"link", links.as_bytes());
    let room = interim_cost(&fields);
    assert_eq!(played.take(), [format!("0: room {room}")]);
}

#[test]
fn a_failure_after_an_interim_head_is_an_answer_still() {
    let (envoy, mut played, stream) = requested();
    played.interim(0, 103, "link", "</x>");
    played.fail(0);
    envoy.run_events();
    let response = stream.response();
    assert_eq!(response.heads.len(), 2);
    assert_eq!(response.header("content-length"), Some(&b"21"[..]));
    assert_eq!(response.body, b"Internal Server Error");
    assert_eq!(response.reset, None);
    assert!(response.end_of_stream);
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn trailers_end_it() {
    let (envoy, mut played, stream) = begun();
    played.body(0, "ab", false);
    played.trailers(0, &[("grpc-status", "0"), ("x", "")]);
    envoy.run_events();
    let trailers = [("grpc-status", "0"), ("x", "")];
    let trailers = trailers.map(|(name, value)| (name.into(), value.into()));
    assert_eq!(stream.response().trailers, Some(trailers.to_vec()));
    assert!(stream.is_complete());
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn no_trailers_after_all_are_a_plain_end() {
    let (envoy, played, stream) = begun();
    played.trailers(0, &[]);
    envoy.run_events();
    assert_eq!(stream.response().trailers, None);
    assert!(stream.response().end_of_stream);
    assert!(stream.is_complete());
}

#[test]
fn an_idle_client_gets_408_or_is_cut_off() {
    let (envoy, played, stream) = requested();
    played.fail_for(0, Failure::Idle);
    envoy.run_events();
    assert_eq!(stream.response().status(), Some(408));
    assert_eq!(stream.go_away(), Some(true));
    drop((envoy, played, stream));
}

#[test]
fn an_idle_reader_is_cut_off() {
    let (envoy, played, stream) = begun();
    played.fail_for(0, Failure::Idle);
    envoy.run_events();
    let response = stream.response();
    assert_eq!(response.reset, Some(ResetReason::LocalReset));
    assert_eq!(response.details, "aiovoy_client_idle");
}

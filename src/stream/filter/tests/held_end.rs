//! The end of a response whose request goes on.

use std::time::Duration;

use envoy::fake::{Request, Stream};
use envoy::{AttributeId, DataStatus};

use crate::envoy_thread::{self, EnvoyThread, NOTHING, PlayedLoop};
use crate::exchange::{Failure, Fields, REQUEST_WINDOW, ResponseHead};

const BURST: usize = 60 * 1024;
const BURST_TIME: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_secs(2);
const HELD: Duration = Duration::from_secs(60);
const INSTANT: Duration = Duration::from_millis(1);

/// A stream whose request the loop has, and which has not ended.
fn requested(protocol: &str) -> (EnvoyThread, PlayedLoop, Stream) {
    let (envoy, mut played) = envoy_thread::start();
    let request = Request::post("/").attribute(AttributeId::RequestProtocol, protocol);
    let stream = envoy.stream(request);
    stream.request_headers(false);
    envoy.run_events();
    played.take();
    (envoy, played, stream)
}

/// The same, answered by a burst. Its end is held back.
fn held() -> (EnvoyThread, PlayedLoop, Stream) {
    let (envoy, mut played, stream) = requested("HTTP/2");
    played.start(0, vec![0; BURST + 1], true);
    envoy.run_events();
    assert_eq!(stream.response().body.len(), BURST + 1);
    assert!(!stream.response().end_of_stream);
    assert_eq!(played.take(), NOTHING);
    (envoy, played, stream)
}

/// The response was ended, and nobody is told of anything.
#[track_caller]
fn assert_ended((envoy, mut played, stream): (EnvoyThread, PlayedLoop, Stream)) {
    envoy.run_events();
    assert!(stream.response().end_of_stream);
    assert!(stream.is_complete());
    assert_eq!(played.take(), NOTHING);
    assert_eq!(envoy.in_flight(), 1, "the call");
}

#[test]
fn it_goes_out_if_any_client_has_room_for_what_is_before_it() {
    let (envoy, played, stream) = requested("HTTP/2");
    played.start(0, vec![0; BURST], true);
    assert_ended((envoy, played, stream));
}

#[test]
fn it_goes_out_if_the_request_has_ended() {
    let (envoy, mut played, stream) = requested("HTTP/2");
    stream.request_body("", true);
    envoy.run_events();
    played.take();
    played.start(0, vec![0; BURST + 1], true);
    assert_ended((envoy, played, stream));
}

#[test]
fn it_goes_out_over_http_3() {
    let (envoy, played, stream) = requested("HTTP/3");
    played.start(0, vec![0; BURST + 1], true);
    assert_ended((envoy, played, stream));
}

/// A short response over HTTP/1 to a client that is sending.
fn held_over_http_1() -> (EnvoyThread, PlayedLoop, Stream) {
    let (envoy, mut played, stream) = requested("HTTP/1.1");
    stream.request_body("ab", false);
    envoy.run_events();
    played.take();
    played.start(0, "cd", true);
    envoy.run_events();
    assert_eq!(stream.response().body, b"cd");
    assert!(!stream.response().end_of_stream);
    assert_eq!(played.take(), NOTHING);
    (envoy, played, stream)
}

#[test]
fn over_http_1_it_waits_while_the_client_sends() {
    let (envoy, played, stream) = held_over_http_1();
    for _ in 0..5 {
        played.advance(PAUSE - INSTANT);
        envoy.run_events();
        let rest = stream.request_body("ef", false);
        assert_eq!(rest, DataStatus::StopIterationNoBuffer);
        assert!(!stream.is_complete());
    }
    stream.request_body("gh", true);
    assert_ended((envoy, played, stream));
}

/// A client that has sent two of the six bytes that it has announced.
fn sending_over_http_2() -> (EnvoyThread, PlayedLoop, Stream) {
    let (envoy, mut played) = envoy_thread::start();
    let request = Request::post("/")
        .attribute(AttributeId::RequestProtocol, "HTTP/2")
        .header("content-length", "6");
    let stream = envoy.stream(request);
    stream.request_headers(false);
    stream.request_body("ab", false);
    envoy.run_events();
    played.take();
    (envoy, played, stream)
}

#[test]
fn over_http_2_it_does_not_wait_for_a_client_that_is_idle() {
    let (envoy, played, stream) = sending_over_http_2();
    played.fail_for(0, Failure::Idle);
    envoy.run_events();
    assert_eq!(stream.response().status(), Some(408));
    assert!(stream.is_complete());
}

#[test]
fn over_http_2_it_waits_for_what_the_client_has_announced() {
    for pauses in [false, true] {
        std::thread::spawn(move || {
            let (envoy, played, stream) = sending_over_http_2();
            played.start(0, "cd", true);
            envoy.run_events();
            played.advance(PAUSE - INSTANT);
            envoy.run_events();
            stream.request_body("cd", false);
            assert!(!stream.is_complete());
            if pauses {
                played.advance(PAUSE);
            } else {
                stream.request_body("ef", true);
            }
            assert_ended((envoy, played, stream));
        })
        .join()
        .expect("the test passes");
    }
}

#[test]
fn over_http_1_that_of_a_response_without_a_body_waits_too() {
    for (status, waits) in [(401, true), (204, true), (304, false)] {
        std::thread::spawn(move || {
            let (envoy, played, stream) = requested("HTTP/1.1");
            let head = ResponseHead {
                status,
                fields: Fields::default(),
                close: false,
            };
            played.start_with(0, head, "", true);
            envoy.run_events();
            assert_eq!(stream.is_complete(), !waits);
            if waits {
                stream.request_body("ab", true);
            }
            assert_ended((envoy, played, stream));
        })
        .join()
        .expect("the test passes");
    }
}

#[test]
fn over_http_1_it_does_not_wait_for_ever() {
    let (envoy, played, stream) = held_over_http_1();
    for _ in 0..60 {
        assert!(!stream.is_complete());
        stream.request_body("ef", false);
        played.advance(HELD / 60);
        envoy.run_events();
    }
    assert_ended((envoy, played, stream));
}

#[test]
fn over_http_1_it_does_not_wait_for_a_client_that_pauses() {
    let (envoy, played, stream) = held_over_http_1();
    played.advance(PAUSE);
    assert_ended((envoy, played, stream));
}

#[test]
fn over_http_1_it_does_not_wait_for_a_server_that_stops() {
    let (envoy, played, stream) = held_over_http_1();
    envoy.drain();
    played.advance(INSTANT);
    assert_ended((envoy, played, stream));
}

#[test]
fn over_http_1_what_is_kept_of_the_request_is_thrown_away() {
    let (envoy, mut played, stream) = requested("HTTP/1.1");
    stream.request_body(vec![0; REQUEST_WINDOW], false);
    stream.request_body("kept", false);
    envoy.run_events();
    played.take();
    assert_eq!(stream.buffered_request_body_len(), 4);
    played.start(0, "cd", true);
    envoy.run_events();
    assert_eq!(stream.buffered_request_body_len(), 0);
    stream.request_body("", true);
    assert_ended((envoy, played, stream));
}

#[test]
fn an_answer_in_the_applications_place_is_held_too() {
    let (envoy, mut played, stream) = requested("HTTP/1.1");
    played.fail(0);
    envoy.run_events();
    assert_eq!(stream.response().body, b"Internal Server Error");
    assert_eq!(stream.response().header("content-length"), Some(&b"21"[..]));
    assert!(!stream.is_complete());
    assert_eq!(played.take(), NOTHING);
    stream.request_body("ab", true);
    assert_ended((envoy, played, stream));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.stream(Request::new("HEAD", "/"));
    stream.request_headers(false);
    envoy.run_events();
    played.take();
    played.fail(0);
    envoy.run_events();
    assert_eq!(stream.response().header("content-length"), Some(&b"21"[..]));
    stream.request_body("ab", true);
    assert!(stream.response().body.is_empty());
    assert_ended((envoy, played, stream));
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_has_sent_nothing_to_wait_for() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.stream(Request::post("/").header("expect", "100-continue"));
    stream.request_headers(false);
    envoy.run_events();
    played.take();
    played.start(0, "cd", true);
    assert_ended((envoy, played, stream));
}

#[test]
fn one_that_was_told_to_go_on_is_about_to_send() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.stream(Request::post("/").header("expect", "100-continue"));
    stream.request_headers(false);
    envoy.run_events();
    played.take();
    played.interim(0, 100, "a", "b");
    played.start(0, "cd", true);
    envoy.run_events();
    assert!(!stream.is_complete());
    stream.request_body("ab", true);
    assert_ended((envoy, played, stream));
}

#[test]
fn it_waits_for_the_end_of_the_request() {
    let (envoy, played, stream) = held();
    let rest = DataStatus::StopIterationNoBuffer;
    assert_eq!(stream.request_body("ab", false), rest);
    assert_eq!(stream.request_body(vec![0; 1 << 20], false), rest);
    assert_eq!(stream.buffered_request_body_len(), 0);
    assert!(!stream.is_complete());
    stream.request_body("cd", true);
    assert_ended((envoy, played, stream));
}

#[test]
fn it_waits_until_a_client_that_keeps_up_has_the_burst() {
    let (envoy, played, stream) = held();
    played.advance(BURST_TIME - INSTANT);
    envoy.run_events();
    assert!(!stream.is_complete());
    played.advance(INSTANT);
    assert_ended((envoy, played, stream));
}

#[test]
fn it_waits_longer_for_a_slow_client_but_not_for_ever() {
    let (envoy, played, stream) = held();
    stream.above_write_buffer_high_watermark();
    played.advance(HELD - INSTANT);
    envoy.run_events();
    assert!(!stream.is_complete());
    played.advance(INSTANT);
    assert_ended((envoy, played, stream));
}

#[test]
fn a_slow_client_that_keeps_up_again_has_time_for_the_rest() {
    let (envoy, played, stream) = held();
    stream.above_write_buffer_high_watermark();
    played.advance(10 * BURST_TIME);
    envoy.run_events();
    stream.below_write_buffer_low_watermark();
    played.advance(BURST_TIME - INSTANT);
    envoy.run_events();
    assert!(!stream.is_complete());
    played.advance(INSTANT);
    assert_ended((envoy, played, stream));
}

#[test]
fn pieces_make_a_burst() {
    let (envoy, mut played, stream) = requested("HTTP/2");
    played.start(0, vec![0; BURST], false);
    envoy.run_events();
    played.advance(BURST_TIME - INSTANT);
    envoy.run_events();
    played.body(0, "a", false);
    envoy.run_events();
    played.take();
    played.body(0, "", true);
    envoy.run_events();
    assert!(!stream.is_complete());
    stream.request_body("", true);
    assert_ended((envoy, played, stream));
}

#[test]
fn pieces_with_time_between_them_do_not() {
    let (envoy, mut played, stream) = requested("HTTP/2");
    for first in [true, false] {
        if first {
            played.start(0, vec![0; BURST], false);
        } else {
            played.body(0, vec![0; BURST], false);
        }
        envoy.run_events();
        played.advance(BURST_TIME);
        envoy.run_events();
    }
    played.take();
    played.body(0, "", true);
    assert_ended((envoy, played, stream));
}

#[test]
fn after_a_burst_that_the_client_has_had_time_for_it_goes_out() {
    let (envoy, mut played, stream) = requested("HTTP/2");
    played.start(0, vec![0; BURST + 1], false);
    envoy.run_events();
    played.advance(BURST_TIME);
    envoy.run_events();
    played.take();
    played.body(0, "", true);
    assert_ended((envoy, played, stream));
}

#[test]
fn trailers_wait_too() {
    let (envoy, mut played, stream) = requested("HTTP/2");
    played.start(0, vec![0; BURST + 1], false);
    played.trailers(0, &[("grpc-status", "0")]);
    envoy.run_events();
    played.take();
    assert_eq!(stream.response().trailers, None);
    stream.request_body("", true);
    let trailers = [(b"grpc-status".to_vec(), b"0".to_vec())];
    assert_eq!(stream.response().trailers, Some(trailers.to_vec()));
    assert_ended((envoy, played, stream));
}

#[test]
fn what_is_kept_of_the_request_is_thrown_away() {
    let (envoy, mut played, stream) = requested("HTTP/2");
    stream.set_buffer_limit(1000);
    stream.client_sends(vec![0; 1 << 20], false);
    stream.client_sends(vec![0; 2000], false);
    stream.client_sends("behind it", true);
    envoy.run_events();
    played.take();
    assert!(!stream.is_reading());
    played.start(0, vec![0; BURST + 1], true);
    // The rest comes inside, and with it the end.
    assert_ended((envoy, played, stream));
}

#[test]
fn a_client_that_goes_meanwhile_is_not_told() {
    let (envoy, mut played, stream) = held();
    stream.disconnect();
    played.advance(HELD);
    envoy.run_events();
    assert!(!stream.response().end_of_stream);
    assert_eq!(played.take(), NOTHING);
    assert_eq!(envoy.in_flight(), 1, "the call");
}

#[test]
fn what_the_loop_posts_behind_it_is_dropped() {
    let (envoy, played, stream) = held();
    played.read(0, 1);
    envoy.run_events();
    stream.request_body("ab", false);
    assert_eq!(stream.response().body.len(), BURST + 1);
    played.advance(BURST_TIME);
    assert_ended((envoy, played, stream));
}

#[test]
fn it_waits_for_the_trailers_of_the_request() {
    let (envoy, played, stream) = held();
    stream.request_trailers(&[("a", "b")]);
    assert_ended((envoy, played, stream));
}

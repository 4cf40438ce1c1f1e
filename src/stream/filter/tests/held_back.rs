//! Requests that a filter in front of ours holds back and goes on with: Envoy then hands over what
//! it has buffered.

use envoy::DataStatus;

use crate::envoy_thread::{self, NOTHING};
use crate::exchange::{REQUEST_WINDOW, WINDOW_STEP};

#[test]
fn body_comes_with_the_request() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.hold_back("ab");
    stream.hold_back("cd");
    let status = stream.resume_request_body(true);
    assert_eq!(status, DataStatus::StopIterationNoBuffer);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "abcd" end"#]);
    assert_eq!(stream.buffered_request_body_len(), 0);
}

#[test]
fn body_beyond_the_window_follows() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    let body: Vec<u8> = (0..=250).cycle().take(REQUEST_WINDOW + 1000).collect();
    stream.hold_back(&body);
    let status = stream.resume_request_body(false);
    assert_eq!(status, DataStatus::StopIterationAndWatermark);
    stream.request_body("last", true);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start <262144>"]);
    assert_eq!(stream.buffered_request_body_len(), 1004);
    played.read(0, WINDOW_STEP);
    envoy.run_events();
    assert_eq!(played.take(), ["0: body <1004> end"]);
    assert!(played.exchanges[0].body == [body.as_slice(), b"last"].concat());
}

#[test]
fn end_comes_by_trailers() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.hold_back("ab");
    stream.resume_request_body(false);
    stream.request_trailers(&[("checksum", "1")]);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "ab" end"#]);
}

#[test]
fn what_is_held_back_is_not_taken_before() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body(vec![0; REQUEST_WINDOW], false);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start <262144>"]);
    stream.request_body("ab", false);
    // Behind ours in the same buffer.
    stream.hold_back("cd");
    played.read(0, WINDOW_STEP);
    envoy.run_events();
    let taken = played.take();
    assert_eq!(taken, [r#"0: body "ab""#], "the rest is the other's");
    stream.hold_back("ef");
    stream.resume_request_body(true);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: body "cdef" end"#]);
}

#[test]
fn what_is_shown_again_comes_once() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body(vec![0; REQUEST_WINDOW], false);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start <262144>"]);
    stream.request_body("ab", false);
    stream.hold_back("cd");
    stream.resume_request_body(true);
    assert_eq!(stream.buffered_request_body_len(), 4);
    played.read(0, WINDOW_STEP);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: body "abcd" end"#]);
}

#[test]
fn each_byte_counts_once_for_the_limit() {
    let limit = format!(r#"{{"limit_request_body": {}}}"#, REQUEST_WINDOW + 4);
    let (envoy, mut played) = envoy_thread::start_with(&limit);
    let stream = envoy.post();
    stream.request_body(vec![0; REQUEST_WINDOW], false);
    stream.request_body("ab", false);
    stream.hold_back("cd");
    stream.resume_request_body(false);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start <262144>"]);
    stream.request_body("e", true);
    assert_eq!(stream.response().status(), Some(413));
}

#[test]
fn what_comes_behind_a_held_end_is_thrown_away() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    envoy.run_events();
    played.take();
    played.answer(0, "early");
    envoy.run_events();
    assert!(!stream.response().end_of_stream, "the client is sending");
    stream.hold_back(vec![0; 1000]);
    envoy.run_events();
    stream.resume_request_body(false);
    assert_eq!(stream.buffered_request_body_len(), 0);
    stream.request_body("", true);
    assert!(stream.response().end_of_stream);
    assert_eq!(played.take(), NOTHING);
}

//! Requests that are not let in, or not to their end.

use std::time::Duration;

use envoy::fake::Request;

use super::websocket::handshake;
use crate::envoy_thread::{self, NOTHING};

const BODY: &str = r#"{"limit_request_body": 4}"#;
const CONCURRENCY: &str = r#"{"limit_concurrency": 1}"#;

#[test]
fn a_length_over_the_limit_is_refused_at_once() {
    let (envoy, mut played) = envoy_thread::start_with(BODY);
    let [over, at] = ["5", "4"].map(|length| {
        let stream = envoy.stream(Request::post("/").header("content-length", length));
        stream.request_headers(false);
        stream
    });
    assert_eq!(over.response().status(), Some(413));
    over.request_body("abcde", true);
    assert!(over.is_complete() && !at.is_complete());
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start """#]);
    assert_eq!(envoy.in_flight(), 2, "the other one");
}

#[test]
fn a_body_over_the_limit_that_comes_with_its_head_is_refused_unseen() {
    let (envoy, mut played) = envoy_thread::start_with(BODY);
    let stream = envoy.post();
    stream.request_body("abcd", false);
    stream.request_body("e", false);
    assert_eq!(stream.response().status(), Some(413));
    stream.request_body("f", true);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn a_body_that_grows_over_the_limit_is_refused_and_the_application_is_told() {
    let (envoy, mut played) = envoy_thread::start_with(BODY);
    let stream = envoy.post();
    stream.request_body("abcd", false);
    envoy.run_events();
    stream.request_body("e", true);
    assert_eq!(stream.response().status(), Some(413));
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "abcd""#, "0: disconnect"]);
    // Too late.
    played.answer(0, "done");
    assert_eq!(envoy.in_flight(), 1, "the call");
}

#[test]
fn what_the_application_sends_before_it_hears_of_the_refusal_is_nothing() {
    let (envoy, mut played) = envoy_thread::start_with(BODY);
    let stream = envoy.post();
    stream.request_body("abcd", false);
    envoy.run_events();
    stream.request_body("e", false);
    assert_eq!(stream.response().status(), Some(413));
    played.take();
    played.answer(0, "done");
    played.fail(0);
    played.read(0, 4);
    envoy.run_events();
    stream.request_body("f", true);
    assert!(stream.is_complete());
    let response = stream.response();
    assert_eq!((response.heads.len(), response.reset), (1, None));
}

#[test]
fn a_body_that_grows_over_the_limit_ends_a_response_that_has_begun() {
    let (envoy, mut played) = envoy_thread::start_with(BODY);
    let stream = envoy.post();
    envoy.run_events();
    played.take();
    played.start(0, "ab", false);
    envoy.run_events();
    stream.request_body("abcde", false);
    envoy.run_events();
    assert!(stream.response().reset.is_some());
    assert_eq!(played.take(), ["0: disconnect"]);
}

#[test]
fn a_body_that_goes_on_after_its_response_is_not_looked_at() {
    let (envoy, mut played) = envoy_thread::start_with(BODY);
    let stream = envoy.post();
    stream.request_body("abcd", true);
    envoy.run_events();
    played.take();
    played.answer(0, "done");
    envoy.run_events();
    assert_eq!(stream.response().body, b"done");
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn calls_over_the_limit_are_refused_until_one_returns() {
    let (envoy, mut played) = envoy_thread::start_with(CONCURRENCY);
    let first = envoy.get();
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "" end"#]);
    assert_eq!(envoy.get().response().status(), Some(503));
    // The call is what counts, not the stream.
    first.disconnect();
    envoy.run_events();
    played.take();
    assert_eq!(envoy.get().response().status(), Some(503));
    played.return_calls();
    let second = envoy.get();
    envoy.run_events();
    assert_eq!(played.take(), [r#"1: start "" end"#]);
    assert!(!second.is_complete());
}

#[test]
fn a_refused_request_is_not_in_flight() {
    let (envoy, mut played) = envoy_thread::start_with(r#"{"limit_concurrency": 0}"#);
    let stream = envoy.post();
    assert_eq!(stream.response().status(), Some(503));
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    assert_eq!(envoy.in_flight(), 0);
    // Its end waits for a client that sends, and for no other.
    stream.request_body("ab", false);
    assert!(!stream.is_complete());
    played.advance(Duration::from_secs(2));
    envoy.run_events();
    assert!(stream.is_complete());
}

#[test]
fn a_refused_websocket_does_not_wait() {
    let (envoy, _played) = envoy_thread::start_with(r#"{"limit_concurrency": 0}"#);
    let stream = envoy.stream(handshake());
    stream.request_headers(false);
    assert_eq!(stream.response().status(), Some(503));
    assert!(stream.is_complete());
}

//! How a stream ends, and what the loop and the count of what is in flight learn of it.

use std::time::Duration;

use envoy::AttributeId;
use envoy::fake::Request;

use crate::envoy_thread::{self, EnvoyThread, NOTHING, PlayedLoop};
use crate::exchange::REQUEST_WINDOW;

#[test]
fn a_client_that_goes_before_its_request_is_given_is_told_after_it() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body("ab", false);
    stream.disconnect();
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "ab""#, "0: disconnect"]);
    assert_eq!(envoy.in_flight(), 1, "the call");
    played.return_calls();
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn a_client_that_goes_early_is_told_behind_the_requests_before_it() {
    let (envoy, mut played) = envoy_thread::start();
    let _lives = envoy.get();
    let stream = envoy.get();
    stream.disconnect();
    envoy.run_events();
    assert_eq!(
        played.take(),
        [r#"0: start "" end"#, r#"1: start "" end"#, "1: disconnect"]
    );
}

#[test]
fn a_client_that_goes_later_is_told() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.get();
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "" end"#]);
    assert_eq!(envoy.in_flight(), 2, "the stream and the call");
    stream.disconnect();
    envoy.run_events();
    assert_eq!(played.take(), ["0: disconnect"]);
    assert_eq!(envoy.in_flight(), 1);
    played.return_calls();
    assert_eq!(envoy.in_flight(), 0);
}

const TCP: i64 = 6;
const FASTOPEN: i64 = 23;

fn tcp_request(protocol: &str) -> Request {
    Request::get("/")
        .attribute(AttributeId::RequestProtocol, protocol)
        .attribute(AttributeId::DestinationAddress, "127.0.0.1:8000")
}

/// Of which Envoy does not hear if it does not read from the client.
#[test]
fn a_reset_that_envoy_has_not_seen_is_found() {
    for (protocol, found) in [("HTTP/1.1", true), ("HTTP/2", false)] {
        std::thread::spawn(move || {
            let (envoy, mut played) = envoy_thread::start();
            let stream = envoy.stream(tcp_request(protocol));
            stream.request_headers(true);
            envoy.run_events();
            played.take();
            played.advance(Duration::from_secs(1));
            envoy.run_events();
            assert!(!stream.is_complete());
            stream.allow_socket_option(TCP, FASTOPEN);
            played.advance(Duration::from_secs(1));
            envoy.run_events();
            assert_eq!(stream.is_complete(), found);
            if found {
                assert_eq!(played.take(), ["0: disconnect"]);
                assert_eq!(stream.response().details, "aiovoy_connection_reset");
            }
        })
        .join()
        .expect("the test passes");
    }
}

/// Some kernels accept any option.
#[test]
fn no_reset_is_believed_before_one_probe_was_refused() {
    let (envoy, mut played) = envoy_thread::start();
    let mut streams = Vec::new();
    let mut tick = |envoy: &EnvoyThread, played: &mut PlayedLoop, allowed: bool| {
        let stream = envoy.stream(tcp_request("HTTP/1.1"));
        if allowed {
            stream.allow_socket_option(TCP, FASTOPEN);
        }
        stream.request_headers(true);
        envoy.run_events();
        played.take();
        played.advance(Duration::from_secs(1));
        envoy.run_events();
        streams.push(stream);
        streams.iter().filter(|stream| stream.is_complete()).count()
    };
    assert_eq!(tick(&envoy, &mut played, true), 0);
    assert_eq!(tick(&envoy, &mut played, true), 0);
    assert_eq!(tick(&envoy, &mut played, false), 2);
}

#[test]
fn a_client_that_goes_in_the_midst_of_its_response_is_told() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.get();
    envoy.run_events();
    played.take();
    played.start(0, "ab", false);
    envoy.run_events();
    stream.disconnect();
    envoy.run_events();
    assert_eq!(played.take(), ["0: disconnect"]);
}

#[test]
fn a_client_that_goes_in_the_midst_of_its_request_leaves_what_is_kept_behind() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body(vec![0; REQUEST_WINDOW], false);
    stream.request_body("ab", true);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start <262144>"]);
    played.read(0, REQUEST_WINDOW);
    stream.disconnect();
    envoy.run_events();
    assert_eq!(played.take(), ["0: disconnect"]);
}

#[test]
fn our_own_end_is_no_disconnect() {
    let (envoy, mut played) = envoy_thread::start();
    let [whole, in_parts, failed, reset] = [(); 4].map(|()| envoy.get());
    envoy.run_events();
    played.take();
    played.answer(0, "");
    played.start(1, "ab", false);
    played.fail(2);
    played.start(3, "ab", false);
    envoy.run_events();
    played.body(1, "", true);
    played.fail(3);
    envoy.run_events();
    for stream in [whole, in_parts, failed, reset] {
        assert!(stream.is_complete());
    }
    assert_eq!(played.take(), NOTHING);
    assert_eq!(envoy.in_flight(), 4, "the calls");
    played.return_calls();
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn the_call_may_return_before_the_stream_is_complete() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.get();
    envoy.run_events();
    played.take();
    played.answer(0, "ab");
    played.return_calls();
    assert_eq!(envoy.in_flight(), 1);
    envoy.run_events();
    assert!(stream.is_complete());
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn an_answer_of_envoys_own_is_a_disconnect() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.get();
    envoy.run_events();
    played.take();
    stream.local_reply(504, "stream_idle_timeout");
    assert_eq!(played.take(), ["0: disconnect"]);
    // Too late.
    played.answer(0, "ab");
    envoy.run_events();
    assert_eq!(stream.response().status(), Some(504));
    assert_eq!(played.take(), NOTHING);
    played.return_calls();
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn a_stream_that_another_filter_ends_before_its_request_is_nobodys() {
    let (envoy, mut played) = envoy_thread::start();
    envoy.stream(Request::get("/")).local_reply(403, "denied");
    drop(envoy.stream(Request::get("/")));
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn a_refused_request_is_not_in_flight() {
    let (envoy, played) = envoy_thread::start();
    played.close();
    let _refused = [envoy.get(), envoy.post()];
    assert_eq!(envoy.in_flight(), 4);
    envoy.run_events();
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn a_request_that_ends_before_it_can_be_refused_is_not_in_flight() {
    let (envoy, played) = envoy_thread::start();
    played.close();
    // With nobody left to take the lead, and with somebody.
    envoy.get().disconnect();
    envoy.run_events();
    assert_eq!(envoy.in_flight(), 0);
    let lives = envoy.post();
    envoy.get().disconnect();
    envoy.run_events();
    assert!(lives.is_complete(), "it was refused");
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn messages_for_a_stream_that_is_over_reach_nobody() {
    let (envoy, mut played) = envoy_thread::start();
    let _lives = envoy.get();
    let over = envoy.post();
    envoy.run_events();
    over.disconnect();
    played.take();
    played.start(1, "ab", false);
    played.read(1, 1);
    played.body(1, "cd", true);
    played.fail(1);
    assert_eq!(envoy.run_events(), 2, "the disconnect's, and the outbox's");
    assert!(over.response().heads.is_empty());
    assert_eq!(played.take(), ["1: disconnect"]);
}

#[test]
fn messages_for_a_stream_that_is_over_do_not_reach_the_next_in_its_place() {
    let (envoy, mut played) = envoy_thread::start();
    envoy.get().disconnect();
    played.take();
    // It takes the place in the table that the first one had.
    let next = envoy.post();
    next.request_body(vec![0; REQUEST_WINDOW], false);
    next.request_body("ab", true);
    envoy.run_events();
    played.take();
    played.read(0, REQUEST_WINDOW);
    played.start(0, "for the first", false);
    played.body(0, "", true);
    played.fail(0);
    envoy.run_events();
    assert!(next.response().heads.is_empty());
    assert!(!next.is_complete());
    assert_eq!(played.take(), NOTHING);
    played.answer(1, "for the next");
    envoy.run_events();
    assert_eq!(next.response().body, b"for the next");
    assert_ne!(played.exchanges[0].id, played.exchanges[1].id);
}

//! From the handshake to the loop's decision.

use super::*;
use crate::envoy_thread::NOTHING;
use crate::exchange::{Failure, Fields, ResponseHead};

const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn denial() -> ResponseHead {
    ResponseHead {
        status: 404,
        fields: Fields::default(),
        close: false,
    }
}

#[test]
fn the_loop_is_told_of_the_offer() {
    let request = handshake().header("sec-websocket-protocol", "chat, superchat");
    let socket = offered_by(r#"{"ws_max_queue": 4}"#, request);
    let exchange = &socket.played.exchanges[0];
    let offer = exchange.websocket.as_ref().expect("an offer");
    assert_eq!(offer.subprotocols, ["chat", "superchat"]);
    assert_eq!(offer.least_cost, 65536);
    assert!(!exchange.complete);
    assert!(socket.stream.response().heads.is_empty());
    assert_eq!(socket.envoy.in_flight(), 2, "the stream and the call");
}

#[test]
fn other_requests_offer_nothing() {
    for request in [
        Request::get("/"),
        Request::get("/").header("upgrade", "h2c"),
    ] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let socket = offered_by("{}", request);
                assert!(socket.played.exchanges[0].websocket.is_none());
            });
        });
    }
}

#[test]
fn it_is_accepted_by_the_answer_to_its_key() {
    let request = handshake().header("sec-websocket-extensions", "permessage-deflate");
    let socket = offered_by("{}", request);
    let fields = [("set-cookie", "a=1"), ("set-cookie", "b=2")];
    socket.played.accept_with(0, Some("chat"), &fields);
    socket.envoy.run_events();
    let response = socket.stream.response();
    let expected: [(&[u8], &[u8]); 8] = [
        (b":status", b"101"),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-accept", ACCEPT),
        (b"sec-websocket-protocol", b"chat"),
        (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ];
    let expected = expected.map(|(name, value)| (name.to_vec(), value.to_vec()));
    assert_eq!(response.heads, [expected]);
    assert!(response.body.is_empty() && !response.end_of_stream);
}

#[test]
fn there_is_no_key_over_http_2() {
    let socket = opened_by("{}", handshake_of_http_2());
    let response = socket.stream.response();
    assert_eq!(response.header("sec-websocket-accept"), None);
    assert_eq!(response.header("sec-websocket-protocol"), None);
    assert_eq!(response.header("sec-websocket-extensions"), None);
}

#[test]
fn compression_is_agreed_to_unless_the_settings_say_otherwise() {
    let request = handshake().header("sec-websocket-extensions", "permessage-deflate");
    let socket = opened_by(r#"{"ws_per_message_deflate": false}"#, request);
    let response = socket.stream.response();
    assert_eq!(response.header("sec-websocket-extensions"), None);
}

#[test]
fn frames_before_the_accept_are_kept_and_then_told() {
    let mut socket = offered();
    let kept = DataStatus::StopIterationAndWatermark;
    assert_eq!(socket.client(&[(FIN | TEXT, b"ab"), (BINARY, b"c")]), kept);
    assert_eq!(socket.client(&[(FIN, b"d"), (FIN | PING, b"e")]), kept);
    assert_eq!(socket.played.take(), NOTHING);
    socket.played.accept(0);
    socket.played.text(0, "hello");
    socket.envoy.run_events();
    assert_eq!(
        socket.played.take(),
        [r#"0: text "ab""#, r#"0: binary "cd""#]
    );
    assert_eq!(
        socket.sent(),
        [(FIN | PONG, b"e".to_vec()), (FIN | TEXT, b"hello".to_vec())]
    );
    assert_eq!(socket.stream.buffered_request_body_len(), 0);
}

#[test]
fn frames_in_the_iteration_of_the_handshake_are_kept_too() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.stream(handshake());
    stream.request_headers(false);
    stream.request_body(script(&[(FIN | TEXT, b"ab")]), false);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start """#]);
    played.accept(0);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: text "ab""#]);
}

#[test]
fn a_client_that_ends_its_side_before_the_accept_is_told_as_gone_after_it() {
    let mut socket = offered();
    socket.client(&[(FIN | TEXT, b"ab")]);
    socket.client_ends();
    assert_eq!(socket.played.take(), NOTHING);
    assert!(!socket.stream.is_complete());
    socket.played.accept(0);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "ab""#, "0: disconnect"]);
    socket.assert_ended();
}

#[test]
fn so_is_one_that_sends_nothing_before() {
    let mut socket = offered();
    socket.client_ends();
    assert_eq!(socket.played.take(), NOTHING);
    socket.played.accept(0);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), ["0: disconnect"]);
    socket.assert_ended();
}

#[test]
fn a_close_frame_before_the_accept_is_answered_after_it() {
    let mut socket = offered();
    socket.client(&[(FIN | TEXT, b"ab"), (FIN | CLOSE, BYE)]);
    socket.client_ends();
    socket.played.accept(0);
    socket.envoy.run_events();
    assert_eq!(
        socket.played.take(),
        [r#"0: text "ab""#, r#"0: closed 1000 "bye""#]
    );
    assert_eq!(socket.sent(), [close(1000, "")]);
    socket.assert_ended();
}

#[test]
fn a_client_that_goes_before_the_accept_is_told() {
    let mut socket = offered();
    socket.client(&[(FIN | TEXT, b"ab")]);
    socket.stream.disconnect();
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), ["0: disconnect"]);
    socket.played.accept(0);
    socket.played.text(0, "ab");
    socket.played.close_websocket(0, 1000, "");
    socket.envoy.run_events();
    assert!(socket.stream.response().heads.is_empty());
    assert_eq!(socket.played.take(), NOTHING);
    socket.assert_over();
    socket.played.return_calls();
    assert_eq!(socket.envoy.in_flight(), 0);
}

#[test]
fn a_client_that_goes_before_its_request_is_given_is_told_after_it() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.stream(handshake());
    stream.request_headers(false);
    stream.disconnect();
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start """#, "0: disconnect"]);
    assert_eq!(envoy.in_flight(), 1);
}

#[test]
fn what_the_loop_does_not_accept_is_an_error() {
    let mut socket = offered();
    let others = [(); 2].map(|()| {
        let stream = socket.envoy.stream(handshake());
        stream.request_headers(false);
        stream
    });
    socket.envoy.run_events();
    socket.played.take();
    let failures = [Failure::Refused, Failure::Stopping, Failure::Application];
    for (exchange, failure) in failures.into_iter().enumerate() {
        socket.played.fail_for(exchange, failure);
    }
    socket.envoy.run_events();
    let streams = [&socket.stream, &others[0], &others[1]];
    let statuses = streams.map(|stream| stream.response().status());
    assert_eq!(statuses, [Some(403), Some(503), Some(500)]);
    assert!(streams.iter().all(|stream| stream.is_complete()));
    assert_eq!(socket.played.take(), NOTHING);
    assert_eq!(socket.envoy.in_flight(), 3, "the calls");
}

#[test]
fn a_denial_is_a_response() {
    let mut socket = offered();
    socket.client(&[(FIN | TEXT, b"ab")]);
    socket.played.start_with(0, denial(), "not", false);
    socket.envoy.run_events();
    assert!(!socket.stream.is_complete());
    socket.client(&[(FIN | TEXT, b"cd")]);
    socket.played.body(0, " here", true);
    socket.envoy.run_events();
    assert_eq!(socket.stream.response().status(), Some(404));
    assert_eq!(socket.stream.response().body, b"not here");
    assert_eq!(socket.played.take(), NOTHING);
    socket.assert_ended();
}

#[test]
fn a_denial_that_is_not_completed_is_a_reset() {
    let mut socket = offered();
    socket.played.start_with(0, denial(), "not", false);
    socket.played.fail(0);
    socket.envoy.run_events();
    assert!(socket.stream.response().reset.is_some());
    assert_eq!(socket.played.take(), NOTHING);
    socket.assert_over();
}

#[test]
fn after_the_end_of_the_loop_none_is_offered() {
    let (envoy, played) = envoy_thread::start();
    played.close();
    let stream = envoy.stream(handshake());
    stream.request_headers(false);
    stream.request_body(script(&[(FIN | TEXT, b"ab")]), false);
    envoy.run_events();
    assert!(stream.response().reset.is_some());
    assert!(stream.is_complete());
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn it_counts_as_a_call() {
    let socket = opened_by(r#"{"limit_concurrency": 1}"#, handshake());
    let second = socket.envoy.stream(handshake());
    second.request_headers(false);
    assert_eq!(second.response().status(), Some(503));
    assert_eq!(socket.envoy.in_flight(), 2, "the first one's");
}

#[test]
fn a_wrong_handshake_is_refused() {
    let keyless = || Request::get("/").header("upgrade", "websocket");
    let wrong = [
        (keyless(), 426),
        (keyless().header("sec-websocket-version", "13"), 400),
        (handshake().header("sec-websocket-protocol", "a b"), 400),
        (handshake().header("content-length", "1"), 400),
        (
            Request::post("/")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13"),
            400,
        ),
    ];
    let (envoy, mut played) = envoy_thread::start();
    for (request, status) in wrong {
        let stream = envoy.stream(request);
        stream.request_headers(false);
        let response = stream.response();
        assert_eq!(response.status(), Some(status));
        assert_eq!(response.details, "aiovoy_websocket_handshake");
        let version = response.header("sec-websocket-version");
        assert_eq!(version, (status == 426).then_some(&b"13"[..]));
        assert!(stream.is_complete());
    }
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn no_content_may_be_said() {
    offered_by("{}", handshake().header("content-length", "0"));
}

#[test]
fn a_second_accept_is_nothing() {
    let socket = opened();
    socket.played.accept(0);
    socket.envoy.run_events();
    assert_eq!(socket.stream.response().heads.len(), 1);
}

#[test]
fn frames_that_were_held_back_with_the_handshake_are_read() {
    let mut socket = offered();
    socket.stream.hold_back(script(&[(FIN | TEXT, b"a")]));
    socket.stream.hold_back(script(&[(FIN | TEXT, b"b")]));
    let status = socket.stream.resume_request_body(false);
    assert_eq!(status, DataStatus::StopIterationAndWatermark);
    socket.played.accept(0);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "a""#, r#"0: text "b""#]);
    assert_eq!(socket.stream.buffered_request_body_len(), 0);
    // And those that come later.
    assert_eq!(
        socket.client(&[(FIN | TEXT, b"c")]),
        DataStatus::StopIterationNoBuffer
    );
    assert_eq!(socket.played.take(), [r#"0: text "c""#]);
}

#[test]
fn frames_that_another_filter_holds_back_are_its_own() {
    let mut socket = offered();
    socket.client(&[(FIN | TEXT, b"a")]);
    socket.stream.hold_back(script(&[(FIN | TEXT, b"b")]));
    socket.played.accept(0);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "a""#]);
    let status = socket.stream.resume_request_body(false);
    assert_eq!(status, DataStatus::StopIterationNoBuffer);
    socket.envoy.run_events();
    assert_eq!(socket.played.take(), [r#"0: text "b""#]);
}

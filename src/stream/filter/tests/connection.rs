//! What concerns the connection of a stream: whether it closes, and what else it could be.

use std::time::Duration;

use envoy::fake::{Request, Stream};
use envoy::{AttributeId, ResetReason};

use crate::envoy_thread::{self, EnvoyThread, NOTHING, PlayedLoop};
use crate::exchange::{Failure, Fields, ResponseHead};

const ALT_SVC: &str = r#"{"alt_svc": "h3=\":8443\""}"#;

fn head(close: bool) -> ResponseHead {
    ResponseHead {
        status: 200,
        fields: Fields::default(),
        close,
    }
}

/// A request on connection `id`, with its headers there.
fn on_connection(envoy: &EnvoyThread, id: u64) -> Stream {
    let stream = envoy.stream(Request::get("/").attribute(AttributeId::ConnectionId, id));
    stream.request_headers(true);
    stream
}

/// The first request on connection 7, which the loop has.
fn requested() -> (EnvoyThread, PlayedLoop, Stream) {
    let (envoy, mut played) = envoy_thread::start();
    let stream = on_connection(&envoy, 7);
    envoy.run_events();
    played.take();
    (envoy, played, stream)
}

#[track_caller]
fn assert_not_served(envoy: &EnvoyThread, played: &mut PlayedLoop, connection: u64) {
    let before = envoy.in_flight();
    let stream = on_connection(envoy, connection);
    let response = stream.response();
    assert_eq!(response.reset, Some(ResetReason::LocalReset));
    assert_eq!(response.details, "aiovoy_connection_closes");
    assert!(response.heads.is_empty());
    drop(stream);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    assert_eq!(envoy.in_flight(), before);
}

#[test]
fn what_comes_behind_the_last_response_is_not_served() {
    let (envoy, mut played, stream) = requested();
    played.start_with(0, head(true), "ab", true);
    envoy.run_events();
    assert!(stream.is_complete());
    assert_not_served(&envoy, &mut played, 7);
    assert_not_served(&envoy, &mut played, 7);
    // Another one has nothing to do with it.
    let other = on_connection(&envoy, 8);
    envoy.run_events();
    assert_eq!(played.take(), [r#"1: start "" end"#]);
    assert!(!other.is_complete());
}

#[test]
fn what_comes_behind_any_other_response_is() {
    let (envoy, mut played, _stream) = requested();
    played.start_with(0, head(false), "ab", true);
    envoy.run_events();
    let _next = on_connection(&envoy, 7);
    envoy.run_events();
    assert_eq!(played.take(), [r#"1: start "" end"#]);
}

#[test]
fn what_comes_behind_a_response_is_not_served_while_the_server_stops() {
    let (envoy, mut played, _stream) = requested();
    envoy.drain();
    played.answer(0, "ab");
    envoy.run_events();
    assert_not_served(&envoy, &mut played, 7);
}

#[test]
fn what_comes_from_an_idle_client_is_no_request() {
    let (envoy, mut played, stream) = requested();
    played.fail_for(0, Failure::Idle);
    envoy.run_events();
    assert_eq!(stream.response().status(), Some(408));
    assert_not_served(&envoy, &mut played, 7);
}

#[test]
fn a_connection_is_forgotten_when_it_must_be_closed() {
    let (envoy, mut played, _stream) = requested();
    played.start_with(0, head(true), "", true);
    envoy.run_events();
    played.advance(Duration::from_secs(1));
    assert_not_served(&envoy, &mut played, 7);
    played.advance(Duration::from_millis(1));
    let _next = on_connection(&envoy, 7);
    envoy.run_events();
    assert_eq!(played.take(), [r#"1: start "" end"#]);
}

#[test]
fn connections_are_forgotten_one_by_one() {
    let (envoy, mut played, _stream) = requested();
    let _other = on_connection(&envoy, 8);
    envoy.run_events();
    played.take();
    played.start_with(0, head(true), "", true);
    envoy.run_events();
    played.advance(Duration::from_millis(700));
    played.start_with(1, head(true), "", true);
    envoy.run_events();
    played.advance(Duration::from_millis(700));
    assert_not_served(&envoy, &mut played, 8);
    let _next = on_connection(&envoy, 7);
    envoy.run_events();
    assert_eq!(played.take(), [r#"2: start "" end"#]);
}

#[test]
fn on_http_2_the_connection_is_not_one_responses_to_close() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = || {
        let request = Request::get("/").attribute(AttributeId::RequestProtocol, "HTTP/2");
        let stream = envoy.stream(request);
        stream.request_headers(true);
        envoy.run_events();
        stream
    };
    let first = stream();
    played.take();
    played.start_with(0, head(true), "", true);
    envoy.run_events();
    assert_eq!(first.go_away(), None);
    let second = stream();
    assert_eq!(played.take(), [r#"1: start "" end"#]);
    played.fail_for(1, Failure::Idle);
    envoy.run_events();
    assert_eq!(second.response().status(), Some(408));
    assert_eq!(second.go_away(), None);
}

#[test]
fn a_refused_request_closes_the_connection_of_http_1() {
    let (envoy, played) = envoy_thread::start();
    played.close();
    let _leads = on_connection(&envoy, 6);
    let refused = on_connection(&envoy, 7);
    envoy.run_events();
    assert!(refused.response().reset.is_some());
    let next = on_connection(&envoy, 7);
    assert_eq!(next.response().details, "aiovoy_connection_closes");
}

/// `alt-svc` of the response to a request by `protocol`, with TLS or without it.
fn alt_svc(protocol: &str, tls: bool, own: Option<&str>) -> Vec<String> {
    std::thread::scope(|scope| {
        let response = scope.spawn(|| {
            let (envoy, mut played) = envoy_thread::start_with(ALT_SVC);
            let mut request = Request::get("/").attribute(AttributeId::RequestProtocol, protocol);
            if tls {
                request = request.attribute(AttributeId::ConnectionTlsVersion, "TLSv1.3");
            }
            let stream = envoy.stream(request);
            stream.request_headers(true);
            envoy.run_events();
            played.take();
            let mut head = head(false);
            if let Some(own) = own {
                head.fields.push(b"alt-svc", own.as_bytes());
            }
            played.interim(0, 103, "a", "b");
            played.start_with(0, head, "ab", true);
            envoy.run_events();
            stream.response()
        });
        let response = response.join().expect("a response");
        let fields = response.heads.iter().flatten();
        fields
            .filter(|(name, _)| name == b"alt-svc")
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    })
}

#[test]
fn http_3_is_told_of_over_tls() {
    assert_eq!(alt_svc("HTTP/1.1", true, None), [r#"h3=":8443""#]);
    assert_eq!(alt_svc("HTTP/2", true, None), [r#"h3=":8443""#]);
    assert_eq!(alt_svc("HTTP/3", true, None), NOTHING);
    assert_eq!(alt_svc("HTTP/1.1", false, None), NOTHING);
}

#[test]
fn what_the_application_says_of_it_counts() {
    assert_eq!(alt_svc("HTTP/2", true, Some("clear")), ["clear"]);
}

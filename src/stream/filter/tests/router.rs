//! A request that goes through a router: its stream in front, and its streams behind.

use envoy::fake::{Request, Stream};
use envoy::{AttributeId, DataStatus, HeadersStatus};
use upstream::router::NUMBER;

use crate::envoy_thread::{self, EnvoyThread, NOTHING, PlayedLoop};
use crate::exchange::HttpVersion;

/// Envoy's flags for a response that came too late, and for a client that has gone.
const TIMED_OUT: u64 = 1 << 2;
const CLIENT_GONE: u64 = 1 << 14;

/// A request whose stream will end with these flags.
fn ends(flags: u64) -> Request {
    Request::get("/a").attribute(AttributeId::ResponseFlags, flags)
}

/// What the router has made of `request`: both streams.
#[track_caller]
fn routed(envoy: &EnvoyThread, request: Request) -> (Stream, Stream) {
    let front = envoy.front(request);
    assert_eq!(front.request_headers(true), HeadersStatus::Continue);
    let behind = envoy.route(&front);
    assert_eq!(behind.request_headers(true), HeadersStatus::StopIteration);
    (front, behind)
}

#[track_caller]
fn assert_all_gone(envoy: &EnvoyThread, played: &mut PlayedLoop) {
    played.return_calls();
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn application_sees_the_clients_connection_and_what_the_router_sends() {
    let (envoy, mut played) = envoy_thread::start();
    let request = Request::get("/a")
        .attribute(AttributeId::SourceAddress, "10.0.0.1:5000")
        .direct_remote_address("10.0.0.1:5000")
        .header("x-one", "1");
    let (_front, _behind) = routed(&envoy, request);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start \"\" end"]);
    let head = &played.exchanges[0].head;
    assert_eq!(head.version, HttpVersion::Http11);
    assert_eq!(head.target, b"/a");
    assert_eq!(&head.client.host[..], b"10.0.0.1");
    let names: Vec<_> = head.fields.iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&b"host"[..], b"x-one"]);
}

#[test]
fn empty_host_is_what_the_application_sees() {
    let (envoy, mut played) = envoy_thread::start();
    let (_front, _behind) = routed(&envoy, Request::get("/a").authority(""));
    envoy.run_events();
    played.take();
    let fields = &played.exchanges[0].head.fields;
    assert!(fields.iter().eq([(&b"host"[..], &b""[..])]));
}

#[test]
fn answer_goes_the_way_back() {
    let (envoy, mut played) = envoy_thread::start();
    let (front, behind) = routed(&envoy, Request::get("/a"));
    envoy.run_events();
    played.take();
    assert_eq!(envoy.in_flight(), 3);
    played.answer(0, "hello");
    envoy.run_events();
    assert_eq!(behind.response().body, b"hello");
    drop(behind);
    drop(front);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn what_is_refused_gets_to_no_router() {
    let (envoy, mut played) = envoy_thread::start_with(r#"{"limit_request_header_count": 2}"#);
    let request = Request::get("/a").header("a", "1").header("b", "2");
    let front = envoy.front(request);
    assert_eq!(front.request_headers(true), HeadersStatus::StopIteration);
    assert_eq!(front.response().status(), Some(431));
    assert!(front.request_header(NUMBER).is_empty());
    drop(front);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn client_that_has_gone_is_told_as_such() {
    let (envoy, mut played) = envoy_thread::start();
    let (front, behind) = routed(&envoy, ends(CLIENT_GONE));
    envoy.run_events();
    played.take();
    drop(front);
    assert_eq!(behind.response().status(), Some(499));
    // What the application has sent meanwhile goes nowhere.
    played.answer(0, "hello");
    envoy.run_events();
    assert_eq!(behind.response().body, b"");
    drop(behind);
    envoy.run_events();
    assert_eq!(played.take(), ["0: disconnect"]);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn answer_that_has_begun_stays_as_it_is() {
    let (envoy, mut played) = envoy_thread::start();
    let (front, behind) = routed(&envoy, ends(CLIENT_GONE));
    envoy.run_events();
    played.take();
    played.start(0, "hel", false);
    envoy.run_events();
    drop(front);
    assert_eq!(behind.response().heads.len(), 1);
    drop(behind);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn interim_heads_go_past_the_router() {
    let (envoy, mut played) = envoy_thread::start();
    let (front, behind) = routed(&envoy, Request::get("/a"));
    envoy.run_events();
    played.take();
    for link in ["1", "2"] {
        played.interim(0, 103, "link", link);
    }
    envoy.run_events();
    assert_eq!(
        (front.response().heads.len(), behind.response().heads.len()),
        (2, 0)
    );
    played.answer(0, "hello");
    envoy.run_events();
    assert_eq!(behind.response().body, b"hello");
}

#[test]
fn interim_heads_wait_for_a_client_that_is_slow_in_reading() {
    let (envoy, mut played) = envoy_thread::start();
    let (front, _behind) = routed(&envoy, Request::get("/a"));
    envoy.run_events();
    played.take();
    front.above_write_buffer_high_watermark();
    front.above_write_buffer_high_watermark();
    for _ in 0..1000 {
        played.interim(0, 103, "link", "1");
    }
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    front.below_write_buffer_low_watermark();
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    front.below_write_buffer_low_watermark();
    envoy.run_events();
    assert_eq!(played.take().len(), 1);
}

#[test]
fn body_that_nobody_reads_counts_in_front_of_the_router() {
    let (envoy, mut played) = envoy_thread::start_with(r#"{"limit_request_body": 10}"#);
    let front = envoy.front(Request::post("/a"));
    front.request_headers(false);
    let behind = envoy.route(&front);
    behind.request_headers(false);
    envoy.run_events();
    played.take();
    assert_eq!(front.request_body([b'x'; 10], false), DataStatus::Continue);
    envoy.run_events();
    assert_eq!(behind.response().status(), None);
    assert_eq!(front.request_body(b"x", true), DataStatus::Continue);
    envoy.run_events();
    assert_eq!(behind.response().status(), Some(413));
    assert_eq!(played.take(), ["0: disconnect"]);
}

#[test]
fn body_that_is_too_large_before_its_second_stream_begins_is_refused_there() {
    let (envoy, mut played) = envoy_thread::start_with(r#"{"limit_request_body": 10}"#);
    let front = envoy.front(Request::post("/a"));
    front.request_headers(false);
    front.request_body([b'x'; 11], false);
    let behind = envoy.route(&front);
    behind.request_headers(false);
    envoy.run_events();
    assert_eq!(behind.response().status(), Some(413));
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn so_many_go_through_the_router_at_once() {
    let (envoy, mut played) = envoy_thread::start_with(r#"{"limit_router_requests": 2}"#);
    let (front, behind) = routed(&envoy, Request::get("/a"));
    let waits = envoy.front(Request::get("/a"));
    assert_eq!(waits.request_headers(true), HeadersStatus::Continue);
    let refused = envoy.front(Request::get("/a"));
    assert_eq!(refused.request_headers(true), HeadersStatus::StopIteration);
    let response = refused.response();
    assert_eq!(response.status(), Some(503));
    assert_eq!(response.header("retry-after"), Some(&b"1"[..]));
    drop((front, behind));
    assert_eq!(
        envoy.front(Request::get("/a")).request_headers(true),
        HeadersStatus::Continue
    );
    drop((waits, refused));
    envoy.run_events();
    played.take();
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn time_out_of_the_router_gives_the_exchange_up() {
    let (envoy, mut played) = envoy_thread::start();
    let (front, behind) = routed(&envoy, ends(TIMED_OUT));
    envoy.run_events();
    played.take();
    front.begin_local_reply(504, "response_timeout");
    // The client takes its time for that, and the router has given the place away.
    let (late, next) = routed(&envoy, Request::get("/b"));
    envoy.run_events();
    assert_eq!(played.take(), ["0: given up", "1: start \"\" end"]);
    played.answer(0, "late");
    envoy.run_events();
    assert_eq!(behind.response().body, b"");
    drop((front, behind, late, next));
    envoy.run_events();
    assert_eq!(played.take(), ["1: disconnect"]);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn nothing_comes_of_what_was_given_up() {
    let (envoy, mut played) = envoy_thread::start();
    let front = envoy.front(Request::post("/a").attribute(AttributeId::ResponseFlags, TIMED_OUT));
    front.request_headers(false);
    let behind = envoy.route(&front);
    behind.request_headers(false);
    front.begin_local_reply(504, "response_timeout");
    behind.request_body(b"late", true);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start \"\"", "0: given up"]);
    drop((front, behind));
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn try_that_is_not_waited_for_is_given_up() {
    let (envoy, mut played) = envoy_thread::start();
    let (front, first) = routed(&envoy, ends(0));
    envoy.run_events();
    played.take();
    drop(first);
    let second = envoy.route(&front);
    second.request_headers(true);
    envoy.run_events();
    assert_eq!(played.take(), ["0: given up", "1: start \"\" end"]);
    assert_eq!(played.exchanges[1].head.target, b"/a");
    drop(second);
    drop(front);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn time_out_without_a_router_gives_the_exchange_up() {
    let (envoy, mut played) = envoy_thread::start();
    const DURATION_TIMEOUT: u64 = 1 << 22;
    for flags in [DURATION_TIMEOUT, CLIENT_GONE] {
        let stream = envoy.stream(ends(flags));
        stream.request_headers(true);
        envoy.run_events();
        played.take();
        drop(stream);
    }
    envoy.run_events();
    assert_eq!(played.take(), ["1: disconnect"]);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn stream_whose_client_has_gone_before_it_ends_without_a_word() {
    let (envoy, mut played) = envoy_thread::start();
    let front = envoy.front(Request::get("/a"));
    front.request_headers(true);
    let behind = envoy.route(&front);
    drop(front);
    behind.request_headers(true);
    // For Envoy it is one that was answered.
    assert_eq!(behind.response().status(), Some(499));
    drop(behind);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    assert!(envoy.logs().is_empty());
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn who_comes_to_the_internal_listener_by_himself_is_refused() {
    let (envoy, mut played) = envoy_thread::start();
    for request in [Request::get("/a"), Request::get("/a").header(NUMBER, "1")] {
        let stream = envoy.behind(request);
        stream.request_headers(true);
        assert_eq!(stream.response().status(), Some(502));
    }
    let logs = envoy.logs();
    let message = "refused with 502 (aiovoy_not_handed_over): GET /a, from 127.0.0.1";
    assert!(logs.iter().all(|log| log.message == message) && logs.len() == 2);
    assert_all_gone(&envoy, &mut played);
}

#[test]
fn number_of_a_client_is_nothing_to_the_application() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.stream(Request::get("/a").header(NUMBER, "1"));
    stream.request_headers(true);
    envoy.run_events();
    played.take();
    assert_eq!(played.exchanges[0].head.fields.iter().len(), 1);
}

#[test]
fn it_is_the_clients_connection_that_closes() {
    let (envoy, mut played) = envoy_thread::start();
    let (front, behind) = routed(&envoy, Request::get("/a"));
    envoy.run_events();
    played.take();
    envoy.drain();
    played.answer(0, "hello");
    envoy.run_events();
    assert_eq!((front.go_away(), behind.go_away()), (Some(true), None));
}

#[test]
fn what_comes_in_a_drain_can_be_routed_elsewhere() {
    let (envoy, mut played) = envoy_thread::start();
    let before = envoy.front(Request::get("/a"));
    before.request_headers(true);
    envoy.drain();
    let after = envoy.front(Request::get("/a"));
    assert_eq!(after.request_headers(true), HeadersStatus::Continue);
    // In that hook Envoy would take it for an answer.
    assert_eq!(after.go_away(), None);
    envoy.run_events();
    let told = [&before, &after].map(|front| {
        let draining = front.dynamic_metadata("aiovoy", "draining");
        (draining.is_some(), front.is_rerouted(), front.go_away())
    });
    assert_eq!(told, [(false, false, None), (true, true, Some(true))]);
    assert_eq!(envoy.in_flight(), 2);
    drop(after);
    drop(before);
    assert_all_gone(&envoy, &mut played);
}

/// Every stage at which one of two clients leaves: nothing is left of either.
#[test]
fn nothing_is_left_of_ten_thousand_requests_of_which_half_leave() {
    let (envoy, mut played) = envoy_thread::start();
    let mut answered = 0;
    for round in 0..10_000 {
        let front = envoy.front(ends(if round % 2 == 0 { 0 } else { CLIENT_GONE }));
        front.request_headers(true);
        let stage = if round % 2 == 0 { 4 } else { round / 2 % 4 };
        if stage == 0 {
            drop(front);
            continue;
        }
        let behind = envoy.route(&front);
        if stage == 1 {
            drop(front);
            behind.request_headers(true);
            continue;
        }
        behind.request_headers(true);
        if stage == 2 {
            drop(front);
            continue;
        }
        envoy.run_events();
        played.take();
        if stage == 3 {
            drop(front);
            continue;
        }
        played.answer(played.exchanges.len() - 1, "hello");
        envoy.run_events();
        assert_eq!(behind.response().body, b"hello");
        answered += 1;
        played.return_calls();
    }
    envoy.run_events();
    played.take();
    assert_eq!(answered, 5_000);
    assert_all_gone(&envoy, &mut played);
    assert_eq!(envoy.counts(), (0, 0));
}

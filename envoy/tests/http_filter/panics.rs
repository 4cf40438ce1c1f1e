//! What a panic in a hook leads to.

use envoy::fake::Request;
use envoy::{DataStatus, Header, HeadersStatus, ResetReason, TrailersStatus};

use crate::support::{Dropped, Journal, Script, envoy, scripted, scripted_once};

fn error(envoy: &envoy::fake::Envoy) -> String {
    let mut logs = envoy.logs();
    logs.retain(|record| record.level == log::Level::Error);
    logs.pop().map(|record| record.message).unwrap_or_default()
}

#[test]
fn before_a_response_is_500() {
    let (envoy, config) = scripted(Script {
        request_headers: Box::new(|_, _| panic!("no {}", "luck")),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    assert_eq!(stream.request_headers(true), HeadersStatus::StopIteration);
    assert_eq!(stream.response().status(), Some(500));
    assert_eq!(stream.response().details, "dynamic_module_panicked");
    assert_eq!(
        error(&envoy),
        "panic in `envoy_dynamic_module_on_http_filter_request_headers`: no luck"
    );
}

#[test]
fn in_the_body_or_the_trailers_is_500_too() {
    let (_envoy, config) = scripted(Script {
        request_body: Box::new(|_, _| panic!("broken")),
        request_trailers: Box::new(|_| panic!("broken")),
        ..Script::default()
    });
    let stream = config.stream(Request::post("/"));
    assert_eq!(
        stream.request_body("a", false),
        DataStatus::StopIterationNoBuffer
    );
    assert_eq!(stream.response().status(), Some(500));
    let stream = config.stream(Request::post("/"));
    assert_eq!(stream.request_trailers(&[]), TrailersStatus::StopIteration);
    assert_eq!(stream.response().status(), Some(500));
}

#[test]
fn after_a_beginning_is_a_reset() {
    let (envoy, config) = scripted(Script {
        request_headers: Box::new(|envoy, _| {
            envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
            envoy.new_scheduler().commit(0);
            HeadersStatus::StopIteration
        }),
        scheduled: Box::new(|_, _| panic!("broken")),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    envoy.run_events();
    assert_eq!(stream.response().status(), Some(200));
    assert_eq!(stream.response().reset, Some(ResetReason::LocalReset));
}

#[test]
fn on_the_response_side_is_a_reset() {
    let (_envoy, config) = scripted(Script {
        response_headers: Box::new(|_, _| panic!("broken")),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    assert_eq!(stream.response_headers(false), HeadersStatus::StopIteration);
    assert_eq!(stream.response().reset, Some(ResetReason::LocalReset));
}

#[test]
fn after_an_interim_head_is_500() {
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(|envoy, _| {
            envoy.send_response_headers(&[Header::new(b":status", b"100")], false);
            panic!("broken")
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert_eq!(stream.response().heads.len(), 2);
    assert_eq!(stream.response().status(), Some(500));
    assert!(stream.response().end_of_stream);
}

#[test]
fn at_a_watermark_ends_the_stream_a_moment_later() {
    let journal = Journal::default();
    let (envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(|envoy, _| {
            if envoy.request_header(":path") == Some(b"/begun") {
                envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
            }
            HeadersStatus::StopIteration
        }),
        above: Box::new(|_| panic!("broken")),
        ..Script::default()
    });
    let (idle, begun) = (
        config.stream(Request::get("/")),
        config.stream(Request::get("/begun")),
    );
    idle.request_headers(true);
    begun.request_headers(true);
    idle.above_write_buffer_high_watermark();
    begun.above_write_buffer_high_watermark();
    begun.above_write_buffer_high_watermark();
    assert!(!idle.is_complete() && !begun.is_complete());
    journal.take();

    envoy.run_events();
    assert_eq!(idle.response().status(), Some(500));
    assert_eq!(begun.response().reset, Some(ResetReason::LocalReset));
    // The filter sees no event of this.
    let ends = [
        "local_reply 500 dynamic_module_panicked",
        "stream_complete",
        "stream_complete",
    ];
    assert_eq!(journal.take(), ends);
}

#[test]
fn when_told_of_its_own_end_is_one_panic_at_a_time() {
    let journal = Journal::default();
    let (_envoy, config) = scripted_once(Script {
        journal: journal.clone(),
        request_headers: Box::new(|_, _| panic!("first")),
        local_reply: Box::new(|_| panic!("second")),
        stream_complete: Box::new(|_| panic!("third")),
        dropped: Dropped::then(|| panic!("fourth")),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert_eq!(stream.response().reset, Some(ResetReason::LocalReset));
    assert_eq!(
        journal.take(),
        [
            "request_headers end=true",
            "local_reply 500 dynamic_module_panicked",
            "stream_complete"
        ]
    );
}

#[test]
fn in_a_destructor_is_logged() {
    let (envoy, config) = scripted_once(Script {
        dropped: Dropped::then(|| panic!("broken")),
        ..Script::default()
    });
    drop(config.stream(Request::get("/")));
    assert_eq!(
        error(&envoy),
        "panic in `envoy_dynamic_module_on_http_filter_destroy`: broken"
    );
}

#[test]
fn while_a_filter_is_made_is_500() {
    let (envoy, config) = envoy(|_| panic!("broken"));
    let stream = config.stream(Request::get("/"));
    assert_eq!(stream.response().status(), Some(500));
    assert_eq!(error(&envoy), "panic in `new_filter`: broken");
}

#[test]
fn with_any_payload() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let (envoy, config) = scripted(Script {
        request_headers: Box::new(|_, _| std::panic::panic_any(Bomb)),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert_eq!(stream.response().status(), Some(500));
    assert!(error(&envoy).ends_with("unknown"));
}

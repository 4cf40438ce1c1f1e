//! Which hooks run when, and what they answer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use envoy::fake::Request;
use envoy::{
    DataStatus, EnvoyFilter, FilterRef, HeadersStatus, HttpFilter, ResetReason, TrailersStatus,
};

use crate::support::{Dropped, Journal, Script, envoy, scripted, scripted_once};

#[test]
fn come_in_order_and_the_filter_goes_last() {
    let journal = Journal::default();
    let (envoy, config) = scripted_once(Script {
        journal: journal.clone(),
        dropped: Dropped::note(&journal),
        ..Script::default()
    });
    let stream = config.stream(Request::post("/"));
    stream.request_headers(false);
    stream.request_body("a", false);
    stream.request_trailers(&[("checksum", "1")]);
    stream.response_headers(false);
    stream.response_body(false);
    stream.response_trailers();
    stream.disconnect();
    assert_eq!(
        journal.take(),
        [
            "request_headers end=false",
            "request_body end=false",
            "request_trailers",
            "response_headers end=false",
            "response_body end=false",
            "response_trailers",
            "stream_complete",
        ]
    );

    envoy.run_events();
    assert_eq!(journal.take(), ["drop"]);
}

#[test]
fn may_come_without_a_request() {
    let journal = Journal::default();
    let (envoy, config) = scripted(Script {
        journal: journal.clone(),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.local_reply(403, "denied_by_another_filter");
    envoy.run_events();
    assert_eq!(
        journal.take(),
        [
            "local_reply 403 denied_by_another_filter",
            "stream_complete"
        ]
    );
}

#[test]
fn answer_with_the_status_of_the_filter() {
    let next = Rc::new(Cell::new((HeadersStatus::Continue, DataStatus::Continue)));
    let (headers, body) = (Rc::clone(&next), Rc::clone(&next));
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(move |_, _| headers.get().0),
        request_body: Box::new(move |_, _| body.get().1),
        request_trailers: Box::new(|_| TrailersStatus::StopIteration),
        ..Script::default()
    });
    for status in [
        (HeadersStatus::Continue, DataStatus::Continue),
        (
            HeadersStatus::StopIteration,
            DataStatus::StopIterationAndBuffer,
        ),
        (
            HeadersStatus::ContinueAndDontEndStream,
            DataStatus::StopIterationAndWatermark,
        ),
        (
            HeadersStatus::StopAllIterationAndBuffer,
            DataStatus::StopIterationNoBuffer,
        ),
        (
            HeadersStatus::StopAllIterationAndWatermark,
            DataStatus::Continue,
        ),
    ] {
        next.set(status);
        let stream = config.stream(Request::post("/"));
        assert_eq!(
            (
                stream.request_headers(false),
                stream.request_body("a", false)
            ),
            status
        );
        assert_eq!(stream.request_trailers(&[]), TrailersStatus::StopIteration);
    }
}

#[test]
fn have_defaults_that_let_everything_pass() {
    struct Plain;
    impl HttpFilter for Plain {
        fn on_request_headers(&self, _: &mut EnvoyFilter<'_>, _: bool) -> HeadersStatus {
            HeadersStatus::Continue
        }
    }
    let (envoy, config) = envoy(|envoy| {
        envoy.new_scheduler().commit(1);
        Some(Rc::new(Plain))
    });
    let stream = config.stream(Request::post("/"));
    stream.request_headers(false);
    assert_eq!(stream.request_body("a", false), DataStatus::Continue);
    assert_eq!(stream.request_trailers(&[]), TrailersStatus::Continue);
    stream.above_write_buffer_high_watermark();
    stream.below_write_buffer_low_watermark();
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(stream.response_headers(false), HeadersStatus::Continue);
    assert_eq!(stream.response_body(true), DataStatus::Continue);
    assert_eq!(stream.response_trailers(), TrailersStatus::Continue);
    stream.local_reply(504, "stream_idle_timeout");
    assert_eq!(
        stream.response().reset,
        Some(ResetReason::LocalReset).filter(|_| false)
    );
}

#[test]
fn no_filter_means_500() {
    let kept = Rc::new(RefCell::new(None));
    let keep = Rc::clone(&kept);
    let (_envoy, config) = envoy(move |envoy| {
        if envoy.request_header(":path") == Some(b"/none") {
            *keep.borrow_mut() = Some(envoy.filter_ref());
            return None;
        }
        let kept = Rc::clone(&keep);
        Some(Rc::new(Script {
            request_headers: Box::new(move |envoy, _| {
                let other: FilterRef = kept.take().unwrap();
                assert_eq!(other.with(envoy, |_| ()), None);
                HeadersStatus::Continue
            }),
            ..Script::default()
        }))
    });
    let stream = config.stream(Request::get("/none"));
    assert!(stream.is_complete());
    assert_eq!(stream.response().status(), Some(500));
    // What was kept of it is of no use to others.
    config.stream(Request::get("/")).request_headers(true);
    assert!(kept.borrow().is_none());
}

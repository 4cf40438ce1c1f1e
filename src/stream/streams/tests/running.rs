//! Which requests have not ended, as the log is told.

use std::sync::mpsc;
use std::time::Duration;

use envoy::fake::Request;

use super::requested;
use crate::envoy_thread::{self, EnvoyThread, PlayedLoop};
use crate::exchange::Outbound;

fn running(envoy: &EnvoyThread, played: &PlayedLoop) -> String {
    let (sender, running) = mpsc::channel();
    played.worker.outbox.post(Outbound::Running(sender));
    envoy.run_events();
    running.try_recv().expect("the streams answer").to_string()
}

#[test]
fn requests_are_named_with_their_ages_as_of_the_last_tick() {
    let (envoy, played) = envoy_thread::start();
    let old = envoy.stream(Request::get("/old?secret").header("x-request-id", "a1"));
    old.request_headers(true);
    envoy.run_events();
    played.advance(Duration::from_secs(3));
    envoy.run_events();
    let young = envoy.stream(Request::post("/young"));
    young.request_headers(false);
    assert_eq!(
        running(&envoy, &played),
        "GET /old (request a1) (3 s), POST /young (0 s)"
    );
    drop(young);
    assert_eq!(running(&envoy, &played), "GET /old (request a1) (3 s)");
}

#[test]
fn what_is_answered_or_was_not_let_in_does_not_run() {
    let (envoy, played, [answered, _open]) = requested();
    let _nothing_came = envoy.stream(Request::get("/"));
    played.answer(0, "ab");
    envoy.run_events();
    assert_eq!(answered.response().body, b"ab");
    assert_eq!(running(&envoy, &played), "GET / (0 s)");
}

#[test]
fn behind_a_router_the_request_is_that_of_the_client() {
    let (envoy, played) = envoy_thread::start();
    let front = envoy.front(Request::get("/routed"));
    front.request_headers(true);
    let behind = envoy.route(&front);
    behind.request_headers(true);
    envoy.run_events();
    assert_eq!(running(&envoy, &played), "GET /routed (0 s)");
}

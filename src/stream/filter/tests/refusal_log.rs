//! What the log says of refusals.

use std::time::Duration;

use envoy::fake::Request;

use crate::admission::clock;
use crate::envoy_thread::{self, EnvoyThread};

fn refuse(envoy: &EnvoyThread, times: usize) {
    for _ in 0..times {
        let stream = envoy.stream(Request::get("/a b?c"));
        stream.request_headers(true);
        assert_eq!(stream.response().status(), Some(400));
    }
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let (envoy, _) = envoy_thread::start();
    refuse(&envoy, 1);
    let logs = envoy.logs();
    assert_eq!(logs.len(), 1);
    assert_eq!(logs[0].level, log::Level::Info);
    let message = "refused with 400 (aiovoy_bad_path): GET /a b, from 127.0.0.1";
    assert_eq!(logs[0].message, message);
}

#[test]
fn a_flood_of_refusals_is_counted_rather_than_told() {
    let (envoy, _) = envoy_thread::start();
    refuse(&envoy, 1000);
    assert_eq!(envoy.logs().len(), 100);
    clock::advance(Duration::from_secs(1));
    refuse(&envoy, 1);
    let logs = envoy.logs();
    assert_eq!(logs.len(), 102);
    assert_eq!(logs[100].message, "900 more were refused");
    clock::advance(Duration::from_secs(1));
    refuse(&envoy, 1);
    assert_eq!(envoy.logs().len(), 103);
}

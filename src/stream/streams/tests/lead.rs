//! Who leads, and that nothing is left behind by one who goes.

use envoy::fake::Request;

use super::requested;
use crate::envoy_thread::{self, NOTHING};
use crate::exchange::REQUEST_WINDOW;

#[test]
fn one_event_and_one_wake_up_serve_what_an_iteration_brings() {
    let (envoy, mut played) = envoy_thread::start();
    let _streams = [(); 3].map(|()| envoy.get());
    let body = envoy.post();
    body.request_body("ab", false);
    assert!(!played.is_woken(), "the iteration is not over");
    assert_eq!(envoy.run_events(), 1);
    assert!(played.is_woken());
    assert_eq!(played.take().len(), 4);
    assert!(!played.is_woken());
    assert_eq!(envoy.run_events(), 0);
    assert!(!played.is_woken());
}

#[test]
fn one_event_serves_what_the_loop_posts() {
    let (envoy, played, streams) = requested::<3>();
    for exchange in [2, 0, 1] {
        played.start(exchange, "ab", false);
        played.body(exchange, "cd", true);
    }
    assert_eq!(envoy.run_events(), 1);
    for stream in streams {
        assert_eq!(stream.response().body, b"abcd");
        assert!(stream.is_complete());
    }
}

#[test]
fn each_batch_of_the_loop_has_its_event() {
    let (envoy, played, [stream]) = requested();
    played.start(0, "ab", false);
    assert_eq!(envoy.run_events(), 1);
    played.body(0, "cd", true);
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(stream.response().body, b"abcd");
}

#[test]
fn what_hooks_post_inside_a_turn_is_given_at_its_end() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body(vec![0; REQUEST_WINDOW], false);
    stream.request_body("ab", true);
    envoy.run_events();
    played.take();
    played.read(0, REQUEST_WINDOW);
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(played.take(), [r#"0: body "ab" end"#]);
}

#[test]
fn the_lead_passes_on_before_the_leaders_event() {
    let (envoy, mut played) = envoy_thread::start();
    let [leader, heir] = [(); 2].map(|()| envoy.get());
    leader.disconnect();
    assert_eq!(played.take(), NOTHING);
    // The leader's event, which finds nobody, and the heir's.
    assert_eq!(envoy.run_events(), 2);
    let lines = [r#"0: start "" end"#, r#"1: start "" end"#, "0: disconnect"];
    assert_eq!(played.take(), lines);
    played.answer(1, "ab");
    envoy.run_events();
    assert_eq!(heir.response().body, b"ab");
}

#[test]
fn the_lead_passes_on_with_a_message_in_the_outbox() {
    let (envoy, mut played, [leader, heir]) = requested();
    played.answer(1, "ab");
    leader.disconnect();
    envoy.run_events();
    assert_eq!(heir.response().body, b"ab");
    assert_eq!(played.take(), ["0: disconnect"]);
}

#[test]
fn the_lead_passes_on_to_one_that_has_posted_nothing() {
    let (envoy, mut played) = envoy_thread::start();
    let [first, second] = [(); 2].map(|()| envoy.stream(Request::get("/")));
    let leader = envoy.get();
    leader.disconnect();
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "" end"#, "0: disconnect"]);
    drop(first);
    second.request_headers(true);
    envoy.run_events();
    assert_eq!(played.take(), [r#"1: start "" end"#]);
    played.answer(1, "ab");
    envoy.run_events();
    assert_eq!(second.response().body, b"ab");
}

#[test]
fn the_lead_passes_on_as_often_as_leaders_go() {
    let (envoy, mut played) = envoy_thread::start();
    let streams = [(); 8].map(|()| envoy.get());
    let (last, others) = streams.split_last().expect("eight");
    for stream in others {
        stream.disconnect();
    }
    envoy.run_events();
    assert_eq!(played.take().len(), 8 + 7);
    let last_number = played
        .exchanges
        .iter()
        .position(|exchange| !exchange.disconnected);
    played.answer(last_number.expect("the last"), "ab");
    envoy.run_events();
    assert_eq!(last.response().body, b"ab");
}

#[test]
fn the_lead_passes_on_inside_the_leaders_own_turn() {
    let (envoy, mut played, [leader, heir]) = requested();
    let posting = envoy.post();
    // What hooks have gathered and what the loop has posted behind the leader's end.
    played.answer(0, "ab");
    played.start(1, "cd", false);
    assert_eq!(envoy.run_events(), 2, "the leader's event, for either side");
    assert!(leader.is_complete());
    assert_eq!(heir.response().body, b"cd");
    assert_eq!(played.take(), [r#"2: start """#]);
    // The heir's event.
    posting.request_body("ef", true);
    played.body(1, "", true);
    envoy.run_events();
    assert!(heir.is_complete());
    assert_eq!(played.take(), [r#"2: body "ef" end"#]);
}

#[test]
fn all_leaders_may_go_inside_one_turn() {
    let (envoy, mut played, streams) = requested::<8>();
    for exchange in 0..8 {
        played.answer(exchange, "ab");
    }
    assert_eq!(envoy.run_events(), 1);
    for stream in &streams {
        assert_eq!(stream.response().body, b"ab");
    }
    let _next = envoy.get();
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(played.take(), [r#"8: start "" end"#]);
}

#[test]
fn what_the_last_stream_leaves_is_given_at_once() {
    let (envoy, mut played) = envoy_thread::start();
    let last = envoy.post();
    last.request_body("ab", false);
    last.disconnect();
    assert!(played.is_woken());
    assert_eq!(played.take(), [r#"0: start "ab""#, "0: disconnect"]);
    // Its event finds nobody.
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn what_the_last_stream_leaves_inside_its_turn_is_given_too() {
    let (envoy, mut played, [last]) = requested();
    played.start(0, "ab", false);
    played.fail(0);
    let gone = envoy.get();
    gone.disconnect();
    envoy.run_events();
    assert!(last.is_complete());
    assert_eq!(played.take(), [r#"1: start "" end"#, "1: disconnect"]);
}

#[test]
fn what_is_posted_while_no_stream_lives_is_for_nobody() {
    let (envoy, mut played, [first, second]) = requested();
    first.disconnect();
    second.disconnect();
    played.take();
    for exchange in [0, 1] {
        played.answer(exchange, "too late");
    }
    envoy.run_events();
    assert!(played.has_posted());
    // These have the places of the two.
    let next = [(); 2].map(|()| envoy.get());
    envoy.run_events();
    assert!(!played.has_posted());
    for stream in &next {
        assert!(stream.response().heads.is_empty());
    }
    assert_eq!(played.take().len(), 2);
    played.answer(2, "ab");
    played.answer(3, "cd");
    envoy.run_events();
    assert_eq!(next[0].response().body, b"ab");
    assert_eq!(next[1].response().body, b"cd");
}

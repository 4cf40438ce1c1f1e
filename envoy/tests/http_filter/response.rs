//! Sending the response, whole or in parts, in turn and out of turn.

use envoy::fake::{Request, Response};
use envoy::{AttributeId, EnvoyFilter, Header, HeadersStatus, LocalReplyStatus, ResetReason};

use crate::support::{Journal, Script, scripted};

#[test]
fn whole_one_re_enters_the_filter() {
    let journal = Journal::default();
    let sent = journal.clone();
    let (_envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(move |envoy, _| {
            let headers = [
                Header::new(b"content-type", b"text/plain"),
                Header::new(b"x", b""),
            ];
            envoy.send_response(201, &headers, b"hello", "greeting");
            sent.add("sent");
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert_eq!(
        journal.take(),
        [
            "request_headers end=true",
            "local_reply 201 greeting",
            "sent",
            "stream_complete"
        ]
    );
    let response = stream.response();
    assert_eq!(response.status(), Some(201));
    assert_eq!(response.header("content-type"), Some(&b"text/plain"[..]));
    assert_eq!(response.header("x"), Some(&b""[..]));
    assert_eq!(response.body, b"hello");
    assert_eq!(response.details, "greeting");
    assert!(response.end_of_stream);
}

#[test]
fn streamed_one_completes_inside_the_last_call() {
    let journal = Journal::default();
    let sent = journal.clone();
    let (envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(|envoy, _| {
            envoy.new_scheduler().commit(0);
            HeadersStatus::StopIteration
        }),
        scheduled: Box::new(move |envoy, _| {
            envoy.send_response_headers(&[Header::new(b":status", b"103")], false);
            envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
            envoy.send_response_data(b"one ", false);
            envoy.send_response_data(b"two", false);
            assert_eq!(envoy.request_header(":method"), Some(&b"GET"[..]));
            envoy.send_response_trailers(&[Header::new(b"checksum", b"1")]);
            sent.add("sent");
            // The stream is gone by now.
            assert_eq!(envoy.request_header(":method"), None);
            assert!(envoy.request_headers().is_empty());
            assert_eq!(envoy.attribute_bytes(AttributeId::RequestPath), None);
            assert_eq!(envoy.direct_remote_address(), None);
            assert_eq!(envoy.buffer_limit(), 0);
            assert_eq!(envoy.worker_index(), 0);
            envoy.send_response_data(b"three", true);
            envoy.send_response(500, &[], b"", "");
            envoy.reset_stream(ResetReason::LocalReset, "");
        }),
        stream_complete: Box::new(|envoy| {
            assert_eq!(envoy.request_header(":method"), Some(&b"GET"[..]));
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    envoy.run_events();
    assert_eq!(
        journal.take(),
        [
            "request_headers end=true",
            "scheduled 0",
            "stream_complete",
            "sent"
        ]
    );
    let response = stream.response();
    assert_eq!(response.heads.len(), 2);
    assert_eq!(response.status(), Some(200));
    assert_eq!(response.body, b"one two");
    assert_eq!(
        response.trailers,
        Some(vec![(b"checksum".to_vec(), b"1".to_vec())])
    );
    assert_eq!(response.reset, None);
}

#[test]
fn headers_alone_can_end_it() {
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(|envoy, _| {
            envoy.send_response_headers(&[Header::new(b":status", b"204")], true);
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert!(stream.is_complete());
    assert!(stream.response().end_of_stream);
}

#[test]
fn slow_client_is_reported_inside_the_call() {
    let journal = Journal::default();
    let sent = journal.clone();
    let (envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(|envoy, _| {
            envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
            envoy.new_scheduler().commit(0);
            HeadersStatus::StopIteration
        }),
        scheduled: Box::new(move |envoy, _| {
            for data in [b"0123456789", b"0123456789", b"0123456789"] {
                envoy.send_response_data(data, false);
                sent.add("sent");
            }
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.set_write_buffer_limit(10);
    stream.request_headers(true);
    envoy.run_events();
    stream.client_reads(20);
    assert_eq!(
        journal.take()[2..],
        ["sent", "above", "sent", "above", "sent"]
    );
    stream.client_reads(10);
    assert_eq!(journal.take(), ["below", "below"]);
}

#[test]
fn another_filters_reset_completes_it_inside_the_call() {
    let journal = Journal::default();
    let sent = journal.clone();
    let (_envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(move |envoy, _| {
            envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
            envoy.send_response_data(b"01234", false);
            sent.add("sent");
            envoy.send_response_data(b"5", false);
            sent.add("sent");
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.set_response_limit(5);
    stream.request_headers(true);
    assert_eq!(
        journal.take(),
        [
            "request_headers end=true",
            "sent",
            "stream_complete",
            "sent"
        ]
    );
    assert_eq!(stream.response().reset, Some(ResetReason::LocalReset));
}

#[test]
fn second_reply_after_a_beginning_resets() {
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(|envoy, _| {
            envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
            envoy.send_response(500, &[], b"", "too_late");
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    let response = stream.response();
    assert_eq!(response.reset, Some(ResetReason::LocalReset));
    assert_eq!(response.details, "too_late");
}

/// The response to a request whose headers `send` answers.
fn response_of(send: impl Fn(&mut EnvoyFilter<'_>) + 'static) -> Response {
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(move |envoy, _| {
            send(envoy);
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert!(stream.is_complete());
    stream.response()
}

const OK: [Header<'_>; 1] = [Header::new(b":status", b"200")];
const EARLY_HINTS: [Header<'_>; 1] = [Header::new(b":status", b"103")];
const OUT_OF_TURN: &str = "dynamic_module_response_out_of_turn";

#[test]
fn out_of_turn_before_headers_is_500() {
    let sends: [fn(&mut EnvoyFilter<'_>); 3] = [
        |envoy| envoy.send_response_data(b"too early", true),
        |envoy| envoy.send_response_trailers(&[]),
        |envoy| {
            envoy.send_response_data(b"too early", false);
            // And what follows goes nowhere.
            envoy.send_response_headers(&OK, false);
            envoy.send_response_data(b"body", true);
        },
    ];
    for send in sends {
        let response = response_of(send);
        assert_eq!(response.status(), Some(500));
        assert_eq!(response.details, OUT_OF_TURN);
        assert!(response.body.is_empty());
    }
}

#[test]
fn out_of_turn_after_headers_is_a_reset() {
    let response = response_of(|envoy| {
        envoy.send_response_headers(&OK, false);
        envoy.send_response_headers(&EARLY_HINTS, false);
    });
    assert_eq!(response.heads.len(), 1);
    assert_eq!(response.reset, Some(ResetReason::LocalReset));
    assert_eq!(response.details, OUT_OF_TURN);
}

#[test]
fn out_of_turn_after_an_interim_head_is_500() {
    let sends: [fn(&mut EnvoyFilter<'_>); 2] = [
        |envoy| envoy.send_response_data(b"too early", true),
        |envoy| envoy.send_response_headers(&EARLY_HINTS, true),
    ];
    for send in sends {
        let response = response_of(move |envoy| {
            envoy.send_response_headers(&EARLY_HINTS, false);
            send(envoy);
        });
        assert_eq!(response.heads.len(), 2);
        assert_eq!(response.status(), Some(500));
        assert!(response.end_of_stream);
    }
}

#[test]
fn out_of_turn_in_another_response_is_a_reset() {
    let sends: [fn(&mut EnvoyFilter<'_>); 3] = [
        |envoy| envoy.send_response_headers(&OK, true),
        |envoy| envoy.send_response_data(b"more", true),
        |envoy| envoy.send_response_trailers(&[]),
    ];
    for send in sends {
        let (_envoy, config) = scripted(Script {
            response_headers: Box::new(move |envoy, _| {
                send(envoy);
                HeadersStatus::Continue
            }),
            ..Script::default()
        });
        let stream = config.stream(Request::get("/"));
        stream.response_headers(false);
        assert_eq!(stream.response().reset, Some(ResetReason::LocalReset));
        assert_eq!(stream.response().details, OUT_OF_TURN);
    }
}

#[test]
fn reply_of_envoy_in_its_midst_ends_it() {
    let (envoy, config) = scripted(Script {
        request_headers: Box::new(|envoy, _| {
            envoy.send_response_headers(&OK, false);
            envoy.new_scheduler().commit(0);
            HeadersStatus::StopIteration
        }),
        scheduled: Box::new(|envoy, _| envoy.send_response_data(b"late", true)),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    stream.local_reply(504, "stream_idle_timeout");
    envoy.run_events();
    assert!(stream.response().body.is_empty());
    assert_eq!(stream.response().reset, Some(ResetReason::LocalReset));
}

#[test]
fn reset_and_go_away() {
    let journal = Journal::default();
    let (_envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_headers: Box::new(|envoy, _| {
            envoy.send_go_away_and_close(true);
            envoy.reset_stream(ResetReason::LocalRefusedStreamReset, "shutting_down");
            HeadersStatus::StopIteration
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.request_headers(true);
    assert_eq!(stream.go_away(), Some(true));
    assert_eq!(
        stream.response().reset,
        Some(ResetReason::LocalRefusedStreamReset)
    );
    assert_eq!(stream.response().details, "shutting_down");
    assert_eq!(
        journal.take(),
        ["request_headers end=true", "stream_complete"]
    );
}

#[test]
fn local_reply_can_be_turned_into_a_reset() {
    let (_envoy, config) = scripted(Script {
        local_reply: Box::new(|_| LocalReplyStatus::ContinueAndResetStream),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    stream.local_reply(504, "stream_idle_timeout");
    assert_eq!(stream.response().reset, Some(ResetReason::LocalReset));
    assert_eq!(stream.response().status(), None);
}

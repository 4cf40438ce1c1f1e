//! Hooks, trait, callbacks: a filter in a fake Envoy.

#![allow(clippy::unwrap_used)]

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use envoy::fake::{Request, Response};
use envoy::{
    AttributeId, BodyChunks, CounterId, DataStatus, EnvoyFilter, FilterRef, GaugeId, Header,
    HeadersStatus, HistogramId, HttpFilter, LocalReplyStatus, ResetReason, Scheduler,
    TrailersStatus,
};
use support::{Dropped, Journal, Script, envoy, on_new_config, scripted, scripted_once};

/// What `join` makes of the pieces of a body.
fn join(chunks: &BodyChunks<'_>) -> Vec<u8> {
    chunks.iter().collect::<Vec<_>>().concat()
}

mod hooks {
    use super::*;

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
}

mod request {
    use super::*;

    #[test]
    fn headers_are_read_in_order_with_repeats() {
        let (_envoy, config) = scripted(Script {
            request_headers: Box::new(|envoy, _| {
                let headers = envoy.request_headers();
                assert_eq!(headers.len(), 8);
                assert!(!headers.is_empty());
                // What is read borrows from Envoy, not from the list.
                let pairs: Vec<_> = headers.iter().skip(4).collect();
                drop(headers);
                assert_eq!(
                    pairs,
                    [
                        (&b"cookie"[..], &b"a=1"[..]),
                        (b"x-empty", b""),
                        (b"cookie", b"b=2"),
                        (b"x-bytes", b"\xff\x00"),
                    ]
                );
                assert_eq!(envoy.request_header("Cookie"), Some(&b"a=1"[..]));
                assert_eq!(envoy.request_header("x-empty"), Some(&b""[..]));
                assert_eq!(envoy.request_header("x-absent"), None);
                assert!(envoy.request_trailers().is_empty());
                HeadersStatus::Continue
            }),
            ..Script::default()
        });
        let request = Request::get("/")
            .header("cookie", "a=1")
            .header("x-empty", "")
            .header("cookie", "b=2")
            .header("x-bytes", b"\xff\x00");
        assert_eq!(
            config.stream(request).request_headers(true),
            HeadersStatus::Continue
        );
    }

    #[test]
    fn many_headers_are_read_too() {
        let (_envoy, config) = scripted(Script {
            request_headers: Box::new(|envoy, _| {
                let headers = envoy.request_headers();
                assert_eq!(headers.len(), 104);
                assert_eq!(headers.iter().last(), Some((&b"x-99"[..], &b"99"[..])));
                HeadersStatus::Continue
            }),
            ..Script::default()
        });
        let request = (0..100).fold(Request::get("/"), |request, number| {
            request.header(&format!("x-{number}"), number.to_string())
        });
        assert_eq!(
            config.stream(request).request_headers(true),
            HeadersStatus::Continue
        );
    }

    #[test]
    fn trailers_are_read() {
        let (_envoy, config) = scripted(Script {
            request_trailers: Box::new(|envoy| {
                let trailers = envoy.request_trailers();
                assert_eq!(trailers.iter().next(), Some((&b"checksum"[..], &b"1"[..])));
                TrailersStatus::Continue
            }),
            ..Script::default()
        });
        let stream = config.stream(Request::post("/"));
        stream.request_headers(false);
        assert_eq!(
            stream.request_trailers(&[("checksum", "1")]),
            TrailersStatus::Continue
        );
    }

    #[test]
    fn attributes_answer_the_getter_of_their_type() {
        let (_envoy, config) = scripted(Script {
            request_headers: Box::new(|envoy, _| {
                assert_eq!(
                    envoy.attribute_bytes(AttributeId::RequestPath),
                    Some(&b"/a?b"[..])
                );
                assert_eq!(
                    envoy.attribute_bytes(AttributeId::RequestProtocol),
                    Some(&b"HTTP/2"[..])
                );
                assert_eq!(
                    envoy.attribute_bytes(AttributeId::ConnectionTlsVersion),
                    None
                );
                assert_eq!(envoy.attribute_bytes(AttributeId::ConnectionId), None);
                assert_eq!(envoy.attribute_int(AttributeId::ConnectionId), Some(7));
                assert_eq!(envoy.attribute_int(AttributeId::ResponseCode), None);
                assert_eq!(
                    envoy.attribute_bool(AttributeId::ConnectionMtls),
                    Some(false)
                );
                assert_eq!(envoy.attribute_bool(AttributeId::ConnectionId), None);
                assert_eq!(envoy.direct_remote_address(), Some(&b"192.0.2.1:4711"[..]));
                assert_eq!(envoy.worker_index(), 0);
                HeadersStatus::Continue
            }),
            ..Script::default()
        });
        let request = Request::get("/a?b")
            .attribute(AttributeId::RequestProtocol, "HTTP/2")
            .attribute(AttributeId::ConnectionId, 7)
            .attribute(AttributeId::ConnectionMtls, false)
            .direct_remote_address("192.0.2.1:4711");
        assert_eq!(
            config.stream(request).request_headers(true),
            HeadersStatus::Continue
        );
    }

    #[test]
    fn body_is_received_buffered_and_drained() {
        let seen = Journal::default();
        let (body, scheduled) = (seen.clone(), seen.clone());
        let (envoy, config) = scripted(Script {
            request_headers: Box::new(|envoy, _| {
                envoy.set_buffer_limit(8);
                assert_eq!(envoy.buffer_limit(), 8);
                HeadersStatus::StopIteration
            }),
            request_body: Box::new(move |envoy, end| {
                let (received, buffered) =
                    (envoy.received_request_body(), envoy.buffered_request_body());
                assert_eq!(received.len(), envoy.received_request_body_len());
                assert_eq!(buffered.len(), envoy.buffered_request_body_len());
                assert!(!received.is_empty());
                assert!(!envoy.received_is_buffered_request_body());
                body.add(format_args!(
                    "received {} after {}",
                    String::from_utf8_lossy(&join(&received)),
                    String::from_utf8_lossy(&join(&buffered)),
                ));
                if end {
                    envoy.new_scheduler().commit(5);
                }
                DataStatus::StopIterationAndWatermark
            }),
            scheduled: Box::new(move |envoy, bytes| {
                assert_eq!(envoy.received_request_body_len(), 0);
                assert!(envoy.drain_buffered_request_body(bytes as usize));
                let left = join(&envoy.buffered_request_body());
                scheduled.add(String::from_utf8_lossy(&left));
            }),
            ..Script::default()
        });
        let stream = config.stream(Request::post("/"));
        stream.request_headers(false);
        stream.request_body_chunks(&[b"abc", b"def"], false);
        assert!(stream.is_reading());
        stream.request_body("ghi", true);
        assert!(!stream.is_reading());
        assert_eq!(stream.buffered_request_body_len(), 9);
        envoy.run_events();
        assert_eq!(
            seen.take(),
            [
                "received abcdef after ",
                "received ghi after abcdef",
                "fghi"
            ]
        );
        assert!(!stream.is_reading());

        // Once less than half the limit is left, Envoy reads again; more than there is, is all.
        let drained = config.stream(Request::post("/"));
        drained.request_headers(false);
        drained.request_body("0123456789", true);
        assert!(!drained.is_reading());
        envoy.run_events();
        assert_eq!(seen.take(), ["received 0123456789 after ", "56789"]);
    }

    #[test]
    fn draining_lets_envoy_read_again() {
        let (envoy, config) = scripted(Script {
            request_body: Box::new(|envoy, _| {
                envoy.set_buffer_limit(4);
                envoy.new_scheduler().commit(100);
                DataStatus::StopIterationAndWatermark
            }),
            scheduled: Box::new(|envoy, bytes| {
                assert!(envoy.drain_buffered_request_body(bytes as usize));
                assert!(!envoy.drain_buffered_request_body(1));
            }),
            ..Script::default()
        });
        let stream = config.stream(Request::post("/"));
        stream.request_headers(false);
        stream.request_body("01234", false);
        assert!(!stream.is_reading());
        envoy.run_events();
        assert!(stream.is_reading());
    }

    #[test]
    fn too_much_to_buffer_is_envoys_413() {
        let journal = Journal::default();
        let (_envoy, config) = scripted(Script {
            journal: journal.clone(),
            request_body: Box::new(|envoy, _| {
                envoy.set_buffer_limit(2);
                DataStatus::StopIterationAndBuffer
            }),
            ..Script::default()
        });
        let stream = config.stream(Request::post("/"));
        stream.request_body("abc", false);
        assert_eq!(stream.response().status(), Some(413));
        assert_eq!(
            journal.take(),
            [
                "request_body end=false",
                "local_reply 413 request_payload_too_large",
                "stream_complete",
            ]
        );
    }
}

mod response {
    use super::*;

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
}

mod scheduler {
    use super::*;

    #[test]
    fn commits_from_other_threads_arrive_in_order() {
        let journal = Journal::default();
        let done = Rc::new(Cell::new(false));
        let last = Rc::clone(&done);
        let (envoy, config) = scripted(Script {
            journal: journal.clone(),
            request_headers: Box::new(|envoy, _| {
                let scheduler = envoy.new_scheduler();
                thread::spawn(move || {
                    for event in 1..=3 {
                        scheduler.commit(event);
                    }
                });
                HeadersStatus::StopIteration
            }),
            scheduled: Box::new(move |_, event| last.set(event == 3)),
            ..Script::default()
        });
        let stream = config.stream(Request::get("/"));
        stream.request_headers(true);
        envoy.run_until(|| done.get());
        assert_eq!(
            journal.take(),
            [
                "request_headers end=true",
                "scheduled 1",
                "scheduled 2",
                "scheduled 3"
            ]
        );
    }

    #[test]
    fn commit_is_never_inline() {
        let journal = Journal::default();
        let committed = journal.clone();
        let (envoy, config) = scripted(Script {
            journal: journal.clone(),
            request_headers: Box::new(move |envoy, _| {
                envoy.new_scheduler().commit(u64::MAX);
                committed.add("committed");
                HeadersStatus::StopIteration
            }),
            ..Script::default()
        });
        let stream = config.stream(Request::get("/"));
        stream.request_headers(true);
        assert_eq!(envoy.run_events(), 1);
        assert_eq!(
            journal.take(),
            [
                "request_headers end=true",
                "committed",
                "scheduled 18446744073709551615"
            ]
        );
    }

    #[test]
    fn outlives_the_stream_on_any_thread() {
        let scheduler = Arc::new(std::sync::Mutex::new(None::<Scheduler>));
        let keep = Arc::clone(&scheduler);
        let journal = Journal::default();
        let (envoy, config) = scripted(Script {
            journal: journal.clone(),
            request_headers: Box::new(move |envoy, _| {
                *keep.lock().unwrap() = Some(envoy.new_scheduler());
                HeadersStatus::StopIteration
            }),
            ..Script::default()
        });
        let stream = config.stream(Request::get("/"));
        stream.request_headers(true);
        stream.disconnect();
        envoy.run_events();
        journal.take();
        let other = thread::spawn(move || {
            let scheduler = scheduler.lock().unwrap().take().unwrap();
            scheduler.commit(1);
        });
        other.join().unwrap();
        envoy.run_events();
        assert_eq!(journal.take(), Vec::<String>::new());
    }
}

mod filter_ref {
    use super::*;

    /// Streams that leave a reference to themselves in `refs`; the one for `/lead` acts on the
    /// first of them when scheduled.
    fn leading(
        act: impl Fn(&FilterRef, &mut EnvoyFilter<'_>) + 'static,
        journal: &Journal,
    ) -> (envoy::fake::Envoy, envoy::fake::FilterConfig) {
        let refs = Rc::new(RefCell::new(Vec::<FilterRef>::new()));
        let push = Rc::clone(&refs);
        scripted(Script {
            journal: journal.clone(),
            request_headers: Box::new(move |envoy, _| {
                push.borrow_mut().push(envoy.filter_ref());
                if envoy.request_header(":path") == Some(b"/lead") {
                    envoy.new_scheduler().commit(0);
                }
                HeadersStatus::StopIteration
            }),
            scheduled: Box::new(move |envoy, _| {
                let first = refs.borrow()[0].clone();
                act(&first, envoy);
            }),
            ..Script::default()
        })
    }

    #[test]
    fn acts_on_another_stream() {
        let journal = Journal::default();
        let (envoy, config) = leading(
            |first, envoy| {
                let path = first.with(envoy, |envoy| {
                    let path = envoy.request_header(":path").map(<[u8]>::to_vec);
                    envoy.send_response_headers(&[Header::new(b":status", b"200")], false);
                    envoy.send_response_data(b"from the lead", true);
                    path
                });
                assert_eq!(path, Some(Some(b"/first".to_vec())));
                assert_eq!(envoy.request_header(":path"), Some(&b"/lead"[..]));
            },
            &journal,
        );
        let first = config.stream(Request::get("/first"));
        first.request_headers(true);
        let lead = config.stream(Request::get("/lead"));
        lead.request_headers(true);
        envoy.run_events();
        assert_eq!(first.response().body, b"from the lead");
        assert!(first.is_complete());
        assert!(!lead.is_complete());
    }

    #[test]
    fn acts_on_its_own_stream() {
        let journal = Journal::default();
        let (envoy, config) = leading(
            |first, envoy| {
                first
                    .with(envoy, |envoy| envoy.send_response(200, &[], b"", ""))
                    .unwrap();
                assert_eq!(envoy.request_header(":path"), None);
            },
            &journal,
        );
        let lead = config.stream(Request::get("/lead"));
        lead.request_headers(true);
        envoy.run_events();
        assert_eq!(lead.response().status(), Some(200));
    }

    #[test]
    fn is_empty_once_the_stream_is_destroyed() {
        let journal = Journal::default();
        let (envoy, config) = leading(
            |first, envoy| assert!(first.with(envoy, |_| ()).is_none()),
            &journal,
        );
        let first = config.stream(Request::get("/first"));
        first.request_headers(true);
        drop(first);
        let lead = config.stream(Request::get("/lead"));
        lead.request_headers(true);
        envoy.run_events();
        assert!(!lead.is_complete());
    }

    #[test]
    fn reads_from_hooks_that_cannot_act() {
        let first = Rc::new(RefCell::new(None::<FilterRef>));
        let keep = Rc::clone(&first);
        let journal = Journal::default();
        let seen = journal.clone();
        let (envoy, config) = scripted(Script {
            request_headers: Box::new(move |envoy, _| {
                keep.borrow_mut().get_or_insert_with(|| envoy.filter_ref());
                HeadersStatus::StopIteration
            }),
            scheduled: Box::new(|envoy, _| envoy.send_response(200, &[], b"", "")),
            stream_complete: Box::new(move |envoy| {
                let first = first.borrow();
                let path = first.as_ref().and_then(|first| {
                    first.read(envoy, |first| {
                        first.new_scheduler().commit(0);
                        first.request_header(":path").map(<[u8]>::to_vec)
                    })
                });
                seen.add(format_args!("{path:?}"));
            }),
            ..Script::default()
        });
        let (first, second) = (
            config.stream(Request::get("/1")),
            config.stream(Request::get("/2")),
        );
        first.request_headers(true);
        second.request_headers(true);
        second.disconnect();
        assert_eq!(journal.take(), [format!("{:?}", Some(Some(b"/1")))]);
        assert!(!first.is_complete());
        envoy.run_events();
        assert!(first.is_complete());
        drop(first);
        journal.take();
        drop(config.stream(Request::get("/3")));
        assert_eq!(journal.take(), ["None"]);
    }

    #[test]
    fn panic_ends_the_stream_acted_on_and_no_other() {
        let journal = Journal::default();
        let (envoy, config) = leading(
            |first, envoy| {
                let done = first.with(envoy, |_| panic!("broken"));
                assert_eq!(done, None::<()>);
            },
            &journal,
        );
        let first = config.stream(Request::get("/first"));
        first.request_headers(true);
        let lead = config.stream(Request::get("/lead"));
        lead.request_headers(true);
        envoy.run_events();
        assert_eq!(first.response().status(), Some(500));
        assert!(!lead.is_complete());
    }
}

mod panics {
    use super::*;

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
}

mod configuration {
    use super::*;

    #[test]
    fn gets_its_name_and_bytes_and_can_refuse() {
        let (envoy, _config) = scripted(Script::default());
        on_new_config(|_, name, config| {
            assert_eq!((name, config), ("scripted", &b"{\xff}"[..]));
            Err("`app` is missing".to_owned())
        });
        let refused = envoy.http_filter_config("scripted", b"{\xff}").err();
        assert_eq!(
            refused.as_deref(),
            Some("http filter `scripted` refused its configuration: `app` is missing")
        );
    }

    #[test]
    fn panic_refuses() {
        let (envoy, _config) = scripted(Script::default());
        on_new_config(|_, _, _| panic!("broken"));
        let refused = envoy.http_filter_config("", b"").err().unwrap();
        assert!(refused.ends_with("config_new`: broken"), "{refused}");
    }

    #[test]
    fn defines_metrics_that_streams_record() {
        type Ids = (CounterId, GaugeId, HistogramId);
        let ids = Rc::new(Cell::new(None::<Ids>));
        let define = Rc::clone(&ids);
        on_new_config(move |envoy, _, _| {
            let unused = envoy
                .define_counter("unused")
                .map_err(|error| error.to_string())?;
            let counter = envoy.define_counter("requests").unwrap();
            assert_ne!(unused, counter);
            let gauge = envoy.define_gauge("active").unwrap();
            let histogram = envoy.define_histogram("milliseconds").unwrap();
            define.set(Some((counter, gauge, histogram)));
            Ok(())
        });
        let (_envoy, config) = scripted(Script {
            request_headers: Box::new(move |envoy, _| {
                let (counter, gauge, histogram) = ids.get().unwrap();
                envoy.increment_counter(counter, 2);
                envoy.set_gauge(gauge, 10);
                envoy.increment_gauge(gauge, 5);
                envoy.decrement_gauge(gauge, 1);
                envoy.record_histogram(histogram, 3);
                envoy.record_histogram(histogram, 4);
                HeadersStatus::StopIteration
            }),
            ..Script::default()
        });
        config.stream(Request::get("/")).request_headers(true);
        assert_eq!(config.counter("unused"), Some(0));
        assert_eq!(config.counter("requests"), Some(2));
        assert_eq!(config.gauge("active"), Some(14));
        assert_eq!(config.histogram("milliseconds"), Some(vec![3, 4]));
        assert_eq!(config.counter("active"), None);
    }

    #[test]
    fn metric_of_another_configuration_is_logged_and_harmless() {
        let id = Rc::new(Cell::new(None::<CounterId>));
        let (define, use_it) = (Rc::clone(&id), Rc::clone(&id));
        on_new_config(move |envoy, name, _| {
            if name == "other" {
                define.set(Some(envoy.define_counter("requests").unwrap()));
            }
            Ok(())
        });
        let (envoy, config) = scripted(Script {
            request_headers: Box::new(move |envoy, _| {
                envoy.increment_counter(use_it.get().unwrap(), 1);
                HeadersStatus::StopIteration
            }),
            ..Script::default()
        });
        let _other = envoy.http_filter_config("other", b"").unwrap();
        let stream = config.stream(Request::get("/"));
        stream.request_headers(true);
        assert!(!stream.is_complete());
        assert_eq!(
            envoy.logs().last().unwrap().message,
            "envoy refused `http_filter_increment_counter`: \
             no such metric in this filter configuration"
        );
    }
}

//! Reading the request: headers, attributes, body.

use envoy::fake::Request;
use envoy::{AttributeId, BodyChunks, DataStatus, HeadersStatus, TrailersStatus};

use crate::support::{Journal, Script, scripted};

/// The pieces of a body as one.
fn join(chunks: &BodyChunks<'_>) -> Vec<u8> {
    chunks.iter().collect::<Vec<_>>().concat()
}

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
fn headers_are_set_for_the_filters_that_follow() {
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(|envoy, _| {
            envoy.set_request_header("x-ours", b"1");
            assert_eq!(envoy.request_header("x-ours"), Some(&b"1"[..]));
            envoy.set_request_header("X-Twice", b"c");
            envoy.set_request_header("cookie", b"");
            envoy.set_request_header("x-absent", b"");
            assert_eq!(envoy.request_header("cookie"), None);
            assert_eq!(envoy.request_headers().len(), 6);
            HeadersStatus::Continue
        }),
        ..Script::default()
    });
    let request = Request::get("/")
        .header("cookie", "a=1")
        .header("x-twice", "a")
        .header("x-twice", "b");
    let stream = config.stream(request);
    stream.request_headers(true);
    assert_eq!(stream.request_header("x-ours"), [b"1"]);
    assert_eq!(stream.request_header("x-twice"), [b"c"]);
    assert!(stream.request_header("cookie").is_empty());
}

#[test]
fn route_is_chosen_anew() {
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(|envoy, _| {
            envoy.clear_route_cache();
            HeadersStatus::Continue
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/"));
    assert!(!stream.is_rerouted());
    stream.request_headers(true);
    assert!(stream.is_rerouted());
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
fn filter_state_is_read_and_set_and_metadata_is_set() {
    let (_envoy, config) = scripted(Script {
        request_headers: Box::new(|envoy, _| {
            assert_eq!(envoy.filter_state("cipher"), Some(b"AES".to_vec()));
            envoy.set_filter_state("client", b"::1");
            assert_eq!(envoy.filter_state("other"), None);
            envoy.set_dynamic_metadata("module", "client", "192.0.2.1");
            HeadersStatus::Continue
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::get("/").filter_state("cipher", "AES"));
    stream.request_headers(true);
    let client = stream.dynamic_metadata("module", "client");
    assert_eq!(client.as_deref(), Some("192.0.2.1"));
    assert_eq!(stream.dynamic_metadata("module", "other"), None);
    assert_eq!(stream.filter_state("client").as_deref(), Some("::1"));
    assert_eq!(stream.filter_state("other"), None);
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
fn what_the_client_has_sent_is_read_inside_the_draining_call() {
    let journal = Journal::default();
    let drained = journal.clone();
    let (envoy, config) = scripted(Script {
        journal: journal.clone(),
        request_body: Box::new(|envoy, _| {
            envoy.set_buffer_limit(4);
            envoy.new_scheduler().commit(100);
            DataStatus::StopIterationAndWatermark
        }),
        scheduled: Box::new(move |envoy, bytes| {
            envoy.drain_buffered_request_body(bytes as usize);
            drained.add(format_args!("{} left", envoy.buffered_request_body_len()));
        }),
        ..Script::default()
    });
    let stream = config.stream(Request::post("/"));
    stream.request_headers(false);
    stream.client_sends("01234", false);
    stream.client_sends("56789", false);
    stream.client_sends("", true);
    envoy.run_events();
    assert_eq!(
        journal.take(),
        [
            "request_headers end=false",
            "request_body end=false",
            "scheduled 100",
            "request_body end=false",
            "5 left",
            "scheduled 100",
            "request_body end=true",
            "0 left",
            "scheduled 100",
            "0 left",
        ]
    );
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

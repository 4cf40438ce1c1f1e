use envoy::AttributeId;
use envoy::fake::Request;

use crate::envoy_thread;
use crate::exchange::{HttpVersion, RequestHead};

/// The head that the loop gets of `request`.
fn head_of(request: Request) -> RequestHead {
    heads_of([request]).remove(0)
}

fn heads_of(requests: impl IntoIterator<Item = Request>) -> Vec<RequestHead> {
    let (envoy, mut played) = envoy_thread::start();
    let streams: Vec<_> = requests.into_iter().map(|it| envoy.stream(it)).collect();
    for stream in &streams {
        stream.request_headers(true);
    }
    envoy.run_events();
    played.take();
    assert_eq!(played.exchanges.len(), streams.len());
    let exchanges = played.exchanges.into_iter();
    exchanges.map(|exchange| exchange.head).collect()
}

fn fields(head: &RequestHead) -> Vec<(&str, &[u8])> {
    let fields = head.fields.iter();
    fields
        .map(|(name, value)| (str::from_utf8(name).expect("text"), value))
        .collect()
}

#[test]
fn request_line_addresses_and_version_are_copied() {
    let request = Request::new("PROPFIND", "/a%20b/c?d=e&f")
        .direct_remote_address("[2001:db8::1]:4711")
        .attribute(AttributeId::DestinationAddress, "192.0.2.7:8080")
        .attribute(AttributeId::RequestProtocol, "HTTP/2");
    let head = head_of(request);
    assert_eq!(head.method.as_slice(), b"PROPFIND");
    assert_eq!(head.target, b"/a%20b/c?d=e&f");
    assert_eq!(head.client.as_slice(), b"[2001:db8::1]:4711");
    assert_eq!(head.server.as_slice(), b"192.0.2.7:8080");
    assert_eq!(head.version, HttpVersion::Http2);
    assert!(!head.tls);
}

#[test]
fn host_comes_first_and_fields_keep_their_order_and_repeats() {
    let request = Request::get("/")
        .header("cookie", "a=1")
        .header("x-empty", "")
        .header("cookie", "b=2")
        .header("x-bytes", b"\xff\x00 ")
        .header("cookie", "a=1");
    assert_eq!(
        fields(&head_of(request)),
        [
            ("host", &b"localhost"[..]),
            ("cookie", b"a=1"),
            ("x-empty", b""),
            ("cookie", b"b=2"),
            ("x-bytes", b"\xff\x00 "),
            ("cookie", b"a=1"),
        ]
    );
}

#[test]
fn no_pseudo_header_is_a_field() {
    let request = Request::get("/").header(":protocol", "websocket");
    let head = head_of(request.header("accept", "*/*"));
    assert_eq!(
        fields(&head),
        [("host", &b"localhost"[..]), ("accept", b"*/*")]
    );
}

#[test]
fn more_fields_than_usual_are_copied_too() {
    let request = (0..100).fold(Request::get("/"), |request, number| {
        request.header(&format!("x-{number}"), "value".repeat(number))
    });
    let head = head_of(request);
    assert_eq!(head.fields.iter().len(), 101);
    let last = head.fields.iter().last();
    assert_eq!(last, Some((&b"x-99"[..], "value".repeat(99).as_bytes())));
}

#[test]
fn x_forwarded_proto_that_envoy_appends_is_dropped() {
    let request = || Request::get("/").header("accept", "*/*");
    let tls = request().attribute(AttributeId::ConnectionTlsVersion, "TLSv1.3");
    let appended = [
        request().header("x-forwarded-proto", "http"),
        tls.header("x-forwarded-proto", "https"),
    ];
    for head in heads_of(appended) {
        assert_eq!(
            fields(&head),
            [("host", &b"localhost"[..]), ("accept", b"*/*")]
        );
    }
}

#[test]
fn x_forwarded_proto_of_the_client_is_kept() {
    let name = "x-forwarded-proto";
    let kept = heads_of([
        // Not in last place.
        Request::get("/").header(name, "http").header("accept", ""),
        // In last place, with what Envoy would not say of this connection.
        Request::get("/").header(name, "https"),
        Request::get("/")
            .attribute(AttributeId::ConnectionTlsVersion, "TLSv1.2")
            .header(name, "http"),
        Request::get("/").header(name, "http, https"),
        // Another field in last place with the value of Envoy's.
        Request::get("/")
            .header(name, "http")
            .header("x-scheme", "http"),
    ]);
    let values: Vec<_> = kept.iter().map(|head| fields(head)[1]).collect();
    assert_eq!(
        values,
        [
            (name, &b"http"[..]),
            (name, b"https"),
            (name, b"http"),
            (name, b"http, https"),
            (name, b"http"),
        ]
    );
}

#[test]
fn of_two_x_forwarded_proto_only_the_last_is_dropped() {
    let request = Request::get("/").header("x-forwarded-proto", "http");
    let head = head_of(request.header("x-forwarded-proto", "http"));
    assert_eq!(
        fields(&head),
        [("host", &b"localhost"[..]), ("x-forwarded-proto", b"http")]
    );
}

#[test]
fn tls_is_told_by_the_connection() {
    let [plain, tls] = [
        Request::get("/").attribute(AttributeId::RequestScheme, "https"),
        Request::get("/").attribute(AttributeId::ConnectionTlsVersion, "TLSv1.3"),
    ];
    let heads = heads_of([plain, tls]);
    assert_eq!([heads[0].tls, heads[1].tls], [false, true]);
}

#[test]
fn every_version_is_known() {
    let request = |version| Request::get("/").attribute(AttributeId::RequestProtocol, version);
    let heads = heads_of(["HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"].map(request));
    let versions: Vec<_> = heads.iter().map(|head| head.version).collect();
    use HttpVersion::{Http2, Http3, Http10, Http11};
    assert_eq!(versions, [Http10, Http11, Http2, Http3]);
}

#[test]
fn what_envoy_does_not_know_is_empty() {
    let request = Request::get("/")
        .without_attribute(AttributeId::DestinationAddress)
        .without_attribute(AttributeId::RequestProtocol)
        .direct_remote_address("");
    let head = head_of(request);
    assert!(head.server.is_empty());
    assert!(head.client.is_empty());
    assert_eq!(head.version, HttpVersion::Http11);
}

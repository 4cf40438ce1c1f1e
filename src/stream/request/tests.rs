use std::sync::Arc;

use envoy::AttributeId;
use envoy::fake::Request;

use super::Rules;
use crate::config::Config;
use crate::envoy_thread;
use crate::exchange::{Endpoint, HttpVersion, RequestHead};

/// The head that the loop gets of `request`.
fn head_of(request: Request) -> Arc<RequestHead> {
    heads_of([request]).remove(0)
}

fn heads_of(requests: impl IntoIterator<Item = Request>) -> Vec<Arc<RequestHead>> {
    heads_by("{}", requests)
}

/// The same with settings.
fn heads_by(settings: &str, requests: impl IntoIterator<Item = Request>) -> Vec<Arc<RequestHead>> {
    let (envoy, mut played) = envoy_thread::start_with(settings);
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
    assert_eq!(head.client, Endpoint::parse(b"[2001:db8::1]:4711"));
    assert_eq!(head.server, Endpoint::parse(b"192.0.2.7:8080"));
    assert_eq!(head.version, HttpVersion::Http2);
    assert!(!head.https);
}

#[test]
fn each_request_has_the_server_that_it_came_to() {
    let servers = [
        "192.0.2.7:80",
        "192.0.2.7:80",
        "192.0.2.7:8080",
        "[2001:db8:1:2:3:4:5:6]:80",
        "/run/aiovoy.sock",
        "192.0.2.7:80",
    ];
    let requests =
        servers.map(|server| Request::get("/").attribute(AttributeId::DestinationAddress, server));
    let heads = heads_of(requests);
    let found: Vec<_> = heads.iter().map(|head| head.server.clone()).collect();
    assert_eq!(found, servers.map(|text| Endpoint::parse(text.as_bytes())));
}

#[test]
fn host_comes_first_and_fields_keep_their_order_and_repeats() {
    let request = Request::get("/")
        .header("cookie", "a=1")
        .header("x-empty", "")
        .header("cookie", "b=2")
        .header("x-bytes", b"\xff\x01")
        .header("cookie", "a=1");
    assert_eq!(
        fields(&head_of(request)),
        [
            ("host", &b"localhost"[..]),
            ("cookie", b"a=1"),
            ("x-empty", b""),
            ("cookie", b"b=2"),
            ("x-bytes", b"\xff\x01"),
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
    assert_eq!([heads[0].https, heads[1].https], [false, true]);
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
    assert!(head.server.host.is_empty());
    assert!(head.client.host.is_empty());
    assert_eq!(head.version, HttpVersion::Http11);
}

#[test]
fn x_forwarded_proto_that_envoy_appends_is_dropped_before_its_other_fields() {
    let request = Request::get("/").header("x-forwarded-proto", "http");
    let request = request.header("x-request-id", "1");
    assert_eq!(
        fields(&head_of(request)),
        [("host", &b"localhost"[..]), ("x-request-id", b"1")]
    );
}

#[test]
fn trusted_proxy_says_who_the_client_is_and_how_it_came() {
    let request = || {
        let request = Request::get("/").header("x-forwarded-for", "192.0.2.1");
        request.header("x-forwarded-proto", "https")
    };
    let heads = heads_of([
        request(),
        request().direct_remote_address("127.0.0.2:4711"),
        request().direct_remote_address(""),
    ]);
    let seen: Vec<_> = heads
        .iter()
        .map(|head| (&*head.client.host, head.https))
        .collect();
    assert_eq!(
        seen,
        [
            (&b"192.0.2.1"[..], true),
            (b"127.0.0.2", false),
            (b"", false)
        ]
    );
    for head in &heads {
        // The application sees what came, whoever sent it.
        let [_, clients, scheme] = fields(head)[..] else {
            panic!("{head:?}");
        };
        assert_eq!(clients, ("x-forwarded-for", &b"192.0.2.1"[..]));
        assert_eq!(scheme, ("x-forwarded-proto", &b"https"[..]));
    }
}

#[test]
fn last_scheme_counts_if_it_is_one() {
    let request = |schemes: &[&str]| {
        let request = Request::get("/");
        schemes.iter().fold(request, |request, scheme| {
            request.header("x-forwarded-proto", scheme)
        })
    };
    let heads = heads_of([
        request(&["https"]),
        request(&["wss"]),
        request(&["http", "https"]),
        request(&["https", "ftp"]),
        request(&["https, http"]),
        request(&[""]),
        request(&["http"]).attribute(AttributeId::ConnectionTlsVersion, "TLSv1.3"),
    ]);
    let seen: Vec<_> = heads.iter().map(|head| head.https).collect();
    assert_eq!(seen, [true, true, true, false, false, false, false]);
}

#[test]
fn proxies_are_those_of_the_setting() {
    let request = |peer| {
        let request = Request::get("/").direct_remote_address(peer);
        request.header("x-forwarded-for", "192.0.2.1")
    };
    let settings = r#"{"forwarded_allow_ips": ["10.0.0.0/8"]}"#;
    let heads = heads_by(settings, ["10.1.2.3:4", "127.0.0.1:4"].map(request));
    let clients: Vec<_> = heads.iter().map(|head| &*head.client.host).collect();
    assert_eq!(clients, [&b"192.0.2.1"[..], b"127.0.0.1"]);
}

#[test]
fn peer_of_the_proxy_protocol_is_the_one_to_trust() {
    let request = |source| {
        let request = Request::get("/").attribute(AttributeId::SourceAddress, source);
        request.header("x-forwarded-for", "192.0.2.1")
    };
    let settings = r#"{"proxy_protocol": true}"#;
    let heads = heads_by(settings, ["127.0.0.1:4", "198.51.100.1:4"].map(request));
    let clients: Vec<_> = heads.iter().map(|head| &*head.client.host).collect();
    assert_eq!(clients, [&b"192.0.2.1"[..], b"198.51.100.1"]);
}

#[test]
fn access_log_is_told_the_client() {
    const DIRECT: &[&str] = &[];
    const FORWARDED: &[&str] = &["192.0.2.1"];
    for (settings, clients, expected) in [
        ("{}", FORWARDED, None),
        (
            r#"{"access_log": ["client"]}"#,
            FORWARDED,
            Some("192.0.2.1"),
        ),
        (r#"{"access_log": ["client"]}"#, DIRECT, Some("127.0.0.1")),
        (
            r#"{"access_log": ["named_client"]}"#,
            FORWARDED,
            Some("192.0.2.1"),
        ),
        (r#"{"access_log": ["named_client"]}"#, DIRECT, None),
    ] {
        let expected = expected.map(str::to_owned);
        let seen = std::thread::spawn(move || {
            let (envoy, _) = envoy_thread::start_with(settings);
            let request = clients.iter().fold(Request::get("/"), |request, client| {
                request.header("x-forwarded-for", client)
            });
            let stream = envoy.stream(request);
            stream.request_headers(true);
            stream.filter_state("aiovoy.client")
        });
        assert_eq!(seen.join().expect("no panic"), expected, "{settings}");
    }
}

/// Status and details of the refusal of `request`, over HTTP/2; none if it comes to the loop.
fn refusal(request: Request) -> Option<(u32, String)> {
    refusal_by("{}", request)
}

/// The same with settings.
fn refusal_by(settings: &'static str, request: Request) -> Option<(u32, String)> {
    let request = request.attribute(AttributeId::RequestProtocol, "HTTP/2");
    std::thread::spawn(move || {
        let (envoy, mut played) = envoy_thread::start_with(settings);
        let stream = envoy.stream(request);
        stream.request_headers(true);
        envoy.run_events();
        let response = stream.response();
        assert_eq!(played.take().is_empty(), response.end_of_stream);
        assert_eq!(stream.go_away(), None, "other streams go on");
        response.status().map(|status| (status, response.details))
    })
    .join()
    .expect("no panic")
}

fn with_authority(authority: &str) -> Request {
    Request::get("/").authority(authority)
}

#[test]
fn host_is_a_name_or_an_address_with_or_without_a_port() {
    for authority in [
        "",
        "example.org",
        "example.org:80",
        "example.org:",
        "192.0.2.1:65535",
        "[2001:db8::1]",
        "[2001:db8::1]:443",
        "[v1.fe80::a+en1]",
        "a_b~c!$&'()*+;=%41",
    ] {
        assert_eq!(refusal(with_authority(authority)), None, "{authority}");
    }
    for authority in [
        "a,b",
        "a b",
        "a@b",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "<a>",
        "\u{e9}",
        "a:b",
        "a:-1",
        "a:+1",
        "a:65536",
        "a:1:2",
        "2001:db8::1",
        "[::1",
        "::1]",
        "[::1]a",
        "[::1]:a",
        "a[::1]",
        "[[::1]]",
    ] {
        let bad = Some((400, "aiovoy_bad_host".to_owned()));
        assert_eq!(refusal(with_authority(authority)), bad, "{authority}");
    }
}

#[test]
fn request_that_envoy_should_have_refused_is_refused() {
    let get = Request::get;
    for (request, status, details) in [
        (
            Request::new("CONNECT", "example.org:80"),
            501,
            "aiovoy_connect",
        ),
        (get("/\u{e9}"), 400, "aiovoy_bad_path"),
        (get("/a b"), 400, "aiovoy_bad_path"),
        (get("/").header("x-a", " a"), 400, "aiovoy_bad_field"),
        (get("/").header("x-a", "a\t"), 400, "aiovoy_bad_field"),
        (get("/").header("x-a", " "), 400, "aiovoy_bad_field"),
    ] {
        assert_eq!(refusal(request), Some((status, details.to_owned())));
    }
    assert_eq!(refusal(get("/").header("x-a", "a \t b")), None);
}

#[test]
fn refusal_over_http_1_closes_the_connection_at_once() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.stream(with_authority("a,b"));
    stream.request_headers(true);
    assert_eq!(stream.response().status(), Some(400));
    assert_eq!(stream.response().header("content-length"), Some(&b"0"[..]));
    assert_eq!(stream.response().details, "aiovoy_bad_host");
    assert!(stream.response().reset.is_some());
    envoy.run_events();
    assert_eq!(played.take(), envoy_thread::NOTHING);
    assert_eq!(envoy.in_flight(), 0);
}

#[test]
fn body_of_http_10_has_a_length() {
    let (envoy, _) = envoy_thread::start();
    let post = |fields: &[(&str, &str)]| {
        let request = Request::post("/").attribute(AttributeId::RequestProtocol, "HTTP/1.0");
        let request = fields.iter().fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        let stream = envoy.stream(request);
        stream.request_headers(false);
        stream.response().status()
    };
    assert_eq!(post(&[]), Some(400));
    assert_eq!(post(&[("content-length", "1")]), None);
}

#[test]
fn request_of_http_10_without_a_host_has_none() {
    let request = |version| with_authority("-").attribute(AttributeId::RequestProtocol, version);
    let heads = heads_of([request("HTTP/1.0"), request("HTTP/1.1")]);
    let hosts: Vec<_> = heads.iter().map(|head| fields(head).len()).collect();
    assert_eq!(hosts, [0, 1]);
}

#[test]
fn head_above_a_limit_is_refused() {
    let request = || Request::get("/").header("a", "1").header("b", "2");
    for (settings, request, details) in [
        // With the host.
        (r#"{"limit_request_header_count": 3}"#, request(), None),
        (
            r#"{"limit_request_header_count": 2}"#,
            request(),
            Some("aiovoy_limit_request_header_count"),
        ),
        (
            r#"{"limit_request_header_count": 4}"#,
            ["a=1", "b=2", "c=3"]
                .iter()
                .fold(request(), |it, cookie| it.header("cookie", cookie)),
            None,
        ),
        (
            r#"{"limit_request_header_bytes": 100}"#,
            request().header("c", "3".repeat(100)),
            Some("aiovoy_limit_request_header_bytes"),
        ),
        (
            r#"{"limit_request_header_bytes": 1000}"#,
            request().header("c", "3".repeat(900)),
            None,
        ),
    ] {
        let expected = details.map(|details| (431, details.to_owned()));
        assert_eq!(refusal_by(settings, request), expected, "{settings}");
    }
}

#[test]
fn longest_prefix_of_whole_segments_of_the_decoded_path_wins() {
    let mounts = r#"[
        {"path": "/a", "app": "a:app"}, {"path": "/a/b", "app": "b:app"}, {"path": "/\u00e9", "app": "c:app"}
    ]"#;
    for (app, left) in [(r#""app": "main:app","#, Some(3)), ("", None)] {
        // The order of `Config::mounts`.
        let cases = [
            ("/a/b", Some(0)),
            ("/a/b/", Some(0)),
            ("/a/b/c?d", Some(0)),
            ("/a/b?/c", Some(0)),
            ("/%61%2fb", Some(0)),
            ("/a", Some(2)),
            ("/a/", Some(2)),
            ("/a/bc", Some(2)),
            ("/a//b", Some(2)),
            ("/%C3%a9", Some(1)),
            ("/", left),
            ("/ab", left),
            ("/b/a", left),
            ("//a", left),
            ("/A", left),
            ("*", left),
        ];
        let settings = format!(r#"{{{app}"mounts": {mounts}}}"#);
        let rules = Rules::new(&Config::parse(settings.as_bytes()).expect("valid"));
        for (target, expected) in cases {
            assert_eq!(rules.mount(target.as_bytes()), expected, "{target}");
        }
    }
}

#[test]
fn tls_is_told_with_the_numbers_of_its_names() {
    let request = |version, cipher| {
        let request = Request::get("/").attribute(AttributeId::ConnectionTlsVersion, version);
        request.filter_state("aiovoy.tls_cipher", cipher)
    };
    let heads = heads_of([
        Request::get("/"),
        request("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
        request("TLSv1.2", "ECDHE-RSA-CHACHA20-POLY1305"),
        request("TLSv9", "-"),
    ]);
    let seen: Vec<_> = heads
        .iter()
        .map(|head| head.tls.as_ref().map(|tls| (tls.version, tls.cipher)))
        .collect();
    assert_eq!(
        seen,
        [
            None,
            Some((Some(0x0304), Some(0x1302))),
            Some((Some(0x0303), Some(0xcca8))),
            Some((None, None)),
        ]
    );
}

const CERTS: &str = r#"{"client_certs": true}"#;

/// A request of a client that has shown a certificate, and has sent or got appended `values`.
fn shown(values: &[&str]) -> Request {
    let request = Request::get("/")
        .attribute(AttributeId::ConnectionTlsVersion, "TLSv1.3")
        .attribute(AttributeId::ConnectionMtls, true)
        .attribute(AttributeId::PeerCertificateSubject, "CN=a,O=b");
    values.iter().fold(request, |request, value| {
        request.header("x-forwarded-client-cert", value)
    })
}

const ELEMENT: &str = r#"Hash=1;Cert="a";Chain="b-----END%20CERTIFICATE-----%0Ac""#;

#[test]
fn certificate_of_the_client_is_taken_off_the_fields() {
    let sent = format!("Hash=0;Subject=\"CN=root\",{ELEMENT}");
    let heads = heads_by(CERTS, [shown(&[ELEMENT]), shown(&[&sent])]);
    for head in &heads {
        let client = head.tls.as_ref().and_then(|tls| tls.client.as_ref());
        let client = client.expect("a certificate");
        assert_eq!(client.subject.as_deref(), Some("CN=a,O=b"));
        assert_eq!(client.chain, ["b-----END CERTIFICATE-----\n", "c"]);
    }
    assert_eq!(fields(&heads[0]).len(), 1, "the host");
    let left = (
        "x-forwarded-client-cert",
        &b"Hash=0;Subject=\"CN=root\""[..],
    );
    assert_eq!(fields(&heads[1])[1], left);
}

#[test]
fn certificate_that_envoy_does_not_tell_of_is_not_believed() {
    let plain = Request::get("/").header("x-forwarded-client-cert", ELEMENT);
    let anonymous = shown(&[ELEMENT]).attribute(AttributeId::ConnectionMtls, false);
    let list = format!("[{ELEMENT}");
    let mut heads = heads_by(CERTS, [plain, anonymous, shown(&[&list])]);
    let without_the_setting = std::thread::spawn(|| head_of(shown(&[ELEMENT])));
    heads.push(without_the_setting.join().expect("no panic"));
    for head in &heads {
        let client = head.tls.as_ref().and_then(|tls| tls.client.as_ref());
        assert_eq!(client, None);
        assert_eq!(fields(head)[1].0, "x-forwarded-client-cert");
    }
}

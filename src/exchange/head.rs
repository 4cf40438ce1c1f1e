//! Runs on: any thread.
//!
//! The head of a request, and what its parts say.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::escape::escaped;
use super::fields::Fields;

/// Bytes that are few as a rule, such as an address, without an allocation.
pub(crate) type Short = SmallVec<[u8; 24]>;

/// The head of a request, owned.
#[derive(Debug, Default)]
pub(crate) struct RequestHead {
    /// Which of the configuration's mounts has the application.
    pub mount: usize,
    /// The method as sent.
    pub method: Short,
    /// Path and query, as in `:path`.
    pub target: Vec<u8>,
    /// Whether the scheme is `https`.
    pub https: bool,
    /// Of a connection that is encrypted.
    pub tls: Option<Tls>,
    /// The protocol version.
    pub version: HttpVersion,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Bytes of the body, as far as the client has announced them.
    pub length: u64,
    /// The client takes trailers.
    pub takes_trailers: bool,
    /// The client asks for a WebSocket.
    pub websocket: bool,
    /// The connection's other end, or what a trusted proxy says that it is.
    pub client: Endpoint,
    /// A proxy has said so.
    pub names_client: bool,
    /// Our end.
    pub server: Endpoint,
    /// The fields in wire order, `host` first.
    pub fields: Fields,
}

/// The TLS of a connection, with the numbers that IANA has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The version.
    pub version: Option<u16>,
    /// The cipher suite.
    pub cipher: Option<u16>,
    /// What the client has shown.
    pub client: Option<Box<ClientCertificate>>,
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// With those that it was sent with, in PEM; the client's own is the first.
    pub chain: Vec<String>,
    /// Its subject, as in RFC 4514, if it is told.
    pub subject: Option<String>,
}

/// One end of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// An IP address; the path of a Unix domain socket; empty for its unnamed client.
    pub host: Short,
    /// None of a Unix domain socket.
    pub port: Option<u16>,
}

impl Clone for Endpoint {
    /// At once: a `SmallVec` would clone byte by byte.
    fn clone(&self) -> Self {
        Self {
            host: Short::from_slice(&self.host),
            port: self.port,
        }
    }
}

impl Endpoint {
    /// Reads Envoy's text: `ipv4:port`, `[ipv6]:port`, or a path.
    pub(crate) fn parse(text: &[u8]) -> Self {
        let colon = text.iter().rposition(|&byte| byte == b':');
        let port = colon.and_then(|colon| port(&text[colon + 1..]));
        let host = match (colon, port) {
            (Some(colon), Some(_)) => match &text[..colon] {
                [b'[', ipv6 @ .., b']'] => ipv6,
                host => host,
            },
            _ => text,
        };
        Self {
            host: Short::from_slice(host),
            port,
        }
    }
}

/// A port number.
pub(crate) fn port(digits: &[u8]) -> Option<u16> {
    u16::try_from(decimal(digits)?).ok()
}

/// A number of digits alone: what std parses may have a sign.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

impl RequestHead {
    /// The first value of a field, whose name is in lower case.
    pub(crate) fn field(&self, name: &[u8]) -> Option<&[u8]> {
        let mut fields = self.fields.iter();
        fields
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// What the log calls the request: method, path, and its id if it has one. The query is left
    /// out, since it may hold what is not for a log.
    pub(crate) fn name(&self) -> String {
        let path = self.target.split(|&byte| byte == b'?').next();
        let mut name = [self.method.as_slice(), b" ", path.unwrap_or_default()].concat();
        if let Some(id) = self.field(b"x-request-id") {
            name.extend_from_slice(&[b" (request ", id, b")"].concat());
        }
        escaped(&name)
    }
}

/// The protocol versions that Envoy serves.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HttpVersion {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
    /// HTTP/3
    Http3,
}

impl HttpVersion {
    /// What stands behind `HTTP/`, of all in their order.
    pub(crate) const NUMBERS: [&str; 4] = ["1.0", "1.1", "2", "3"];

    /// What stands behind `HTTP/`.
    pub(crate) fn number(self) -> &'static str {
        Self::NUMBERS[self as usize]
    }
}

/// Path and query of a request target. The absolute form (RFC 9112, section 3.2.2) comes from
/// Envoy as a path already.
pub(crate) fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().position(|&byte| byte == b'?') {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, b""),
    }
}

/// Percent-decodes a path. What is not UTF-8 then becomes U+FFFD, as in uvicorn; what is no
/// percent-encoding stays as it is.
pub(crate) fn decode(path: &[u8]) -> Cow<'_, str> {
    if !path.contains(&b'%') {
        return String::from_utf8_lossy(path);
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [high, low, after @ ..] if first == b'%' => {
                if let (Some(high), Some(low)) = (hex(*high), hex(*low)) {
                    decoded.push(high << 4 | low);
                    rest = after;
                    continue;
                }
            }
            _ => {}
        }
        decoded.push(first);
        rest = tail;
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_envoy_writes_them() {
        for (text, host, port) in [
            (&b"127.0.0.1:8000"[..], &b"127.0.0.1"[..], Some(8000)),
            (b"[::1]:0", b"::1", Some(0)),
            (b"/run/aiovoy.sock", b"/run/aiovoy.sock", None),
            (b"", b"", None),
        ] {
            let endpoint = Endpoint::parse(text);
            assert_eq!((endpoint.host.as_slice(), endpoint.port), (host, port));
        }
    }

    #[test]
    fn ports_are_numbers_of_16_bits() {
        for (digits, expected) in [
            (&b"0"[..], Some(0)),
            (b"8000", Some(8000)),
            (b"65535", Some(65535)),
            (b"00080", Some(80)),
            (b"65536", None),
            (b"655350", None),
            (b"", None),
            (b"+80", None),
            (b"8 ", None),
            (b"8a", None),
            (b":1", None),
        ] {
            assert_eq!(port(digits), expected, "{digits:?}");
        }
    }

    #[test]
    fn requests_are_named_without_their_query() {
        let mut head = RequestHead {
            method: b"GET".as_slice().into(),
            target: b"/a%20b?c=d".to_vec(),
            ..RequestHead::default()
        };
        assert_eq!(head.name(), "GET /a%20b");
        head.fields.push(b"x-request-id", b"1-2");
        assert_eq!(head.name(), "GET /a%20b (request 1-2)");
    }

    #[test]
    fn paths_are_percent_decoded_to_text() {
        for (raw, expected) in [
            (&b"/plain"[..], "/plain"),
            (b"/a%20b", "/a b"),
            (b"/%C3%a9", "/\u{e9}"),
            (b"/%2F%25", "//%"),
            (b"/%ff", "/\u{fffd}"),
            (b"/%", "/%"),
            (b"/%4", "/%4"),
            (b"/%zz%41", "/%zzA"),
            (b"/\xc3\xa9", "/\u{e9}"),
        ] {
            assert_eq!(decode(raw), expected);
        }
    }

    #[test]
    fn the_query_begins_at_the_first_question_mark() {
        assert_eq!(split_target(b"/a?b=c?d"), (&b"/a"[..], &b"b=c?d"[..]));
        assert_eq!(split_target(b"/a"), (&b"/a"[..], &b""[..]));
    }
}

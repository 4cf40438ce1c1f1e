//! Runs on: Envoy worker thread.
//!
//! Copies a request out of Envoy. What leaves this file has no pointer into Envoy.

use std::cell::RefCell;

use envoy::{AttributeId, EnvoyFilter, Headers};
use smallvec::SmallVec;
use upstream::router::NUMBER;

use super::proxies::Proxies;
use super::refusal::Refusal;
use super::rules::Rules;
use super::tls;
use crate::exchange::{self, Endpoint, Fields, HttpVersion, RequestHead, Short, alphanumeric_or};

/// Copies the head of the request, and says whether it is to be refused.
pub(crate) fn read_head(
    envoy: &EnvoyFilter<'_>,
    rules: &Rules,
    end_of_stream: bool,
) -> (RequestHead, Option<Refusal>) {
    let headers = envoy.request_headers();
    let peer = if rules.proxy_protocol {
        envoy.attribute_bytes(AttributeId::SourceAddress)
    } else {
        envoy.direct_remote_address()
    };
    let tls = tls::connection(envoy);
    let shown = rules.client_certs
        && tls.is_some()
        && envoy.attribute_bool(AttributeId::ConnectionMtls) == Some(true);
    let server = envoy.attribute_bytes(AttributeId::DestinationAddress);
    let mut head = RequestHead {
        https: tls.is_some(),
        tls,
        version: version(envoy.attribute_bytes(AttributeId::RequestProtocol)),
        client: Endpoint::parse(peer.unwrap_or_default()),
        server: rules.known.server(server.unwrap_or_default()),
        ..RequestHead::default()
    };
    let said = read_fields(&headers, &mut head, &rules.known, shown);
    if said.is_forwarded() && rules.proxies.trust(&head.client.host) {
        said.tell(&rules.proxies, &mut head);
    }
    if let Some((element, tls)) = said.certificate.zip(head.tls.as_mut()) {
        tls.client = tls::client(envoy, element);
    }
    let too_large = rules.limit_head(said.bytes, &head.fields);
    head.length = said.content_length.unwrap_or(0);
    let mount = rules.mount(&head.target);
    head.mount = mount.unwrap_or_default();
    let refusal = match said.content_length {
        _ if too_large.is_some() => too_large,
        // A body of chunks, which HTTP/1.0 does not have (RFC 9112, section 6.1).
        None if !end_of_stream && head.version == HttpVersion::Http10 => {
            Some(Refusal::bad("aiovoy_bad_framing"))
        }
        _ if mount.is_none() => Some(Refusal::NOT_FOUND),
        Some(length) if rules.limits_body(length) => Some(Refusal::BODY),
        _ => None,
    };
    (head, said.refusal.or(refusal))
}

/// What most requests of a worker say alike, and need not be read again.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Our end of the last connection, as Envoy writes it.
    server: RefCell<(Short, Endpoint)>,
    /// The last authority that was one.
    authority: RefCell<Short>,
}

impl Known {
    fn server(&self, text: &[u8]) -> Endpoint {
        let mut server = self.server.borrow_mut();
        if server.0.as_slice() != text {
            *server = (Short::from_slice(text), Endpoint::parse(text));
        }
        server.1.clone()
    }

    fn is_authority(&self, text: &[u8]) -> bool {
        if self.authority.borrow().as_slice() == text {
            return true;
        }
        let valid = is_authority(text);
        if valid {
            *self.authority.borrow_mut() = Short::from_slice(text);
        }
        valid
    }
}

/// Appends the chunks of a body to `body`.
pub(crate) fn append<'a>(body: &mut Vec<u8>, chunks: impl Iterator<Item = &'a [u8]>) {
    chunks.for_each(|chunk| body.extend_from_slice(chunk));
}

/// What the fields say to the server.
#[derive(Default)]
struct Said<'a> {
    /// Bytes of names and values, with those of the request line.
    bytes: usize,
    /// Each `x-forwarded-for`.
    clients: SmallVec<[&'a [u8]; 2]>,
    /// The last `x-forwarded-proto`.
    scheme: Option<&'a [u8]>,
    content_length: Option<u64>,
    /// What Envoy says of the client's certificate.
    certificate: Option<&'a [u8]>,
    refusal: Option<Refusal>,
}

impl Said<'_> {
    fn is_forwarded(&self) -> bool {
        !self.clients.is_empty() || self.scheme.is_some()
    }

    /// What a trusted proxy says counts.
    fn tell(&self, proxies: &Proxies, head: &mut RequestHead) {
        match self.scheme.map(<[u8]>::trim_ascii) {
            Some(b"https" | b"wss") => head.https = true,
            Some(b"http" | b"ws") => head.https = false,
            _ => {}
        }
        if let Some(client) = proxies.client(&self.clients) {
            head.client = client;
            head.names_client = true;
        }
    }
}

/// Turns Envoy's header map into method, target and fields. `:authority` becomes `host` at the
/// start of the list (ASGI HTTP scope, `headers`).
///
/// `shown` says that Envoy has appended the client's certificate to `x-forwarded-client-cert`. The
/// application gets that as the client has sent it.
///
/// What Envoy lets in although RFC 9110, 9112 or 9113 has it refused, is refused here.
fn read_fields<'a>(
    headers: &Headers<'a>,
    head: &mut RequestHead,
    known: &Known,
    shown: bool,
) -> Said<'a> {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    head.fields = Fields::with_capacity(headers.len(), bytes);
    let mut said = Said {
        bytes,
        ..Said::default()
    };
    // Envoy gives pseudo headers first, so `host` is pushed before any other field.
    for (index, (name, value)) in headers.iter().enumerate() {
        match name {
            b":authority" if value == NO_HOST && head.version == HttpVersion::Http10 => {}
            b":authority" => {
                if !known.is_authority(value) {
                    said.refusal = Some(Refusal::bad("aiovoy_bad_host"));
                }
                head.fields.push(b"host", value);
            }
            b":method" => {
                if value == b"CONNECT" {
                    said.refusal = Some(Refusal::CONNECT);
                }
                head.method = Short::from_slice(value);
            }
            b":path" => {
                if !value.iter().all(u8::is_ascii_graphic) {
                    said.refusal = Some(Refusal::bad("aiovoy_bad_path"));
                }
                head.target = value.to_vec();
            }
            b"x-forwarded-proto" if value == scheme(head.https) && is_of_envoy(headers, index) => {}
            b"x-forwarded-client-cert" if shown && !value.starts_with(b"[") => {
                let (others, element) = tls::split_element(value);
                said.certificate = Some(element);
                if !others.is_empty() {
                    head.fields.push(name, others);
                }
            }
            // The number by which it goes through the router.
            [b':', ..] | HANDED_OVER => {}
            _ => {
                match name {
                    b"content-length" => said.content_length = Some(number(value)),
                    b"expect" => {
                        head.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                    }
                    b"upgrade" => head.websocket |= value.eq_ignore_ascii_case(b"websocket"),
                    b"te" => head.takes_trailers |= has_trailers(value),
                    b"x-forwarded-for" => said.clients.push(value),
                    b"x-forwarded-proto" => said.scheme = Some(value),
                    _ => {}
                }
                if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value {
                    said.refusal = Some(Refusal::bad("aiovoy_bad_field"));
                }
                head.fields.push(name, value);
            }
        }
    }
    said
}

const HANDED_OVER: &[u8] = NUMBER.as_bytes();

/// The `:authority` by which Envoy lets in a request of HTTP/1.0 that has no `host`, if it is
/// configured so (`default_host_for_http_10`).
const NO_HOST: &[u8] = b"-";

/// Whether `authority` is a host with or without a port (RFC 9110, section 7.2), or empty.
///
/// Of two `host` fields Envoy makes one with a comma. A name could have one too (RFC 3986, section
/// 3.2.2), but none has, so it is refused.
fn is_authority(authority: &[u8]) -> bool {
    let (host, port) = match authority.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !authority.ends_with(b"]") => (&authority[..colon], &authority[colon + 1..]),
        _ => (authority, &b""[..]),
    };
    let in_name = |byte: &u8| IN_NAME[usize::from(*byte)];
    let valid = match host.strip_prefix(b"[") {
        Some(literal) => literal
            .strip_suffix(b"]")
            .is_some_and(|address| address.iter().all(|byte| in_name(byte) || *byte == b':')),
        None => host.iter().all(in_name),
    };
    valid && (port.is_empty() || exchange::port(port).is_some())
}

/// RFC 3986, section 3.2.2, without the comma.
static IN_NAME: [bool; 256] = alphanumeric_or(b"-._~!$&'()*+;=%");

/// The number in a field that Envoy has checked.
fn number(digits: &[u8]) -> u64 {
    exchange::decimal(digits).unwrap_or(u64::MAX)
}

/// Whether the `x-forwarded-proto` at `index`, of the connection's scheme, is the one that Envoy
/// appends if the client sent none: only others of Envoy's come after it, and what came on the way
/// through a router. If it was the client's own after all, it said nothing that the scheme does not.
fn is_of_envoy(headers: &Headers<'_>, index: usize) -> bool {
    let behind = headers.iter().skip(index + 1).map(|(name, _)| name);
    let mut of_connection = behind.take_while(|name| *name != HANDED_OVER);
    of_connection.all(|name| matches!(name, b"x-request-id" | b"x-forwarded-client-cert"))
}

/// Whether `trailers` is among the members of a `te` field (RFC 9110, section 10.1.4).
fn has_trailers(value: &[u8]) -> bool {
    let mut members = value.split(|&byte| byte == b',');
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

fn scheme(https: bool) -> &'static [u8] {
    if https { b"https" } else { b"http" }
}

fn version(protocol: Option<&[u8]>) -> HttpVersion {
    match protocol {
        Some(b"HTTP/1.0") => HttpVersion::Http10,
        Some(b"HTTP/2") => HttpVersion::Http2,
        Some(b"HTTP/3") => HttpVersion::Http3,
        _ => HttpVersion::Http11,
    }
}

#[cfg(test)]
mod tests;

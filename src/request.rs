//! Runs on: Envoy worker thread.
//!
//! Copies a request out of Envoy. What leaves this file has no pointer into Envoy.

use envoy::{AttributeId, EnvoyFilter, Headers};
use smallvec::SmallVec;

use crate::config::Config;
use crate::exchange::{Endpoint, Fields, HttpVersion, RequestHead};
use crate::proxies::Proxies;

/// What the configuration says of requests.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Whose word on the client is taken.
    proxies: Proxies,
    /// The connection's other end is told by the PROXY protocol.
    proxy_protocol: bool,
    /// The access log asks for the client.
    pub(crate) access_log: bool,
}

impl Rules {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            proxies: Proxies::new(&config.forwarded_allow_ips),
            proxy_protocol: config.proxy_protocol,
            access_log: config.access_log,
        }
    }
}

/// Copies the head of the request.
pub(crate) fn read_head(envoy: &EnvoyFilter<'_>, rules: &Rules) -> RequestHead {
    let headers = envoy.request_headers();
    let peer = if rules.proxy_protocol {
        envoy.attribute_bytes(AttributeId::SourceAddress)
    } else {
        envoy.direct_remote_address()
    };
    let mut head = RequestHead {
        https: envoy
            .attribute_bytes(AttributeId::ConnectionTlsVersion)
            .is_some(),
        version: version(envoy.attribute_bytes(AttributeId::RequestProtocol)),
        client: endpoint(peer),
        server: endpoint(envoy.attribute_bytes(AttributeId::DestinationAddress)),
        ..RequestHead::default()
    };
    let forwarded = read_fields(&headers, &mut head);
    if !forwarded.is_empty() && rules.proxies.trust(&head.client.host) {
        forwarded.tell(&rules.proxies, &mut head);
    }
    head
}

/// Appends the chunks of a body to `body`.
pub(crate) fn append<'a>(body: &mut Vec<u8>, chunks: impl Iterator<Item = &'a [u8]>) {
    chunks.for_each(|chunk| body.extend_from_slice(chunk));
}

/// What a proxy says of the client, if the request is from one.
#[derive(Default)]
struct Forwarded<'a> {
    /// Each `x-forwarded-for`.
    clients: SmallVec<[&'a [u8]; 2]>,
    /// The last `x-forwarded-proto`.
    scheme: Option<&'a [u8]>,
}

impl Forwarded<'_> {
    fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.scheme.is_none()
    }

    fn tell(&self, proxies: &Proxies, head: &mut RequestHead) {
        match self.scheme.map(<[u8]>::trim_ascii) {
            Some(b"https" | b"wss") => head.https = true,
            Some(b"http" | b"ws") => head.https = false,
            _ => {}
        }
        if let Some(client) = proxies.client(&self.clients) {
            head.client = client;
        }
    }
}

/// Turns Envoy's header map into method, target and fields. `:authority` becomes `host` at the
/// start of the list (ASGI HTTP scope, `headers`).
fn read_fields<'a>(headers: &Headers<'a>, head: &mut RequestHead) -> Forwarded<'a> {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    head.fields = Fields::with_capacity(headers.len(), bytes);
    let mut forwarded = Forwarded::default();
    // Envoy gives pseudo headers first, so `host` is pushed before any other field.
    for (index, (name, value)) in headers.iter().enumerate() {
        match name {
            b":authority" => head.fields.push(b"host", value),
            b":method" => head.method = value.into(),
            b":path" => head.target = value.to_vec(),
            b"x-forwarded-proto" if value == scheme(head.https) && is_of_envoy(headers, index) => {}
            [b':', ..] => {}
            _ => {
                match name {
                    b"expect" => {
                        head.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                    }
                    b"upgrade" => head.websocket |= value.eq_ignore_ascii_case(b"websocket"),
                    b"te" => head.takes_trailers |= has_trailers(value),
                    b"x-forwarded-for" => forwarded.clients.push(value),
                    b"x-forwarded-proto" => forwarded.scheme = Some(value),
                    _ => {}
                }
                head.fields.push(name, value);
            }
        }
    }
    forwarded
}

/// Whether the `x-forwarded-proto` at `index`, of the connection's scheme, is the one that Envoy
/// appends if the client sent none: only others of Envoy's come after it. If it was the client's
/// own after all, it said nothing that the scheme does not.
fn is_of_envoy(headers: &Headers<'_>, index: usize) -> bool {
    headers
        .iter()
        .skip(index + 1)
        .all(|(name, _)| matches!(name, b"x-request-id" | b"x-forwarded-client-cert"))
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

fn endpoint(text: Option<&[u8]>) -> Endpoint {
    Endpoint::parse(text.unwrap_or_default())
}

#[cfg(test)]
mod tests;

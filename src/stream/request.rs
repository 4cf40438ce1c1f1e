//! Runs on: Envoy worker thread.
//!
//! Copies a request out of Envoy. What leaves this file has no pointer into Envoy.

use std::cell::RefCell;

use envoy::{AttributeId, EnvoyFilter, Headers};
use upstream::router::NUMBER;

use super::tls;
use crate::admission::{Refusal, Rules, Said};
use crate::exchange::{Endpoint, Fields, HttpVersion, RequestHead, Short};

/// Copies the head of the request, and says whether it is to be refused.
pub(crate) fn read_head(
    envoy: &EnvoyFilter<'_>,
    rules: &Rules,
    known: &Known,
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
        server: known.server(server.unwrap_or_default()),
        ..RequestHead::default()
    };
    let (said, certificate) = read_fields(&headers, &mut head, rules, shown);
    said.believe(rules, &mut head);
    if let Some((element, tls)) = certificate.zip(head.tls.as_mut()) {
        tls.client = tls::client(envoy, element);
    }
    let refusal = said.judge(rules, &mut head, end_of_stream);
    (head, refusal)
}

/// Our end of the last connection, as Envoy writes it: most requests of a worker say the same, which need not be read
/// again.
#[derive(Debug, Default)]
pub(crate) struct Known(RefCell<(Short, Endpoint)>);

impl Known {
    fn server(&self, text: &[u8]) -> Endpoint {
        let mut server = self.0.borrow_mut();
        if server.0.as_slice() != text {
            *server = (Short::from_slice(text), Endpoint::parse(text));
        }
        server.1.clone()
    }
}

/// Appends the chunks of a body to `body`.
pub(crate) fn append<'a>(body: &mut Vec<u8>, chunks: impl Iterator<Item = &'a [u8]>) {
    chunks.for_each(|chunk| body.extend_from_slice(chunk));
}

/// Turns Envoy's header map into method, target and fields. `:authority` becomes `host` at the
/// start of the list (ASGI HTTP scope, `headers`). Returns with it what Envoy says of the client's
/// certificate.
///
/// `shown` says that Envoy has appended the client's certificate to `x-forwarded-client-cert`. The
/// application gets that as the client has sent it.
///
/// What Envoy lets in although RFC 9110, 9112 or 9113 has it refused, is refused here.
fn read_fields<'a>(
    headers: &Headers<'a>,
    head: &mut RequestHead,
    rules: &Rules,
    shown: bool,
) -> (Said<'a>, Option<&'a [u8]>) {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    head.fields = Fields::with_capacity(headers.len(), bytes);
    let mut said = Said::new(bytes);
    let mut certificate = None;
    // Envoy gives pseudo headers first, so `host` is pushed before any other field.
    for (index, (name, value)) in headers.iter().enumerate() {
        match name {
            b":authority" if value == NO_HOST && head.version == HttpVersion::Http10 => {}
            b":authority" => said.see_authority(value, head, &rules.known),
            b":method" => said.see_method(value, head),
            b":path" => said.see_target(value, head),
            b"x-forwarded-proto" if value == scheme(head.https) && is_of_envoy(headers, index) => {}
            b"x-forwarded-client-cert" if shown && !value.starts_with(b"[") => {
                let (others, element) = tls::split_element(value);
                certificate = Some(element);
                if !others.is_empty() {
                    head.fields.push(name, others);
                }
            }
            // The number by which it goes through the router.
            [b':', ..] | HANDED_OVER => {}
            _ => said.see_field(name, value, head),
        }
    }
    (said, certificate)
}

const HANDED_OVER: &[u8] = NUMBER.as_bytes();

/// The `:authority` by which Envoy lets in a request of HTTP/1.0 that has no `host`, if it is
/// configured so (`default_host_for_http_10`).
const NO_HOST: &[u8] = b"-";

/// Whether the `x-forwarded-proto` at `index`, of the connection's scheme, is the one that Envoy
/// appends if the client sent none: only others of Envoy's come after it, and what came on the way
/// through a router. If it was the client's own after all, it said nothing that the scheme does not.
fn is_of_envoy(headers: &Headers<'_>, index: usize) -> bool {
    let behind = headers.iter().skip(index + 1).map(|(name, _)| name);
    let mut of_connection = behind.take_while(|name| *name != HANDED_OVER);
    of_connection.all(|name| matches!(name, b"x-request-id" | b"x-forwarded-client-cert"))
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

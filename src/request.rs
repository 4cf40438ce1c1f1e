//! Runs on: Envoy worker thread.
//!
//! Copies a request out of Envoy. What leaves this file has no pointer into Envoy.

use envoy::{AttributeId, EnvoyFilter, Headers};

use crate::exchange::{Fields, HttpVersion, RequestHead, Short};

/// Copies the head of the request.
pub(crate) fn read_head(envoy: &EnvoyFilter<'_>) -> RequestHead {
    let headers = envoy.request_headers();
    let mut head = RequestHead {
        tls: envoy
            .attribute_bytes(AttributeId::ConnectionTlsVersion)
            .is_some(),
        version: version(envoy.attribute_bytes(AttributeId::RequestProtocol)),
        client: owned(envoy.direct_remote_address()),
        server: owned(envoy.attribute_bytes(AttributeId::DestinationAddress)),
        ..RequestHead::default()
    };
    read_fields(&headers, &mut head);
    head
}

/// Appends the chunks of a body to `body`.
pub(crate) fn append<'a>(body: &mut Vec<u8>, chunks: impl Iterator<Item = &'a [u8]>) {
    chunks.for_each(|chunk| body.extend_from_slice(chunk));
}

/// Turns Envoy's header map into method, target and fields. `:authority` becomes `host` at the
/// start of the list (ASGI HTTP scope, `headers`).
fn read_fields(headers: &Headers<'_>, head: &mut RequestHead) {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    head.fields = Fields::with_capacity(headers.len(), bytes);
    // Envoy gives pseudo headers first, so `host` is pushed before any other field.
    for (name, value) in headers.iter() {
        match name {
            b":authority" => head.fields.push(b"host", value),
            b":method" => head.method = value.into(),
            b":path" => head.target = value.to_vec(),
            // Envoy appends this field if the client sent none. The client's own in last place
            // with this very value says nothing that `scheme` does not.
            b"x-forwarded-proto" if is_last(headers, name, value) && value == scheme(head.tls) => {}
            [b':', ..] => {}
            _ => {
                match name {
                    b"expect" => {
                        head.expects_continue |= value.eq_ignore_ascii_case(b"100-continue")
                    }
                    b"te" => head.takes_trailers |= has_trailers(value),
                    _ => {}
                }
                head.fields.push(name, value);
            }
        }
    }
}

fn is_last(headers: &Headers<'_>, name: &[u8], value: &[u8]) -> bool {
    // The very same field, not an equal one: compared by where it lies.
    headers.iter().last().is_some_and(|(last, last_value)| {
        std::ptr::eq(last, name) && std::ptr::eq(last_value, value)
    })
}

/// Whether `trailers` is among the members of a `te` field (RFC 9110, section 10.1.4).
fn has_trailers(value: &[u8]) -> bool {
    let mut members = value.split(|&byte| byte == b',');
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

fn scheme(tls: bool) -> &'static [u8] {
    if tls { b"https" } else { b"http" }
}

fn version(protocol: Option<&[u8]>) -> HttpVersion {
    match protocol {
        Some(b"HTTP/1.0") => HttpVersion::Http10,
        Some(b"HTTP/2") => HttpVersion::Http2,
        Some(b"HTTP/3") => HttpVersion::Http3,
        _ => HttpVersion::Http11,
    }
}

fn owned(bytes: Option<&[u8]>) -> Short {
    bytes.unwrap_or_default().into()
}

#[cfg(test)]
mod tests;

//! Runs on: the threads of either front; pure.
//!
//! What the fields of a request say to the server, and what is wrong with them.

use std::cell::RefCell;

use smallvec::SmallVec;

use super::{Refusal, Rules};
use crate::exchange::{self, HttpVersion, RequestHead, Short, alphanumeric_or};

/// What the fields of a request say to the server.
#[derive(Default)]
pub(crate) struct Said<'a> {
    /// Bytes of names and values, with those of the request line.
    pub(crate) bytes: usize,
    /// Each `x-forwarded-for`.
    clients: SmallVec<[&'a [u8]; 2]>,
    /// The last `x-forwarded-proto`.
    scheme: Option<&'a [u8]>,
    content_length: Option<u64>,
    refusal: Option<Refusal>,
}

impl<'a> Said<'a> {
    /// Of a head with so many bytes of names and values.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }

    /// The method, which goes into `head`.
    pub(crate) fn see_method(&mut self, method: &[u8], head: &mut RequestHead) {
        if method == b"CONNECT" {
            self.refusal = Some(Refusal::CONNECT);
        }
        head.method = Short::from_slice(method);
    }

    /// Path and query, which go into `head`.
    pub(crate) fn see_target(&mut self, target: &[u8], head: &mut RequestHead) {
        if !target.iter().all(u8::is_ascii_graphic) {
            self.refusal = Some(Refusal::bad("aiovoy_bad_path"));
        }
        head.target = target.to_vec();
    }

    /// `host` or `:authority`, which is the first field of `head` (ASGI HTTP scope, `headers`).
    pub(crate) fn see_authority(
        &mut self,
        authority: &[u8],
        head: &mut RequestHead,
        known: &Known,
    ) {
        self.see_host(authority, known);
        head.fields.push(b"host", authority);
    }

    /// `host`, which has no say where the target has an authority, and must be one nevertheless (RFC 9112, section
    /// 3.2).
    pub(crate) fn see_host(&mut self, host: &[u8], known: &Known) {
        if !known.is_authority(host) {
            self.refusal = Some(Refusal::bad("aiovoy_bad_host"));
        }
    }

    /// A field, with its name in lower case, that the application gets as it is.
    pub(crate) fn see_field(&mut self, name: &[u8], value: &'a [u8], head: &mut RequestHead) {
        match name {
            b"content-length" => self.content_length = Some(number(value)),
            b"expect" => head.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            b"upgrade" => head.websocket |= value.eq_ignore_ascii_case(b"websocket"),
            b"te" => head.takes_trailers |= has_trailers(value),
            b"x-forwarded-for" => self.clients.push(value),
            b"x-forwarded-proto" => self.scheme = Some(value),
            _ => {}
        }
        self.see_value(value);
        head.fields.push(name, value);
    }

    /// Its value, or one of several that the application gets as one.
    pub(crate) fn see_value(&mut self, value: &[u8]) {
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value {
            self.refusal = Some(Refusal::bad("aiovoy_bad_field"));
        }
    }

    /// What a trusted proxy says of the client counts.
    pub(crate) fn believe(&self, rules: &Rules, head: &mut RequestHead) {
        let is_forwarded = !self.clients.is_empty() || self.scheme.is_some();
        if !is_forwarded || !rules.proxies.trust(&head.client.host) {
            return;
        }
        match self.scheme.map(<[u8]>::trim_ascii) {
            Some(b"https" | b"wss") => head.https = true,
            Some(b"http" | b"ws") => head.https = false,
            _ => {}
        }
        if let Some(client) = rules.proxies.client(&self.clients) {
            head.client = client;
            head.names_client = true;
        }
    }

    /// Whether the request is to be refused, all of whose fields were seen.
    pub(crate) fn judge(
        self,
        rules: &Rules,
        head: &mut RequestHead,
        end_of_stream: bool,
    ) -> Option<Refusal> {
        let too_large = rules.limit_head(self.bytes, &head.fields);
        head.length = self.content_length.unwrap_or(0);
        let mount = rules.mount(&head.target);
        head.mount = mount.unwrap_or_default();
        let refusal = match self.content_length {
            _ if too_large.is_some() => too_large,
            // A body of chunks, which HTTP/1.0 does not have (RFC 9112, section 6.1).
            None if !end_of_stream && head.version == HttpVersion::Http10 => {
                Some(Refusal::bad("aiovoy_bad_framing"))
            }
            _ if mount.is_none() => Some(Refusal::NOT_FOUND),
            Some(length) if rules.limits_body(length) => Some(Refusal::BODY),
            _ => None,
        };
        self.refusal.or(refusal)
    }
}

/// The last authority that was one: most requests of a thread have the same, which need not be read again.
#[derive(Debug, Default)]
pub(crate) struct Known(RefCell<Short>);

impl Known {
    fn is_authority(&self, text: &[u8]) -> bool {
        if self.0.borrow().as_slice() == text {
            return true;
        }
        let valid = is_authority(text);
        if valid {
            *self.0.borrow_mut() = Short::from_slice(text);
        }
        valid
    }
}

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

/// The number in a field that was checked.
fn number(digits: &[u8]) -> u64 {
    exchange::decimal(digits).unwrap_or(u64::MAX)
}

/// Whether `trailers` is among the members of a `te` field (RFC 9110, section 10.1.4).
fn has_trailers(value: &[u8]) -> bool {
    let mut members = value.split(|&byte| byte == b',');
    members.any(|member| member.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

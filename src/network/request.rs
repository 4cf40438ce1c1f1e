//! Runs on: network thread.
//!
//! Copies a request out of its connection.

use upstream::server::{End, Ends, Fields, Head, Version};

use crate::admission::{Refusal, Rules, Said, client_certificate};
use crate::exchange::{self, Endpoint, HttpVersion, RequestHead, Short, Tls};

/// Copies the head of a request, and says whether it is to be refused.
pub(super) fn read_head(
    head: &Head<'_>,
    ends: &Ends,
    rules: &Rules,
) -> (RequestHead, Option<Refusal>) {
    let mut bytes = head.method.len() + head.target.len();
    let count = head.fields.len();
    head.fields
        .for_each(|name, value| bytes += name.len() + value.len());
    let mut read = RequestHead {
        version: version(head.version),
        client: endpoint(&ends.client),
        server: endpoint(&ends.server),
        fields: exchange::Fields::with_capacity(count, bytes),
        ..RequestHead::default()
    };
    let mut said = Said::new(bytes);
    said.see_method(head.method, &mut read);
    said.see_target(head.target, &mut read);
    if let Some(authority) = head.authority {
        said.see_authority(authority, &mut read, &rules.known);
    }
    let cookies = cookies(&head.fields);
    let mut has_cookies = false;
    let mut certificate = None;
    head.fields.for_each(|name, value| {
        if let Some(cookies) = &cookies
            && name == b"cookie"
        {
            said.see_value(value);
            if !std::mem::replace(&mut has_cookies, true) {
                read.fields.push(name, cookies);
            }
            return;
        }
        // Names are of ASCII.
        let mut lower = Short::from_slice(name);
        lower.make_ascii_lowercase();
        match lower.as_slice() {
            b"host" if head.authority == Some(value) => return,
            b"host" => return said.see_host(value, &rules.known),
            b"x-forwarded-client-cert" => certificate = Some(value),
            // A WebSocket's handshake is one by these.
            b"connection" if head.websocket => {}
            name if is_of_connection(name) => return,
            _ => {}
        }
        said.see_field(&lower, value, &mut read);
    });
    if head.websocket && head.version == Version::Http2 {
        // As Envoy has it, and WebSockets over HTTP/1.
        said.see_field(b"upgrade", b"websocket", &mut read);
        said.see_field(b"connection", b"upgrade", &mut read);
    }
    read.websocket = head.websocket;
    said.believe(rules, &mut read);
    if read.https && rules.proxies.trust(ends.client.host.as_bytes()) {
        let client = certificate.and_then(client_certificate);
        read.tls = client.map(|client| Tls {
            version: None,
            cipher: None,
            client: Some(client),
        });
    }
    let refusal = said.judge(rules, &mut read, head.length == Some(0));
    // `*` is the server's and no application's, as in Envoy, where no route has it.
    let refusal = refusal.or((head.target == b"*").then_some(Refusal::NOT_FOUND));
    (read, refusal)
}

/// All cookies in one, where clients may split them: RFC 9113, section 8.2.3.
fn cookies(fields: &Fields<'_>) -> Option<Vec<u8>> {
    let Fields::Http2(fields) = fields else {
        return None;
    };
    let mut all = fields.get_all("cookie").iter();
    let mut joined = all.next()?.as_bytes().to_vec();
    for more in all {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(more.as_bytes());
    }
    Some(joined)
}

/// Fields that are the connection's, and no application's (RFC 9110, section 7.6.1).
fn is_of_connection(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
    )
}

pub(super) fn endpoint(end: &End) -> Endpoint {
    Endpoint {
        host: end.host.as_bytes().into(),
        port: end.port,
    }
}

fn version(version: Version) -> HttpVersion {
    match version {
        Version::Http10 => HttpVersion::Http10,
        Version::Http11 => HttpVersion::Http11,
        Version::Http2 => HttpVersion::Http2,
    }
}

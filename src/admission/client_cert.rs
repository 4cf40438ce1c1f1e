//! Runs on: network thread; pure.
//!
//! The client's certificate, as a trusted proxy says it by `x-forwarded-client-cert`
//! (Envoy's documentation, "HTTP header manipulation").

use crate::exchange::{ClientCertificate, decode};

/// What the last element of a field says: the proxy's own word, where those before it may be its client's. `None` if it
/// says nothing of a certificate.
pub(crate) fn client_certificate(field: &[u8]) -> Option<Box<ClientCertificate>> {
    let element = split(field, b',').last()?;
    let (mut subject, mut cert, mut chain) = (None, None, None);
    for pair in split(element, b';') {
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&pair[..equals], &pair[equals + 1..]);
        match key.to_ascii_lowercase().as_slice() {
            b"subject" => subject = unquoted(value),
            b"cert" => cert = unquoted(value),
            b"chain" => chain = unquoted(value),
            _ => {}
        }
    }
    let chain = chain.or(cert).map(|pem| certificates(&pem));
    let chain = chain.unwrap_or_default();
    let subject = subject.filter(|subject| !subject.is_empty());
    let subject = subject.map(|subject| String::from_utf8_lossy(&subject).into_owned());
    (subject.is_some() || !chain.is_empty()).then(|| Box::new(ClientCertificate { chain, subject }))
}

/// The parts of a list, which may be in quotes.
fn split(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    list.split(move |&byte| {
        let was_escaped = std::mem::take(&mut escaped);
        match byte {
            b'"' if !was_escaped => quoted = !quoted,
            b'\\' if quoted && !was_escaped => escaped = true,
            _ => {}
        }
        byte == separator && !quoted
    })
    .map(<[u8]>::trim_ascii)
}

/// `None` if a quote has no end.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let Some(rest) = value.strip_prefix(b"\"") else {
        return Some(value.to_vec());
    };
    let mut plain = rest.strip_suffix(b"\"")?.to_vec();
    let mut escaped = false;
    plain.retain(|&byte| {
        escaped = byte == b'\\' && !escaped;
        !escaped
    });
    Some(plain)
}

/// Percent-encoded PEM, of one or several.
fn certificates(pem: &[u8]) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let text = decode(pem);
    text.split_inclusive(END).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str =
        "-----BEGIN%20CERTIFICATE-----%0Aa%2Bb%2Fc%3D%0A-----END%20CERTIFICATE-----%0A";
    const DECODED: &str = "-----BEGIN CERTIFICATE-----\na+b/c=\n-----END CERTIFICATE-----\n";

    fn of(field: &str) -> Option<(Vec<String>, Option<String>)> {
        let found = client_certificate(field.as_bytes())?;
        Some((found.chain, found.subject))
    }

    #[test]
    fn the_last_element_counts() {
        let field = format!(
            r#"By=spiffe://a;Subject="CN=first",By=spiffe://b;Hash=1;Cert="{PEM}";Subject="CN=\"x\",O=a;b, c";URI=spiffe://c"#
        );
        let subject = Some(r#"CN="x",O=a;b, c"#.to_owned());
        assert_eq!(of(&field), Some((vec![DECODED.to_owned()], subject)));
    }

    #[test]
    fn a_chain_is_split_and_goes_before_the_certificate() {
        let field = format!(r#"Hash=1;Cert="{PEM}";Chain="{PEM}{PEM}""#);
        assert_eq!(of(&field), Some((vec![DECODED.to_owned(); 2], None)));
    }

    #[test]
    fn what_says_nothing_of_a_certificate_is_none() {
        for field in [
            "",
            "Hash=1",
            r#"Subject="""#,
            r#"Subject="CN=a",Hash=1"#,
            "a",
            r#"Subject="CN=a"#,
        ] {
            assert_eq!(of(field), None, "{field}");
        }
    }
}

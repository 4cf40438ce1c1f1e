//! Runs on: Envoy worker thread.
//!
//! What Envoy says of a TLS connection, as ASGI's TLS extension wants it.

use envoy::{AttributeId, EnvoyFilter};

use crate::exchange::{ClientCertificate, Tls, decode};

/// Where Envoy's configuration puts the name of the cipher suite, which is in no attribute.
const CIPHER: &str = "aiovoy.tls_cipher";

/// The connection's TLS, without the client's certificate.
pub(crate) fn connection(envoy: &EnvoyFilter<'_>) -> Option<Tls> {
    let version = envoy.attribute_bytes(AttributeId::ConnectionTlsVersion)?;
    Some(Tls {
        version: number_of_version(version),
        cipher: envoy
            .filter_state(CIPHER)
            .and_then(|name| number_of_cipher(&name)),
        client: None,
    })
}

/// Envoy's element of `x-forwarded-client-cert`, which is the last, and those before it.
///
/// Its keys are `By`, which may be missing, `Hash`, `Cert` and `Chain`. Only the first, a URI of
/// our own certificate, could have a comma in it.
pub(crate) fn split_element(value: &[u8]) -> (&[u8], &[u8]) {
    let begins = |at: usize| {
        let element = &value[at..];
        element.starts_with(b"By=") || element.starts_with(b"Hash=")
    };
    let commas = (0..value.len()).rev().filter(|&at| value[at] == b',');
    match commas.into_iter().find(|&comma| begins(comma + 1)) {
        Some(comma) => (&value[..comma], &value[comma + 1..]),
        None => (b"", value),
    }
}

/// The client's certificate from Envoy's element of `x-forwarded-client-cert`.
pub(crate) fn client(envoy: &EnvoyFilter<'_>, element: &[u8]) -> Option<Box<ClientCertificate>> {
    let chain = chain(element);
    let subject = envoy.attribute_bytes(AttributeId::PeerCertificateSubject)?;
    (!chain.is_empty()).then(|| {
        Box::new(ClientCertificate {
            chain,
            subject: Some(String::from_utf8_lossy(subject).into_owned()),
        })
    })
}

/// The certificates of `Chain="..."`, which are percent-encoded PEM, the client's own first.
fn chain(element: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b";Chain=\"";
    const END: &str = "-----END CERTIFICATE-----\n";
    let found = element.windows(KEY.len()).rposition(|window| window == KEY);
    let Some(encoded) = found.map(|at| &element[at + KEY.len()..]) else {
        return Vec::new();
    };
    let text = decode(encoded.strip_suffix(b"\"").unwrap_or(encoded));
    text.split_inclusive(END).map(str::to_owned).collect()
}

fn number_of_version(name: &[u8]) -> Option<u16> {
    Some(match name {
        b"TLSv1" => 0x0301,
        b"TLSv1.1" => 0x0302,
        b"TLSv1.2" => 0x0303,
        b"TLSv1.3" => 0x0304,
        _ => return None,
    })
}

/// The registered number of a cipher suite by the name that BoringSSL has for it: all that it
/// knows.
fn number_of_cipher(name: &[u8]) -> Option<u16> {
    Some(match name {
        b"TLS_AES_128_GCM_SHA256" => 0x1301,
        b"TLS_AES_256_GCM_SHA384" => 0x1302,
        b"TLS_CHACHA20_POLY1305_SHA256" => 0x1303,
        b"ECDHE-ECDSA-AES128-GCM-SHA256" => 0xc02b,
        b"ECDHE-ECDSA-AES256-GCM-SHA384" => 0xc02c,
        b"ECDHE-RSA-AES128-GCM-SHA256" => 0xc02f,
        b"ECDHE-RSA-AES256-GCM-SHA384" => 0xc030,
        b"ECDHE-RSA-CHACHA20-POLY1305" => 0xcca8,
        b"ECDHE-ECDSA-CHACHA20-POLY1305" => 0xcca9,
        b"ECDHE-PSK-CHACHA20-POLY1305" => 0xccac,
        b"ECDHE-ECDSA-AES128-SHA" => 0xc009,
        b"ECDHE-ECDSA-AES256-SHA" => 0xc00a,
        b"ECDHE-RSA-AES128-SHA" => 0xc013,
        b"ECDHE-RSA-AES256-SHA" => 0xc014,
        b"ECDHE-ECDSA-AES128-SHA256" => 0xc023,
        b"ECDHE-RSA-AES128-SHA256" => 0xc027,
        b"ECDHE-PSK-AES128-CBC-SHA" => 0xc035,
        b"ECDHE-PSK-AES256-CBC-SHA" => 0xc036,
        b"AES128-GCM-SHA256" => 0x009c,
        b"AES256-GCM-SHA384" => 0x009d,
        b"AES128-SHA" => 0x002f,
        b"AES256-SHA" => 0x0035,
        b"PSK-AES128-CBC-SHA" => 0x008c,
        b"PSK-AES256-CBC-SHA" => 0x008d,
        b"DES-CBC3-SHA" => 0x000a,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_element_is_envoys() {
        for (value, before, element) in [
            ("Hash=1;Cert=\"a\"", "", "Hash=1;Cert=\"a\""),
            ("Hash=0,Hash=1;Cert=\"a\"", "Hash=0", "Hash=1;Cert=\"a\""),
            ("a,b,By=spiffe://c;Hash=1", "a,b", "By=spiffe://c;Hash=1"),
            ("a,By=spiffe://c,d;Hash=1", "a", "By=spiffe://c,d;Hash=1"),
            ("Subject=\"a,b\",Hash=1", "Subject=\"a,b\"", "Hash=1"),
        ] {
            let split = split_element(value.as_bytes());
            assert_eq!(split, (before.as_bytes(), element.as_bytes()), "{value}");
        }
    }

    #[test]
    fn a_chain_is_decoded_and_split() {
        let one = "-----BEGIN%20CERTIFICATE-----%0Aa%2Bb%2Fc%3D%0A-----END%20CERTIFICATE-----%0A";
        let element = format!("Hash=1;Cert=\"{one}\";Chain=\"{one}{one}\"");
        let expected = "-----BEGIN CERTIFICATE-----\na+b/c=\n-----END CERTIFICATE-----\n";
        assert_eq!(chain(element.as_bytes()), [expected, expected]);
        assert!(chain(b"Hash=1").is_empty());
    }
}

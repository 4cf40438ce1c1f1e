//! Runs on: any thread; pure.
//!
//! What a request says of WebSocket. RFC 6455, section 4.2; over HTTP/2 and HTTP/3 there is no key
//! (RFC 8441, section 5; RFC 9220).

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, PAD};

/// The fields of a request that begin with `sec-websocket-`, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// `sec-websocket-accept` of the response, over HTTP/1.1.
    pub(crate) accept: Option<String>,
    /// The subprotocols offered, the client's favourite first.
    pub(crate) subprotocols: Vec<String>,
    /// The extensions offered, the client's favourite first.
    pub(crate) extensions: Vec<Extension>,
}

/// An extension that a client offers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Extension {
    pub(crate) name: String,
    pub(crate) parameters: Vec<(String, Option<String>)>,
}

/// The request cannot become a WebSocket.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("expected `sec-websocket-version: 13`")]
    Version,
    #[error("expected one `sec-websocket-key` of 16 bytes in base64")]
    Key,
    #[error("`{0}` is malformed")]
    Malformed(&'static str),
    /// Told by who knows the request's method and length.
    #[error("expected a GET without content")]
    Request,
}

impl Refusal {
    /// The status to answer with.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Version => 426,
            Self::Key | Self::Malformed(_) | Self::Request => 400,
        }
    }

    /// A field that the answer must have (RFC 6455, section 4.2.2).
    pub(crate) fn field(&self) -> Option<(&'static str, &'static str)> {
        (*self == Self::Version).then_some((VERSION, "13"))
    }
}

const VERSION: &str = "sec-websocket-version";
const KEY: &str = "sec-websocket-key";
const PROTOCOL: &str = "sec-websocket-protocol";
const EXTENSIONS: &str = "sec-websocket-extensions";

impl Handshake {
    /// Reads the fields of a request, whose names are in lower case. `keyed` is whether it must
    /// have a key, as over HTTP/1.1.
    pub(crate) fn read<'a>(
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        keyed: bool,
    ) -> Result<Self, Refusal> {
        let mut handshake = Self::default();
        let (mut versions, mut keys) = (Vec::new(), Vec::new());
        for (name, value) in fields {
            if name == VERSION.as_bytes() {
                versions.push(value);
            } else if name == KEY.as_bytes() {
                keys.push(value);
            } else if name == PROTOCOL.as_bytes() {
                subprotocols(value, &mut handshake.subprotocols)
                    .ok_or(Refusal::Malformed(PROTOCOL))?;
            } else if name == EXTENSIONS.as_bytes() {
                extensions(value, &mut handshake.extensions)
                    .ok_or(Refusal::Malformed(EXTENSIONS))?;
            }
        }
        if versions != [b"13".as_slice()] {
            return Err(Refusal::Version);
        }
        if keyed {
            let [key] = keys[..] else {
                return Err(Refusal::Key);
            };
            handshake.accept = Some(accept(key).ok_or(Refusal::Key)?);
        }
        Ok(handshake)
    }
}

/// The answer to a key, or `None` if it is not one.
fn accept(key: &[u8]) -> Option<String> {
    // Clients that take 22 characters at random set bits that encode nothing.
    const KEYS: GeneralPurpose =
        GeneralPurpose::new(&STANDARD, PAD.with_decode_allow_trailing_bits(true));
    if KEYS.decode(key).ok()?.len() != 16 {
        return None;
    }
    let mut hash = sha1_smol::Sha1::from(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    Some(KEYS.encode(hash.digest().bytes()))
}

/// Adds the elements of a `sec-websocket-protocol` field.
fn subprotocols(value: &[u8], into: &mut Vec<String>) -> Option<()> {
    list(value, |rest| {
        into.push(rest.token()?);
        Some(())
    })
}

/// Adds the elements of a `sec-websocket-extensions` field (RFC 6455, section 9.1).
fn extensions(value: &[u8], into: &mut Vec<Extension>) -> Option<()> {
    list(value, |rest| {
        let name = rest.token()?;
        let mut parameters = Vec::new();
        while rest.takes(b';') {
            let name = rest.token()?;
            let value = match rest.takes(b'=') {
                true => Some(rest.token_or_quoted()?),
                false => None,
            };
            parameters.push((name, value));
        }
        into.push(Extension { name, parameters });
        Some(())
    })
}

/// Reads the elements of a list, of which some may be empty (RFC 9110, section 5.6.1).
fn list(value: &[u8], mut element: impl FnMut(&mut Rest) -> Option<()>) -> Option<()> {
    let mut rest = Rest(value.trim_ascii());
    loop {
        while rest.takes(b',') {}
        if rest.0.is_empty() {
            return Some(());
        }
        element(&mut rest)?;
        if !rest.0.is_empty() && !rest.takes(b',') {
            return None;
        }
    }
}

/// What of a field's value has not been read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    /// Steps over `byte` with the whitespace around it, if it comes next.
    fn takes(&mut self, byte: u8) -> bool {
        let next = self.0.trim_ascii_start().strip_prefix(&[byte]);
        self.0 = next.map_or(self.0, <[u8]>::trim_ascii_start);
        next.is_some()
    }

    /// A token (RFC 9110, section 5.6.2).
    fn token(&mut self) -> Option<String> {
        let is_end =
            |byte: &u8| !byte.is_ascii_alphanumeric() && !b"!#$%&'*+-.^_`|~".contains(byte);
        let end = self.0.iter().position(is_end).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        let token = str::from_utf8(token).ok()?;
        (!token.is_empty()).then(|| token.into())
    }

    /// A token, which may stand in quotes.
    fn token_or_quoted(&mut self) -> Option<String> {
        let quoted = self.takes(b'"');
        let token = self.token()?;
        (!quoted || self.takes(b'"')).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: (&str, &str) = (KEY, "dGhlIHNhbXBsZSBub25jZQ==");

    fn read(fields: &[(&str, &str)], keyed: bool) -> Result<Handshake, Refusal> {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Handshake::read(fields, keyed)
    }

    fn refused_with(fields: &[(&str, &str)]) -> (u16, Option<(&'static str, &'static str)>) {
        let refusal = read(fields, true).expect_err("refused");
        (refusal.status(), refusal.field())
    }

    /// RFC 6455, section 1.3.
    #[test]
    fn a_key_is_answered() {
        let handshake = read(&[(VERSION, "13"), SAMPLE, ("host", "x")], true);
        let accept = Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into());
        assert_eq!(
            handshake,
            Ok(Handshake {
                accept,
                ..Handshake::default()
            })
        );
        assert_eq!(read(&[(VERSION, "13")], false), Ok(Handshake::default()));
    }

    #[test]
    fn a_version_is_needed_and_one_is_known() {
        let expected = (426, Some((VERSION, "13")));
        assert_eq!(refused_with(&[SAMPLE]), expected);
        assert_eq!(refused_with(&[SAMPLE, (VERSION, "8")]), expected);
        assert_eq!(refused_with(&[SAMPLE, (VERSION, "13, 8")]), expected);
        assert_eq!(
            refused_with(&[SAMPLE, (VERSION, "13"), (VERSION, "13")]),
            expected
        );
    }

    #[test]
    fn a_key_is_one_of_16_bytes() {
        for keys in [
            &[][..],
            &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="],
            &["dGhlIHNhbXBsZSBub25jZQ"],
            &["dGhlIHNhbXBsZSBub25j"],
            &["dGhlIHNhbXBsZSBub25jZQAA"],
            &["dGhlIHNhbXBsZSBub25jZ!=="],
            &[""],
        ] {
            let mut fields = vec![(VERSION, "13")];
            fields.extend(keys.iter().map(|key| (KEY, *key)));
            assert_eq!(refused_with(&fields), (400, None), "{keys:?}");
        }
        // The last two bits before the padding encode nothing.
        let sloppy = [(VERSION, "13"), (KEY, "dGhlIHNhbXBsZSBub25jZR==")];
        assert!(read(&sloppy, true).is_ok());
    }

    #[test]
    fn subprotocols_keep_their_order_over_several_fields() {
        let fields = [
            (VERSION, "13"),
            (PROTOCOL, " chat ,, superchat"),
            (PROTOCOL, "v1.x,"),
            (PROTOCOL, ""),
        ];
        let handshake = read(&fields, false).expect("well-formed");
        assert_eq!(handshake.subprotocols, ["chat", "superchat", "v1.x"]);
        for malformed in ["a b", "a/b", "\"a\"", "a;b", "\u{e9}"] {
            let fields = [(VERSION, "13"), SAMPLE, (PROTOCOL, malformed)];
            assert_eq!(refused_with(&fields), (400, None), "{malformed}");
        }
    }

    #[test]
    fn extensions_have_parameters() {
        let fields = [
            (VERSION, "13"),
            (EXTENSIONS, "a; b; c=1 ;d = \"2\", e"),
            (EXTENSIONS, "f;g=\"h\""),
        ];
        let handshake = read(&fields, false).expect("well-formed");
        let read: Vec<_> = handshake
            .extensions
            .iter()
            .map(|extension| format!("{} {:?}", extension.name, extension.parameters))
            .collect();
        let expected = [
            r#"a [("b", None), ("c", Some("1")), ("d", Some("2"))]"#,
            "e []",
            r#"f [("g", Some("h"))]"#,
        ];
        assert_eq!(read, expected);
        for malformed in [
            "a;",
            "a; b=",
            "a; =b",
            "a; b=\"c",
            "a; b=\"\"",
            "a b",
            "; a",
            "a; b c",
        ] {
            let fields = [(VERSION, "13"), SAMPLE, (EXTENSIONS, malformed)];
            assert_eq!(refused_with(&fields), (400, None), "{malformed}");
        }
    }
}

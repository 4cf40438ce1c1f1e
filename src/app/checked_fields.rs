//! Runs on: loop thread; pure.
//!
//! The header fields of a response, checked: with those that leave this file an application can't
//! change the framing of a connection, since Envoy writes what it is given.

use crate::exchange::{Fields, alphanumeric_or, decimal};

/// Fields that have been checked, and what was read from them.
#[derive(Default)]
pub(crate) struct CheckedFields {
    /// The fields that go out.
    pub(crate) fields: Fields,
    /// The `content-length`.
    pub(crate) content_length: Option<u64>,
    /// The connection is to be closed.
    pub(crate) close: bool,
}

impl CheckedFields {
    /// None yet, with room for `fields` of `bytes` in all.
    pub(crate) fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self {
            fields: Fields::with_capacity(fields, bytes),
            ..Self::default()
        }
    }

    /// Adds a field, or says why it can't be one.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        // To the end, right or wrong: it is nearly always right, and a loop without exits is short.
        let kinds = name
            .iter()
            .fold(0, |kinds, &byte| kinds | KINDS[usize::from(byte)]);
        if name.is_empty() || kinds & NO_TOKEN != 0 {
            return Err("the name is not a token (RFC 9110, section 5.6.2)");
        }
        if value
            .iter()
            .fold(false, |breaks, &byte| breaks | BREAKS[usize::from(byte)])
        {
            return Err("the value has a CR, LF or NUL (RFC 9110, section 5.5)");
        }
        // What surrounds a value is not part of it (RFC 9110, section 5.5); HTTP/2 peers refuse it.
        let value = value.trim_ascii();
        if u32::try_from(name.len()).is_err() || u32::try_from(value.len()).is_err() {
            return Err("the field is longer than 4 GiB");
        }
        let lower_case = kinds & CAPITAL == 0;
        let is = |known: &[u8]| name == known || (!lower_case && name.eq_ignore_ascii_case(known));
        // Names are asked about by their length first: few others are as long as these.
        match name.len() {
            14 if is(b"content-length") => {
                let length = decimal(value).ok_or("the value is not a number of bytes")?;
                match self.content_length.replace(length) {
                    None => {}
                    Some(other) if other == length => return Ok(()),
                    Some(_) => return Err("a second one with another value"),
                }
            }
            2 | 7 | 10 | 16 | 17 if HOP_BY_HOP.into_iter().any(is) => {
                // The framing of a connection is the server's (ASGI HTTP scope; RFC 9110, section
                // 7.6.1). `close` is the one wish that is heard.
                self.close |= is(b"connection") && value.eq_ignore_ascii_case(b"close");
                return Ok(());
            }
            _ => {}
        }
        if lower_case {
            self.fields.push(name, value);
        } else {
            self.fields.push_lower_case(name, value);
        }
        Ok(())
    }
}

/// What ends a line, for one reader or another.
static BREAKS: [bool; 256] = {
    let mut table = [false; 256];
    table[b'\r' as usize] = true;
    table[b'\n' as usize] = true;
    table[0] = true;
    table
};

/// What a byte is in a name: [`NO_TOKEN`], [`CAPITAL`], or neither (RFC 9110, section 5.6.2).
static KINDS: [u8; 256] = {
    let tokens = alphanumeric_or(b"!#$%&'*+-.^_`|~");
    let mut table = [NO_TOKEN; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        if tokens[byte as usize] {
            table[byte as usize] = if byte.is_ascii_uppercase() {
                CAPITAL
            } else {
                0
            };
        }
        byte += 1;
    }
    table
};

const NO_TOKEN: u8 = 1;
const CAPITAL: u8 = 2;

const HOP_BY_HOP: [&[u8]; 6] = [
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"transfer-encoding",
    b"upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn push(fields: &[(&[u8], &[u8])]) -> Result<CheckedFields, &'static str> {
        let mut checked = CheckedFields::default();
        fields
            .iter()
            .try_for_each(|(name, value)| checked.push(name, value))?;
        Ok(checked)
    }

    #[test]
    fn names_are_lowered_and_hop_by_hop_fields_dropped() {
        let checked = push(&[
            (b"X-A", b"1"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Connection", b"Close"),
            (b"Upgrade", b"h2c"),
        ])
        .expect("valid");
        let fields: Vec<_> = checked.fields.iter().collect();
        assert_eq!(fields, [(&b"x-a"[..], &b"1"[..])]);
        assert!(checked.close);
    }

    #[test]
    fn all_hop_by_hop_fields_are_dropped_however_they_are_written() {
        for name in [
            "Connection",
            "keep-alive",
            "PROXY-CONNECTION",
            "TE",
            "Transfer-encoding",
            "upgrade",
        ] {
            let checked = push(&[(name.as_bytes(), b"a")]).expect("valid");
            assert!(checked.fields.is_empty(), "{name}");
        }
        let checked = push(&[(b"CONTENT-length", b"3")]).expect("valid");
        assert_eq!(checked.content_length, Some(3));
    }

    #[test]
    fn what_could_change_framing_is_refused() {
        for (name, value) in [
            (&b""[..], &b""[..]),
            (b"a b", b""),
            (b":status", b"200"),
            (b"a:", b""),
            (b"a\r\n", b""),
            ("é".as_bytes(), b""),
            (b"a", b"1\r\nb: 2"),
            (b"a", b"1\n"),
            (b"a", b"\0"),
            (b"content-length", b""),
            (b"content-length", b"+1"),
            (b"content-length", b"1, 1"),
            (b"content-length", b"0x1"),
            (b"content-length", b"99999999999999999999"),
        ] {
            assert!(push(&[(name, value)]).is_err(), "{name:?}: {value:?}");
        }
        assert!(push(&[(b"content-length", b"1"), (b"content-length", b"2")]).is_err());
    }

    #[test]
    fn one_content_length_is_read_and_kept() {
        let checked =
            push(&[(b"Content-Length", b" 7 "), (b"content-length", b"7")]).expect("valid");
        assert_eq!(checked.content_length, Some(7));
        assert_eq!(checked.fields.iter().len(), 1);
    }
}

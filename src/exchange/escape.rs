//! Runs on: any thread.
//!
//! What peers have sent, for logs.

use std::borrow::Cow;
use std::fmt::Write;

/// `bytes` as text that can stand in a line, or between quotes in it: a quote, a backslash and
/// what is not printable ASCII becomes `\xHH`.
pub(crate) fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if bytes.iter().all(|&byte| is_plain(byte)) {
        return String::from_utf8_lossy(bytes);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        if is_plain(byte) {
            text.push(byte.into());
        } else {
            write!(text, "\\x{byte:02X}").expect("a string takes all");
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_a_field_or_a_line_is_escaped() {
        assert_eq!(escaped(b"GET /a?b=~ c"), "GET /a?b=~ c");
        assert_eq!(
            escaped(b"\"\\\n\x1b\x7f\xc3\xa9"),
            r"\x22\x5C\x0A\x1B\x7F\xC3\xA9"
        );
    }
}

//! Runs on: any thread.
//!
//! What peers have sent, for logs.

/// `bytes` as text that can stand in a line, or between quotes in it: a quote, a backslash and
/// what is not printable ASCII becomes `\xHH`.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    escape_into(&mut text, bytes);
    String::from_utf8_lossy(&text).into_owned()
}

/// The same, appended to `text`.
pub(crate) fn escape_into(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    // To the end, right or wrong: it is nearly always right, and a loop without exits is short.
    let plain = |all: bool, byte: &u8| all & IS_PLAIN[usize::from(*byte)];
    if bytes.iter().fold(true, plain) {
        text.extend_from_slice(bytes);
        return;
    }
    for &byte in bytes {
        if IS_PLAIN[usize::from(byte)] {
            text.push(byte);
        } else {
            let [high, low] = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            text.extend_from_slice(&[b'\\', b'x', high, low]);
        }
    }
}

static IS_PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        table[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    table
};

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

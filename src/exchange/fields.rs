//! Runs on: any thread.
//!
//! Header fields, in one allocation, and the characters of their parts.

/// Header fields in one allocation: a message that goes from one processor to another should be
/// of few cache lines.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// For each field the lengths of name and value, four bytes each, then name and value.
    bytes: Vec<u8>,
    count: usize,
}

/// The bytes of the two lengths before each field.
const LENGTHS: usize = 2 * size_of::<u32>();

impl Fields {
    /// Room for `count` fields with `bytes` bytes of names and values.
    pub(crate) fn with_capacity(count: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(count * LENGTHS + bytes),
            count: 0,
        }
    }

    /// Appends a field.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.reserve(LENGTHS + name.len() + value.len());
        for part in [name, value] {
            // Envoy's limits keep requests far below, and what an application sends is checked
            // where it is read.
            let length = u32::try_from(part.len()).expect("a header field is shorter than 4 GiB");
            self.bytes.extend_from_slice(&length.to_ne_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.count += 1;
    }

    /// Appends a field with the name in lower case.
    pub(crate) fn push_lower_case(&mut self, name: &[u8], value: &[u8]) {
        let at = self.bytes.len() + LENGTHS;
        self.push(name, value);
        self.bytes[at..at + name.len()].make_ascii_lowercase();
    }

    /// The same with another value of this name.
    pub(crate) fn replaced(&self, name: &[u8], value: &[u8]) -> Self {
        let mut replaced = Self::with_capacity(self.count, self.bytes.len() + value.len());
        for (other, old) in self.iter() {
            replaced.push(other, if other == name { value } else { old });
        }
        replaced
    }

    /// All but those of this name.
    pub(crate) fn without(&self, name: &[u8]) -> Self {
        let mut others = Self::with_capacity(self.count, self.bytes.len());
        self.iter()
            .filter(|(other, _)| *other != name)
            .for_each(|(name, value)| others.push(name, value));
        others
    }

    /// Bytes that they take.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names and values in order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let mut rest = self.bytes.as_slice();
        (0..self.count).map(move |_| {
            let name = take_length(&mut rest);
            let value = take_length(&mut rest);
            let (name, tail) = rest.split_at(name);
            let (value, tail) = tail.split_at(value);
            rest = tail;
            (name, value)
        })
    }
}

/// Which bytes are letters, digits or `others`, all of ASCII: a table, since each byte of each name is asked about.
pub(crate) const fn alphanumeric_or(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

fn take_length(rest: &mut &[u8]) -> usize {
    let (length, tail) = rest
        .split_first_chunk()
        .expect("a length is before its part");
    *rest = tail;
    u32::from_ne_bytes(*length) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_order_and_repeats() {
        let mut fields = Fields::with_capacity(4, 8);
        fields.push(b"b", b"");
        fields.push(b"a", b"1");
        fields.push_lower_case(b"Set-Cookie", b"");
        fields.push(b"a", b"2");
        let others = fields.without(b"b");
        let pairs: Vec<_> = others.iter().collect();
        assert_eq!(
            pairs,
            [(&b"a"[..], &b"1"[..]), (b"set-cookie", b""), (b"a", b"2")]
        );
    }
}

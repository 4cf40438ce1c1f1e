//! The heads of frames (RFC 6455, section 5.2).

/// A message is one frame: the bit that says so is among what it must begin with.
pub(crate) const FIN: u8 = 0x80;
/// RFC 7692, section 6.
pub(crate) const COMPRESSED: u8 = 0x40;
pub(crate) const MASKED: u8 = 0x80;

pub(crate) const CLOSE: u8 = FIN | 8;
pub(crate) const PING: u8 = FIN | 9;
pub(crate) const PONG: u8 = FIN | 10;

/// The most a control frame carries (RFC 6455, section 5.5).
pub(crate) const CONTROL: u64 = 125;

/// The head of a frame that is not masked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub first: u8,
    pub length: u64,
}

/// As much of a head as has come.
#[derive(Default)]
pub(crate) struct PartialHead {
    bytes: [u8; 10],
    length: usize,
}

impl PartialHead {
    /// Takes from the front of `data` what is missing. Gives the head once it is whole, and is
    /// empty again.
    pub(crate) fn take(&mut self, data: &mut &[u8]) -> Option<Head> {
        while self.length < self.expected() {
            let (&byte, rest) = data.split_first()?;
            *data = rest;
            self.bytes[self.length] = byte;
            self.length += 1;
        }
        let [first, short, long @ ..] = self.bytes;
        let length = match short {
            126 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            127 => u64::from_be_bytes(long),
            // A mask is not expected of a server. With its bit the length is wrong, and refused.
            _ => u64::from(short),
        };
        self.length = 0;
        Some(Head { first, length })
    }

    fn expected(&self) -> usize {
        match (self.length, self.bytes[1]) {
            (2.., 126) => 4,
            (2.., 127) => 10,
            _ => 2,
        }
    }
}

/// A masked control frame. Its mask may be any, and zero leaves the payload as it is.
pub(crate) fn control(first: u8, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() as u64 <= CONTROL);
    let mut frame = vec![first, MASKED | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_all_lengths_come_in_pieces_of_any_size() {
        let frames: [(&[u8], u64); 5] = [
            (&[0x81, 0], 0),
            (&[0x81, 125], 125),
            (&[0x81, 126, 0, 126], 126),
            (&[0x81, 126, 255, 255], 65535),
            (&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65536),
        ];
        let mut partial = PartialHead::default();
        for (bytes, length) in frames {
            for cut in 0..bytes.len() {
                let (mut begin, end) = bytes.split_at(cut);
                assert_eq!(partial.take(&mut begin), None);
                let mut end = [end, b"payload"].concat();
                let mut end = end.as_mut_slice() as &[u8];
                assert_eq!(
                    partial.take(&mut end),
                    Some(Head {
                        first: 0x81,
                        length
                    })
                );
                assert_eq!(end, b"payload");
            }
        }
    }
}

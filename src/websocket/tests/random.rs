use super::compression::Client;
use super::*;

/// xorshift64*
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// Text that compresses, with characters of all lengths.
    pub(super) fn text(&mut self, len: usize) -> String {
        const WORDS: [&str; 8] = [
            "websocket ",
            "frame ",
            "κόσμε ",
            "日本 ",
            "🦀 ",
            "{\"id\":",
            "}, ",
            "x",
        ];
        let mut text = String::new();
        while text.len() < len {
            text += WORDS[self.below(WORDS.len())];
            if self.below(4) == 0 {
                text += &self.below(1000).to_string();
            }
        }
        text
    }

    fn len(&mut self) -> usize {
        let most = [20, 130, 3000, 70_000][self.below(4)];
        self.below(most)
    }
}

/// Messages of a client that cuts and compresses them as it likes, and ours to it.
#[test]
fn round_trips() {
    for (seed, parameters) in [
        None,
        Some(""),
        Some("; client_max_window_bits"),
        Some("; client_max_window_bits=9; server_max_window_bits=9"),
        Some("; client_no_context_takeover; server_no_context_takeover"),
        Some("; server_max_window_bits=12; client_no_context_takeover"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut random = Random(seed as u64 + 1);
        let mut client = Client::new(parameters);
        let mut connection = Connection::new(MAX_LEN, parameters.map(agreement));
        for _ in 0..100 {
            let len = random.len();
            let (opcode, data) = match random.below(3) {
                0 => (BINARY, random.bytes(len)),
                1 => (BINARY, random.text(len).into_bytes()),
                _ => (TEXT, random.text(len).into_bytes()),
            };
            let expected = match opcode {
                TEXT => Event::Text(data.clone()),
                _ => Event::Binary(data.clone()),
            };
            let frames = client.fragments(opcode, &data, &mut random);
            let piece = 1 + random.len();
            let received = receive(&mut connection, frames.chunks(piece));
            assert_eq!(received.events, [expected]);
            let mut out = Vec::new();
            let rest = match opcode {
                TEXT => connection.send_text(&data, &mut out),
                _ => connection.send_binary(&data, &mut out),
            };
            out.extend_from_slice(rest);
            assert_eq!(client.receive(&out), (opcode, data));
        }
    }
}

/// Noise, and frames with a byte changed: no panic, and no answer without an end.
#[test]
fn noise() {
    let mut random = Random(7);
    let good = script(&[
        (FIN | TEXT, "κόσμε".as_bytes()),
        (
            FIN | RSV1 | BINARY,
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        ),
        (TEXT, b"a"),
        (FIN | PING, b"b"),
        (FIN | CONTINUATION, &[b'c'; 200]),
        (FIN | CLOSE, b"\x03\xe8"),
    ]);
    for _ in 0..20_000 {
        let mut input = good.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(input.len());
            input[at] = random.below(256) as u8;
        }
        let mut connection = Connection::new(1000, Some(agreement("")));
        let whole = receive(&mut connection, [&input[..]]);
        let mut connection = Connection::new(1000, Some(agreement("")));
        assert_eq!(receive(&mut connection, input.chunks(1)), whole);
        assert!(whole.out.len() <= input.len() + 125);
    }
}

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::random::Random;
use super::*;

/// A client with engines of its own, which go on from message to message as usual.
pub(super) struct Client {
    /// `None` without compression.
    engines: Option<(Compress, Decompress)>,
    no_context_takeover: bool,
}

impl Client {
    pub(super) fn new(parameters: Option<&str>) -> Self {
        let bits = |name| {
            let (_, value) = parameters?.split_once(name)?;
            value
                .split(';')
                .next()?
                .trim_start_matches('=')
                .parse()
                .ok()
        };
        let compress_bits = match parameters {
            Some(parameters) if parameters.ends_with("client_max_window_bits") => 12,
            _ => bits("client_max_window_bits").unwrap_or(15),
        };
        let decompress_bits: u8 = bits("server_max_window_bits").unwrap_or(15);
        let engines = parameters.map(|_| {
            (
                Compress::new_with_window_bits(Compression::new(6), false, compress_bits),
                Decompress::new_with_window_bits(false, decompress_bits),
            )
        });
        Self {
            engines,
            no_context_takeover: parameters.is_some_and(|all| all.contains("client_no")),
        }
    }

    fn compress(&mut self, data: &[u8]) -> Vec<u8> {
        let (compress, _) = self.engines.as_mut().expect("compression");
        if self.no_context_takeover {
            compress.reset();
        }
        let mut compressed = Vec::with_capacity(data.len() * 2 + 100);
        compress
            .compress_vec(data, &mut compressed, FlushCompress::Sync)
            .expect("compressed");
        // zlib flushes nothing twice, so an empty message may have no bytes at all.
        let len = compressed.len().saturating_sub(4);
        compressed.truncate(len);
        compressed
    }

    /// A message in frames.
    pub(super) fn fragments(&mut self, opcode: u8, data: &[u8], random: &mut Random) -> Vec<u8> {
        let compressed =
            (self.engines.is_some() && random.below(4) > 0).then(|| self.compress(data));
        let mut first = opcode | if compressed.is_some() { RSV1 } else { 0 };
        let mut payload = compressed.as_deref().unwrap_or(data);
        let mut frames = Vec::new();
        while random.below(3) > 0 {
            let piece;
            (piece, payload) = payload.split_at(random.below(payload.len() + 1));
            frames.extend(frame(first, piece));
            first = CONTINUATION;
        }
        frames.extend(frame(FIN | first, payload));
        frames
    }

    /// Opcode and content of the one message in `bytes`.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> (u8, Vec<u8>) {
        let mut frames = frames(bytes);
        let Some((first, payload)) = frames.pop().filter(|_| frames.is_empty()) else {
            panic!("more or less than one frame");
        };
        if first & RSV1 == 0 {
            return (first & !FIN, payload);
        }
        let (_, decompress) = self.engines.as_mut().expect("compression");
        let mut data = Vec::with_capacity(MAX_LEN);
        let payload = [&payload[..], &[0, 0, 0xff, 0xff]].concat();
        decompress
            .decompress_vec(&payload, &mut data, FlushDecompress::None)
            .expect("decompressed");
        (first & !FIN & !RSV1, data)
    }
}

fn connection(parameters: &str) -> Connection {
    Connection::new(MAX_LEN, Some(agreement(parameters)))
}

/// What a new connection makes of one compressed text.
fn inflated(payload: &[u8]) -> Vec<Event> {
    let input = frame(FIN | RSV1 | TEXT, payload);
    let whole = receive(&mut connection(""), [&input[..]]);
    assert_eq!(receive(&mut connection(""), input.chunks(1)), whole);
    whole.events
}

fn failed(events: &[Event]) -> u16 {
    match events {
        [Event::Failed(failure)] => failure.code,
        events => panic!("{events:?}"),
    }
}

/// RFC 7692, section 7.2.3, with the second message of 7.2.3.2 referring to the first.
#[test]
fn messages_as_in_the_specification() {
    for payload in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        // A block without compression.
        &[
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ],
        // A final block.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // Two blocks.
        &[
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ],
    ] {
        assert_eq!(inflated(payload), [text("Hello")], "{payload:x?}");
    }
    assert_eq!(inflated(&[0x00]), [text("")]);
    let input = script(&[
        (
            FIN | RSV1 | TEXT,
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        ),
        (FIN | RSV1 | TEXT, &[0xf2, 0x00, 0x11, 0x00, 0x00]),
    ]);
    let both = receive(&mut connection(""), [&input[..]]);
    assert_eq!(both.events, [text("Hello"), text("Hello")]);
    let without = receive(
        &mut connection("; client_no_context_takeover"),
        [&input[..]],
    );
    assert_eq!(without.events[0], text("Hello"));
    assert_eq!(failed(&without.events[1..]), 1007);
}

#[test]
fn final_blocks_may_stand_anywhere() {
    let hello = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflated(&[hello, hello].concat()), [text("HelloHello")]);
    assert_eq!(
        inflated(&[&hello[..], &hello, &[0]].concat()),
        [text("HelloHello")]
    );
    let back = [0xf2, 0x00, 0x11, 0x00, 0x00];
    assert_eq!(
        inflated(&[&hello[..], &back].concat()),
        [text("HelloHello")]
    );
    // Nothing at all, as some send an empty message.
    assert_eq!(inflated(&[]), [text("")]);
}

#[test]
fn broken_data_fails() {
    for payload in [
        // A block type that does not exist.
        &[0x07][..],
        // A block that does not end.
        &[0xf2, 0x48, 0xcd],
        // A length that does not fit its complement.
        &[0x00, 0x05, 0x00, 0xfb, 0xff, 0x48],
        // Further back than there is anything.
        &[0xf2, 0x00, 0x11, 0x00, 0x00],
    ] {
        assert_eq!(failed(&inflated(payload)), 1007, "{payload:x?}");
    }
    // A block that takes for its own what the server appends.
    let input = frame(FIN | RSV1 | BINARY, &[0x00, 0x20, 0x00, 0xdf, 0xff, 0x48]);
    let outcome = receive(&mut connection(""), [&input[..]]);
    assert_eq!(failed(&outcome.events), 1007);
}

#[test]
fn compressed_text_is_utf8_and_fails_at_once() {
    let stored = |text: &[u8]| {
        let len = text.len() as u16;
        [&[0], &len.to_le_bytes()[..], &(!len).to_le_bytes(), text].concat()
    };
    let input = frame(RSV1 | TEXT, &stored(&[b'a', 0xf4, 0x90]));
    let outcome = receive(&mut connection(""), input.chunks(1));
    assert_eq!(failed(&outcome.events), 1007);
    let cut = [&stored(&[b'a', 0xf4])[..], &[0]].concat();
    assert_eq!(failed(&inflated(&cut)), 1007);
}

#[test]
fn only_the_first_frame_of_a_message_says_that_it_is_compressed() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let (first, second) = hello.split_at(3);
    let input = script(&[
        (RSV1 | TEXT, first),
        (FIN | PING, b""),
        (FIN | CONTINUATION, second),
        (FIN | TEXT, b"plain"),
    ]);
    let outcome = receive(&mut connection(""), [&input[..]]);
    assert_eq!(outcome.events, [text("Hello"), text("plain")]);
    let input = script(&[(RSV1 | TEXT, first), (FIN | RSV1 | CONTINUATION, second)]);
    let outcome = receive(&mut connection(""), [&input[..]]);
    assert_eq!(failed(&outcome.events), 1002);
    let outcome = receive(&mut connection(""), [&frame(FIN | RSV1 | PING, b"")[..]]);
    assert_eq!(failed(&outcome.events), 1002);
}

/// A message that is small on the wire only.
#[test]
fn a_bomb_fails_when_the_limit_is_passed() {
    for (len, fails) in [(MAX_LEN, false), (MAX_LEN + 1, true), (9 * MAX_LEN, true)] {
        let zeros = vec![0; len];
        let mut client = Client::new(Some(""));
        let bomb = frame(FIN | RSV1 | BINARY, &client.compress(&zeros));
        let events = receive(&mut connection(""), [&bomb[..]]).events;
        match fails {
            true => assert_eq!(failed(&events), 1009),
            false => assert!(events == [Event::Binary(zeros)]),
        }
    }
}

/// Bytes that do not compress take a little more on the wire, which is not counted.
#[test]
fn the_limit_is_of_the_message_as_it_was() {
    let data = Random(3).bytes(MAX_LEN);
    let mut client = Client::new(Some(""));
    let compressed = client.compress(&data);
    assert!(compressed.len() > MAX_LEN);
    let input = frame(FIN | RSV1 | BINARY, &compressed);
    let outcome = receive(&mut connection(""), [&input[..]]);
    assert!(outcome.events == [Event::Binary(data)]);
}

/// Whether a connection compresses the second of two sendings of `data`.
fn compresses(parameters: &str, data: &[u8]) -> bool {
    let mut connection = connection(parameters);
    connection.send_binary(data, &mut Vec::new());
    let mut out = Vec::new();
    connection.send_binary(data, &mut out);
    out[0] & RSV1 != 0
}

#[test]
fn what_is_small_or_does_not_shrink_is_sent_as_it_is() {
    assert!(!compresses("", &[b'a'; 63]));
    assert!(compresses("", &[b'a'; 64]));
    assert!(!compresses("; server_no_context_takeover", &[b'a'; 1023]));
    assert!(compresses("; server_no_context_takeover", &[b'a'; 1024]));
    let noise = Random(5).bytes(1500);
    assert!(!compresses("", &noise));
}

/// A match further back than a window of 8 bits holds would be what is saved here.
#[test]
fn a_window_of_8_bits_is_kept() {
    let mut random = Random(11);
    let half = random.bytes(200);
    assert!(compresses(
        "; server_max_window_bits=8",
        &[&half[..], &half].concat()
    ));
    for distance in (257..600).step_by(9) {
        let half = random.bytes(distance);
        let twice = [&half[..], &half].concat();
        assert!(
            !compresses("; server_max_window_bits=8", &twice),
            "{distance}"
        );
        assert!(
            compresses("; server_max_window_bits=15", &twice),
            "{distance}"
        );
    }
}

/// The engines are a thread's, the histories a connection's.
#[test]
fn connections_of_a_thread_do_not_meet() {
    let mut random = Random(13);
    let mut pairs: Vec<_> = (0..5)
        .map(|_| {
            (
                connection("; client_max_window_bits"),
                Client::new(Some("; client_max_window_bits")),
            )
        })
        .collect();
    // Halves of messages, so that each has begun one while the others go on.
    let mut halves: Vec<(Vec<u8>, Vec<u8>)> = vec![Default::default(); pairs.len()];
    for _ in 0..200 {
        let at = random.below(pairs.len());
        let (connection, client) = &mut pairs[at];
        let (rest, expected) = std::mem::take(&mut halves[at]);
        if !expected.is_empty() {
            let outcome = receive(connection, [&rest[..]]);
            assert_eq!(outcome.events, [Event::Text(expected.clone())]);
            let mut out = Vec::new();
            let rest = connection.send_text(&expected, &mut out);
            out.extend_from_slice(rest);
            assert_eq!(client.receive(&out), (TEXT, expected));
        }
        let len = 200 + random.below(2000);
        let data = random.text(len).into_bytes();
        let mut first = frame(FIN | RSV1 | TEXT, &client.compress(&data));
        let rest = first.split_off(first.len() / 2);
        assert_eq!(receive(connection, [&first[..]]), Outcome::default());
        halves[at] = (rest, data);
    }
}

/// Autobahn, groups 12 and 13: long messages, between text and noise, one after another, so that
/// the room for the output ends at every place.
#[test]
fn long_messages_of_every_kind() {
    let mut random = Random(17);
    let mut client = Client::new(Some(""));
    let mut connection = connection("");
    for len in [1000, 4096, 8192, 16_384, 32_768, 65_536, 131_072] {
        for noise in [0, 1, 10, 50, 90] {
            let mut data = random.text(len).into_bytes();
            for byte in &mut data {
                if random.below(100) < noise {
                    *byte = random.below(256) as u8;
                }
            }
            let mut out = Vec::new();
            let rest = connection.send_binary(&data, &mut out);
            out.extend_from_slice(rest);
            assert!(client.receive(&out) == (BINARY, data), "{len} {noise}");
        }
    }
}

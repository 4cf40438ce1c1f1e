//! The body of the request, on its way to the loop.

use std::thread;

use envoy::DataStatus;
use envoy::fake::Stream;

use crate::envoy_thread::{self, EnvoyThread, NOTHING, PlayedLoop, Random};
use crate::exchange::{LEAST_COST, REQUEST_WINDOW, WINDOW_STEP};

/// A stream to which the application is slow: it has read nothing of what fills the window.
/// Nothing is kept in Envoy yet.
fn full_window() -> (EnvoyThread, PlayedLoop, Stream) {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body(vec![0; REQUEST_WINDOW], false);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start <262144>"]);
    (envoy, played, stream)
}

#[test]
fn none_is_complete_at_once() {
    let (envoy, mut played) = envoy_thread::start();
    let _stream = envoy.get();
    assert_eq!(played.take(), NOTHING);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start "" end"#]);
    // Nothing brings a second end.
    played.read(0, 0);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn what_arrives_in_one_iteration_is_one_message() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body("ab", false);
    stream.request_body_chunks(&[b"cd", b"", b"e"], false);
    stream.request_body("f", true);
    assert_eq!(envoy.run_events(), 1);
    assert_eq!(played.take(), [r#"0: start "abcdef" end"#]);
    assert_eq!(stream.buffered_request_body_len(), 0);
}

#[test]
fn what_arrives_later_is_given_in_order() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    envoy.run_events();
    stream.request_body_chunks(&[b"ab", b"c"], false);
    stream.request_body("d", false);
    envoy.run_events();
    stream.request_body("e", true);
    envoy.run_events();
    assert_eq!(
        played.take(),
        [
            r#"0: start """#,
            r#"0: body "abc""#,
            r#"0: body "d""#,
            r#"0: body "e" end"#,
        ]
    );
}

#[test]
fn an_empty_piece_is_no_message() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body("", false);
    envoy.run_events();
    stream.request_body("", false);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: start """#]);
}

/// How a body ends, in the hooks' words.
#[derive(Clone, Copy, Debug)]
enum End {
    WithData,
    EmptyPiece,
    Trailers,
}

impl End {
    /// Runs `test` with each of them.
    fn each(test: fn(Self)) {
        for end in [Self::WithData, Self::EmptyPiece, Self::Trailers] {
            let thread = thread::Builder::new().name(format!("{end:?}"));
            let run = thread.spawn(move || test(end)).expect("a thread");
            run.join().expect("the test passes");
        }
    }

    /// Ends the body with `data` as its last piece.
    fn send(self, stream: &Stream, data: &[u8]) {
        stream.request_body(data, matches!(self, Self::WithData));
        match self {
            Self::WithData => {}
            Self::EmptyPiece => {
                stream.request_body("", true);
            }
            Self::Trailers => {
                stream.request_trailers(&[("checksum", "1")]);
            }
        }
    }
}

#[test]
fn its_end_comes_with_the_request_if_that_waits() {
    End::each(|end| {
        let (envoy, mut played) = envoy_thread::start();
        let stream = envoy.post();
        end.send(&stream, b"ab");
        envoy.run_events();
        assert_eq!(played.take(), [r#"0: start "ab" end"#]);
        played.read(0, 2);
        envoy.run_events();
        assert_eq!(played.take(), NOTHING);
    });
}

#[test]
fn its_end_comes_once_after_the_request() {
    End::each(|end| {
        let (envoy, mut played) = envoy_thread::start();
        let stream = envoy.post();
        envoy.run_events();
        end.send(&stream, b"ab");
        envoy.run_events();
        let expected: &[_] = match end {
            End::WithData => &[r#"0: start """#, r#"0: body "ab" end"#],
            _ => &[r#"0: start """#, r#"0: body "ab""#, r#"0: body "" end"#],
        };
        assert_eq!(played.take(), expected);
        played.read(0, 2);
        envoy.run_events();
        assert_eq!(played.take(), NOTHING);
    });
}

#[test]
fn its_end_alone_passes_a_full_window() {
    End::each(|end| {
        let (envoy, mut played, stream) = full_window();
        match end {
            End::WithData => return,
            End::EmptyPiece => drop(stream.request_body("", true)),
            End::Trailers => drop(stream.request_trailers(&[])),
        }
        envoy.run_events();
        assert_eq!(played.take(), [r#"0: body "" end"#]);
    });
}

#[test]
fn its_end_waits_for_what_is_kept_in_envoy() {
    End::each(|end| {
        let (envoy, mut played, stream) = full_window();
        stream.request_body("ab", false);
        end.send(&stream, b"cd");
        envoy.run_events();
        assert_eq!(played.take(), NOTHING);
        played.read(0, 3);
        envoy.run_events();
        assert_eq!(played.take(), [r#"0: body "abc""#]);
        played.read(0, WINDOW_STEP);
        envoy.run_events();
        assert_eq!(played.take(), [r#"0: body "d" end"#]);
        played.read(0, WINDOW_STEP);
        envoy.run_events();
        assert_eq!(played.take(), NOTHING);
    });
}

#[test]
fn its_end_waits_behind_a_request_that_fills_the_window() {
    End::each(|end| {
        let (envoy, mut played) = envoy_thread::start();
        let stream = envoy.post();
        stream.request_body(vec![0; REQUEST_WINDOW], false);
        end.send(&stream, b"ab");
        envoy.run_events();
        assert_eq!(played.take(), ["0: start <262144>"]);
        played.read(0, WINDOW_STEP);
        envoy.run_events();
        assert_eq!(played.take(), [r#"0: body "ab" end"#]);
    });
}

#[test]
fn beyond_the_window_stays_in_envoy() {
    let (envoy, mut played, stream) = full_window();
    let status = stream.request_body(vec![1; 1000], false);
    assert_eq!(status, DataStatus::StopIterationAndWatermark);
    assert_eq!(stream.buffered_request_body_len(), 1000);
    // Envoy's own limit, which stops the client.
    let rest = usize::try_from(stream.buffer_limit()).expect("1 MiB");
    stream.request_body(vec![1; rest], false);
    assert!(!stream.is_reading());
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
}

#[test]
fn the_piece_that_fills_the_window_is_given_whole() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    stream.request_body(vec![0; REQUEST_WINDOW - 1], false);
    stream.request_body(vec![1; 1000], false);
    stream.request_body(vec![2; 1000], false);
    assert_eq!(stream.buffered_request_body_len(), 1000);
    envoy.run_events();
    assert_eq!(played.take(), ["0: start <263143>"]);
    // There is no room before the application is below the window again.
    played.read(0, 999);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    played.read(0, 1);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: body "\u{2}""#]);
}

#[test]
fn short_pieces_count_for_what_they_cost() {
    let (envoy, mut played) = envoy_thread::start();
    let stream = envoy.post();
    envoy.run_events();
    played.take();
    let most = REQUEST_WINDOW / LEAST_COST;
    for _ in 0..most + 5 {
        stream.request_body("x", false);
    }
    assert_eq!(stream.buffered_request_body_len(), 5);
    envoy.run_events();
    assert_eq!(played.take().len(), most);
    // The loop has joined them.
    played.read(0, most * (LEAST_COST - 1));
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: body "xxxxx""#]);
}

#[test]
fn what_is_read_makes_room_for_as_much() {
    let (envoy, mut played, stream) = full_window();
    let kept: Vec<u8> = (0..=250).cycle().take(3 * REQUEST_WINDOW).collect();
    for piece in kept.chunks(10_000) {
        stream.request_body(piece, false);
    }
    assert_eq!(stream.buffered_request_body_len(), kept.len());
    for _ in 0..3 {
        // Several reads of one iteration, which are several pulls.
        played.read(0, WINDOW_STEP);
        played.read(0, REQUEST_WINDOW - WINDOW_STEP);
        envoy.run_events();
        assert_eq!(played.take(), ["0: body <65536>", "0: body <196608>"]);
    }
    assert_eq!(stream.buffered_request_body_len(), 0);
    assert!(played.exchanges[0].body[REQUEST_WINDOW..] == kept);
}

#[test]
fn a_read_gives_no_more_than_the_window() {
    let (envoy, mut played, stream) = full_window();
    stream.request_body(vec![1; 2 * REQUEST_WINDOW], false);
    played.read(0, REQUEST_WINDOW + 1000);
    envoy.run_events();
    assert_eq!(played.take(), ["0: body <262144>"]);
    assert_eq!(stream.buffered_request_body_len(), REQUEST_WINDOW);
}

#[test]
fn a_read_with_nothing_kept_is_no_message() {
    let (envoy, mut played, stream) = full_window();
    played.read(0, REQUEST_WINDOW);
    envoy.run_events();
    assert_eq!(played.take(), NOTHING);
    // It has made room all the same.
    stream.request_body("ab", true);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: body "ab" end"#]);
}

#[test]
fn what_arrives_while_some_is_kept_stays_behind_it() {
    let (envoy, mut played, stream) = full_window();
    stream.request_body("ab", false);
    played.read(0, 1);
    envoy.run_events();
    // There is room again, but not before the "b".
    played.read(0, WINDOW_STEP);
    stream.request_body("cd", true);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: body "a""#, r#"0: body "bcd" end"#]);
}

#[test]
fn what_envoy_reads_inside_the_drain_stays_behind_what_was_pulled() {
    let (envoy, mut played, stream) = full_window();
    stream.set_buffer_limit(4);
    stream.client_sends("abcde", false);
    assert!(!stream.is_reading());
    stream.client_sends("fg", false);
    stream.client_sends("h", true);
    played.read(0, WINDOW_STEP);
    envoy.run_events();
    assert_eq!(
        played.take(),
        [
            r#"0: body "abcde""#,
            r#"0: body "fg""#,
            r#"0: body "h" end"#
        ]
    );
}

#[test]
fn what_envoy_reads_inside_the_drain_stays_behind_what_is_still_kept() {
    let (envoy, mut played, stream) = full_window();
    stream.set_buffer_limit(8);
    stream.client_sends("0123456789", false);
    assert!(!stream.is_reading());
    stream.client_sends("ab", true);
    // Three bytes are left, so Envoy reads again.
    played.read(0, 7);
    envoy.run_events();
    assert!(stream.is_reading());
    assert_eq!(played.take(), [r#"0: body "0123456""#]);
    played.read(0, WINDOW_STEP);
    envoy.run_events();
    assert_eq!(played.take(), [r#"0: body "789ab" end"#]);
}

/// Whatever the client sends when, and whenever the application reads: it gets all of it in order
/// with one end, never has more than the window and one piece unread, and nothing gets stuck.
#[test]
fn arrives_as_it_was_sent_in_whatever_pieces_and_turns() {
    let mut random = Random::new(0x5eed);
    let noise: Vec<u8> = std::iter::repeat_with(|| random.byte())
        .take(1 << 21)
        .collect();
    let (envoy, mut played) = envoy_thread::start();
    for exchange in 0..150 {
        let largest_piece = [10, 5_000, 100_000, 1_000_000][random.below(4)];
        let body = &noise[..random.below(noise.len().min(200 * largest_piece))];
        let mut transfer = Transfer {
            envoy: &envoy,
            stream: envoy.post(),
            exchange,
            rest: body,
            read: 0,
            unreported: 0,
            excess: 0,
            ended: false,
        };
        transfer
            .stream
            .set_buffer_limit([1 << 10, 1 << 16, 1 << 20][random.below(3)]);
        let mut steps = 0;
        while !transfer.is_received(&played) {
            steps += 1;
            assert!(steps < 100_000, "stuck");
            match random.below(4) {
                0 => transfer.client_sends(&mut random, largest_piece),
                1 => transfer.application_reads(&played, &mut random),
                _ => transfer.turn(&mut played),
            }
            let unread = transfer.given(&played) - transfer.read - transfer.unreported;
            assert!(unread < REQUEST_WINDOW + largest_piece);
        }
        transfer.turn(&mut played);
        assert!(played.exchanges[exchange].body == body, "{exchange}");
    }
}

/// One body on its way.
struct Transfer<'a> {
    envoy: &'a EnvoyThread,
    stream: Stream,
    exchange: usize,
    /// What the client has not sent.
    rest: &'a [u8],
    /// The client has sent all.
    ended: bool,
    /// Bytes that the application has taken and Envoy's side was told of.
    read: usize,
    /// Bytes that it has taken besides.
    unreported: usize,
    /// What short pieces counted for beyond their bytes, as far as Envoy's side was told.
    excess: usize,
}

impl Transfer<'_> {
    fn client_sends(&mut self, random: &mut Random, largest_piece: usize) {
        if self.ended {
            return;
        }
        let length = random.below(largest_piece + 1).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(length);
        let is_last = rest.is_empty();
        // The last data may be the end, or be followed by an empty end, or by trailers. These Envoy
        // gives once it has given all that comes before them.
        let trailers = is_last && random.once_in(3) && self.stream.is_reading();
        self.rest = rest;
        self.ended = is_last && (trailers || random.once_in(2));
        self.stream.client_sends(piece, self.ended && !trailers);
        if trailers {
            self.stream.request_trailers(&[]);
        }
    }

    /// As an application that takes what there is, or some of it, does by way of `receive`.
    fn application_reads(&mut self, played: &PlayedLoop, random: &mut Random) {
        let unread = self.given(played) - self.read - self.unreported;
        self.unreported += if random.once_in(2) {
            unread
        } else {
            random.below(unread + 1)
        };
        let Some(exchange) = played.exchanges.get(self.exchange) else {
            return;
        };
        let excess = exchange.excess - self.excess;
        if self.unreported + excess >= WINDOW_STEP && !exchange.complete {
            played.read(self.exchange, self.unreported + excess);
            self.read += std::mem::take(&mut self.unreported);
            self.excess = exchange.excess;
        }
    }

    fn turn(&self, played: &mut PlayedLoop) {
        self.envoy.run_events();
        played.take();
    }

    fn given(&self, played: &PlayedLoop) -> usize {
        let exchange = played.exchanges.get(self.exchange);
        exchange.map_or(0, |exchange| exchange.body.len())
    }

    fn is_received(&self, played: &PlayedLoop) -> bool {
        let exchange = played.exchanges.get(self.exchange);
        exchange.is_some_and(|exchange| exchange.complete)
    }
}

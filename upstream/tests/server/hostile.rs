//! Clients that mean no good, or look as if they did.

use std::time::Duration;

use super::GET;
use super::support::{Client, LARGE, Server};

#[test]
fn a_client_that_goes_while_nothing_is_read_is_noticed() {
    let server = Server::start();
    // More than is read ahead, and less than the system takes: behind what it does not take there is no end to see.
    let requests = GET.repeat(4500);
    let body = "x".repeat(90_000);
    for reset in [false, true] {
        for (head, more) in [
            ("GET /hold HTTP/1.1\r\nhost: a\r\n\r\n", &requests),
            (
                "POST /pause HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n",
                &body,
            ),
        ] {
            let mut client = Client::connect(&server);
            client.write(head);
            client.write(more);
            server.wait_for_requests(1);
            client.leave(reset);
            server.wait_for_gone(1);
        }
    }
}

#[test]
fn who_does_not_take_responses_asks_for_no_more_of_them() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    let count = 6;
    client.write(&"GET /large HTTP/1.1\r\nhost: a\r\n\r\n".repeat(count));
    // When another client is answered, the first has had its turn.
    for _ in 0..2 {
        let mut other = Client::connect(&server);
        other.write(GET);
        assert_eq!(other.response(), (200, "hello".into()));
    }
    // Two of them may have gone to the system.
    let begun = server.requests() - 2;
    assert!((1..=3).contains(&begun), "{begun}");
    for _ in 0..count {
        assert_eq!(client.head().0, 200);
        client.read_bytes(LARGE);
    }
    assert_eq!(server.requests(), count - begun);
}

#[test]
fn empty_lines_do_not_keep_a_connection() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.write_until_closed(b"\r\n");
}

#[test]
fn half_an_empty_line_is_no_head_that_is_slow() {
    let server = Server::start();
    let mut client = Client::connect(&server);
    client.write("\r\n\r");
    assert!(client.is_closed());
}

#[test]
fn half_a_preface_does_not_keep_a_connection() {
    let server = Server::start_with(|settings| settings.timeout_keep_alive = Duration::ZERO);
    let mut client = Client::connect(&server);
    client.write("PRI * HTTP/2.0\r\n");
    assert!(client.is_closed());
}

mod http2 {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    const ACK: u8 = 1;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [head, payload.to_vec()].concat()
    }

    /// `:method`, `:scheme`, `:authority` and `:path` (RFC 7541): the static table has GET, POST and http.
    fn block(method: u8, path: &str) -> Vec<u8> {
        let length = u8::try_from(path.len()).expect("short");
        let fields = [
            &[method, 0x86, 0x01, 1, b'a', 0x04, length],
            path.as_bytes(),
        ];
        fields.concat()
    }

    fn get(stream: u32, path: &str) -> Vec<u8> {
        let flags = END_HEADERS | END_STREAM;
        frame(HEADERS, flags, stream, &block(0x82, path))
    }

    fn post(stream: u32, path: &str) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &block(0x83, path))
    }

    fn begin() -> Vec<u8> {
        [PREFACE.to_vec(), frame(SETTINGS, 0, 0, &[])].concat()
    }

    /// The next frame: its kind, stream and payload.
    fn next(client: &mut Client) -> (u8, u32, Vec<u8>) {
        let head: [u8; 9] = client.read_bytes(9).try_into().expect("nine");
        let [high, middle, low, kind, _, stream @ ..] = head;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        (kind, u32::from_be_bytes(stream), client.read_bytes(length))
    }

    /// The next frame of a kind.
    fn next_of(client: &mut Client, wanted: u8) -> (u32, Vec<u8>) {
        loop {
            let (kind, stream, payload) = next(client);
            if kind == wanted {
                return (stream, payload);
            }
        }
    }

    /// The code of GOAWAY.
    fn code(payload: &[u8]) -> u32 {
        let code = payload[4..8].try_into().expect("four");
        u32::from_be_bytes(code)
    }

    const PROTOCOL_ERROR: u32 = 1;
    const INTERNAL_ERROR: u32 = 2;
    const FLOW_CONTROL_ERROR: u32 = 3;
    const ENHANCE_YOUR_CALM: u32 = 11;

    #[test]
    fn frames_may_come_in_any_pieces() {
        let server = Server::start();
        let mut all = begin();
        all.extend(get(1, "/hello"));
        all.extend(frame(SETTINGS, ACK, 0, &[]));
        all.extend(get(3, "/hello"));
        all.extend(frame(PING, 0, 0, b"12345678"));
        for size in [1, 2, 3, 8, 9, 10, 23, 24, 25, 33, 50, 200] {
            let mut client = Client::connect(&server);
            for piece in all.chunks(size) {
                client.write_bytes(piece);
            }
            assert_eq!(next_of(&mut client, HEADERS).0, 1, "{size}");
            assert_eq!(next_of(&mut client, HEADERS).0, 3, "{size}");
            // As it goes on when all is acknowledged.
            client.write_bytes(&get(5, "/hello"));
            assert_eq!(next_of(&mut client, HEADERS).0, 5, "{size}");
        }
    }

    #[test]
    fn settings_come_first() {
        let server = Server::start();
        for first in [
            get(1, "/hello"),
            frame(PING, 0, 0, b"12345678"),
            frame(SETTINGS, ACK, 0, &[]),
        ] {
            let all = [PREFACE, &first, &get(1, "/hello")].concat();
            for size in [1, 24, 30, all.len()] {
                let mut client = Client::connect(&server);
                for piece in all.chunks(size) {
                    client.write_bytes(piece);
                }
                let (_, payload) = next_of(&mut client, GOAWAY);
                assert_eq!(code(&payload), PROTOCOL_ERROR, "{first:?} at {size}");
                assert!(client.is_closed());
            }
        }
        assert_eq!(server.requests(), 0);
    }

    #[test]
    fn limits_hold_for_who_does_not_acknowledge_them() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write_bytes(&begin());
        let mut head = block(0x82, "/hello");
        // A literal field of 30,000 bytes.
        head.extend_from_slice(&[0, 1, b'x', 0x7f, 0xb1, 0xe9, 0x01]);
        head.extend(std::iter::repeat_n(b'y', 30_000));
        let (first, rest) = head.split_at(16_000);
        client.write_bytes(&frame(HEADERS, END_STREAM, 1, first));
        client.write_bytes(&frame(CONTINUATION, END_HEADERS, 1, rest));
        assert_eq!(next_of(&mut client, HEADERS).0, 1);
        client.write_bytes(&get(3, "/hello"));
        assert_eq!(next_of(&mut client, HEADERS).0, 3);
        assert_eq!(server.requests(), 1);
    }

    #[test]
    fn who_says_of_each_frame_that_it_was_taken_gets_all() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        // A window that is never used up (RFC 9113, section 6.5.2, SETTINGS_INITIAL_WINDOW_SIZE).
        let window = [&[0, 4][..], &(1_u32 << 30).to_be_bytes()].concat();
        client.write_bytes(&[PREFACE.to_vec(), frame(SETTINGS, 0, 0, &window)].concat());
        client.write_bytes(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()));
        for stream in (1..40).step_by(2) {
            client.write_bytes(&get(stream, "/large"));
            let mut taken = 0;
            while taken < LARGE {
                let (kind, of, payload) = next(&mut client);
                assert_ne!(kind, GOAWAY, "after {taken} bytes of {of}");
                if kind != DATA || payload.is_empty() {
                    continue;
                }
                taken += payload.len();
                let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
                for stream in [0, stream] {
                    client.write_bytes(&frame(WINDOW_UPDATE, 0, stream, &length));
                }
            }
        }
    }

    #[test]
    fn who_sends_beyond_the_window_is_told_so() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write_bytes(&begin());
        client.write_bytes(&post(1, "/pause"));
        server.wait_for_requests(1);
        client.write_bytes(&frame(DATA, 0, 1, b"x"));
        // The window and what was read before the service said that it has enough.
        for _ in 0..20 {
            client.write_bytes(&frame(DATA, 0, 1, &[b'x'; 16_000]));
        }
        loop {
            match next(&mut client) {
                (RST_STREAM, 1, code) => break assert_eq!(code, FLOW_CONTROL_ERROR.to_be_bytes()),
                (GOAWAY, _, payload) => break assert_eq!(code(&payload), FLOW_CONTROL_ERROR),
                _ => {}
            }
        }
        server.wait_for_gone(1);
    }

    /// CVE-2023-44487, at a pace at which each request is begun.
    #[test]
    fn who_takes_requests_back_all_the_time_is_sent_away() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write_bytes(&begin());
        let mut reader = client.again();
        let sent_away = std::thread::spawn(move || next_of(&mut reader, GOAWAY).1);
        let mut count = 0;
        loop {
            let stream = 2 * count + 1;
            client.write_bytes(&get(stream, "/hold"));
            while server.requests() == 0 && !sent_away.is_finished() {
                std::thread::sleep(Duration::from_micros(100));
            }
            if sent_away.is_finished() {
                break;
            }
            client.write_bytes(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            count += 1;
            assert!(count < 2000, "it goes on");
        }
        assert!(count > 400, "{count}");
        assert_eq!(code(&sent_away.join().expect("told")), ENHANCE_YOUR_CALM);
    }

    #[test]
    fn responses_make_up_for_what_clients_say_of_them() {
        let server = Server::start();
        let mut client = Client::connect(&server);
        client.write_bytes(&begin());
        for number in 0..2000 {
            let stream = 2 * number + 1;
            client.write_bytes(&get(stream, "/hello"));
            for _ in 0..5 {
                client.write_bytes(&frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()));
            }
            assert_eq!(next_of(&mut client, HEADERS).0, stream);
        }
    }

    #[test]
    fn who_takes_nothing_is_let_go() {
        let server = Server::start_with(|settings| settings.timeout_idle /= 20);
        let open = 0x7fff_0000_u32.to_be_bytes();
        let window = [&[0, 4], &open[..]].concat();
        let mut client = Client::connect(&server);
        client.write_bytes(PREFACE);
        client.write_bytes(&frame(SETTINGS, 0, 0, &window));
        client.write_bytes(&frame(WINDOW_UPDATE, 0, 0, &open));
        client.write_bytes(&get(1, "/large"));
        server.wait_for_requests(1);
        client.write_until_closed(&frame(PING, 0, 0, b"12345678"));
    }

    #[test]
    fn who_opens_no_window_is_let_go() {
        let server = Server::start_with(|settings| settings.timeout_idle /= 20);
        let mut client = Client::connect(&server);
        client.write_bytes(&begin());
        client.write_bytes(&get(1, "/large"));
        let (stream, code) = next_of(&mut client, RST_STREAM);
        assert_eq!((stream, code), (1, INTERNAL_ERROR.to_be_bytes().to_vec()));
    }
}

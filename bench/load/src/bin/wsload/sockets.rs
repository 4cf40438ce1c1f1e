//! All connections together, in one thread.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use load::{Arguments, Figures};
use mio::{Events, Interest, Poll, Token};

use crate::case::Case;
use crate::connection::Connection;
use crate::error::Error;

/// What is read at once at most: any message of the benchmark, and then some.
const RECEIVE: usize = 1 << 18;

pub(crate) struct Load {
    pub arguments: Arguments,
    pub case: Case,
    /// How long the server may be silent on all connections.
    pub patience: Duration,
}

impl Load {
    pub(crate) fn run(&self) -> Result<Figures, Error> {
        let mut poll = Poll::new()?;
        let count = self.arguments.connections;
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            let mut connection = Connection::open(self.arguments.port, &self.case, self.patience)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut connection.stream, Token(number), both)?;
            connections.push(connection);
        }
        let mut events = Events::with_capacity(count);
        let mut buffer = vec![0; RECEIVE];
        let mut times = Vec::new();
        let begin = Instant::now();
        let mut last = begin;
        for connection in &mut connections {
            connection.ask(&self.case, Instant::now())?;
        }
        while self.arguments.go_on(last - begin, times.len()) {
            match poll.poll(&mut events, Some(self.patience)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            if events.is_empty() {
                return Err(Error::Silent(self.patience));
            }
            for event in &events {
                let connection = &mut connections[event.token().0];
                if event.is_writable() {
                    connection.flush()?;
                }
                if event.is_readable() || event.is_error() {
                    let ends = event.is_read_closed();
                    connection.receive(&self.case, &mut buffer, ends, &mut |now, time| {
                        last = now;
                        times.push(time);
                    })?;
                }
            }
        }
        Ok(Figures::of(times, last - begin))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::PathBuf;
    use std::thread;

    use super::*;

    const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";
    const DEFLATED: &[u8] =
        b"HTTP/1.1 101 \r\nsec-websocket-extensions: permessage-deflate\r\n\r\n";

    /// "hello" in a masked text frame, and as it comes back.
    const MESSAGE: &[u8] = b"\x81\x85\0\0\0\0hello";
    const ANSWER: &[u8] = b"\x81\x05hello";

    /// The load of two messages, one after the other, on a server that does what `server` does.
    fn load(
        message: &[u8],
        server: impl FnOnce(&mut TcpStream) + Send + 'static,
    ) -> Result<Figures, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the load connects");
            expect(&mut stream, b"GET /\r\n\r\n");
            server(&mut stream);
        });
        let load = Load {
            arguments: Arguments {
                port,
                folder: PathBuf::new(),
                connections: 1,
                duration: None,
                requests: Some(2),
            },
            case: Case {
                handshake: b"GET /\r\n\r\n".to_vec(),
                message: message.to_vec(),
                answer: b"hello".to_vec(),
            },
            patience: Duration::from_millis(200),
        };
        let result = load.run();
        server.join().expect("the server sees what it expects");
        result
    }

    /// The same, with a server that answers `pieces` to the first message and waits for the end.
    fn answer(pieces: &'static [&[u8]]) -> Result<Figures, Error> {
        load(MESSAGE, |stream| {
            send(stream, UPGRADED);
            expect(stream, MESSAGE);
            pieces.iter().for_each(|piece| send(stream, piece));
            wait_for_end(stream);
        })
    }

    fn expect(stream: &mut TcpStream, data: &[u8]) {
        let mut got = vec![0; data.len()];
        stream.read_exact(&mut got).expect("the load is connected");
        assert_eq!(
            got.escape_ascii().to_string(),
            data.escape_ascii().to_string()
        );
    }

    fn send(stream: &mut TcpStream, data: &[u8]) {
        stream.write_all(data).expect("the load is connected");
    }

    /// It may be that of a socket which was closed before everything was read.
    fn wait_for_end(stream: &mut TcpStream) {
        while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    }

    fn message_of(result: Result<Figures, Error>) -> String {
        result
            .expect_err("the server did something wrong")
            .to_string()
    }

    #[test]
    fn answers_are_counted_in_pieces_of_any_size() {
        let result = load(MESSAGE, |stream| {
            send(stream, UPGRADED);
            stream.set_nodelay(true).expect("it is a socket");
            expect(stream, MESSAGE);
            for byte in ANSWER {
                send(stream, &[*byte]);
                thread::yield_now();
            }
            expect(stream, MESSAGE);
            send(stream, ANSWER);
            wait_for_end(stream);
        });
        assert_eq!(result.expect("both are right").requests, 2);
    }

    #[test]
    fn pings_get_pongs() {
        let result = load(MESSAGE, |stream| {
            send(stream, UPGRADED);
            expect(stream, MESSAGE);
            send(stream, b"\x89\x02hi");
            expect(stream, b"\x8a\x82\0\0\0\0hi");
            send(stream, &[b"\x89\0", ANSWER, b"\x89\0"].concat());
            expect(stream, b"\x8a\x80\0\0\0\0");
            expect(stream, MESSAGE);
            expect(stream, b"\x8a\x80\0\0\0\0");
            send(stream, ANSWER);
            wait_for_end(stream);
        });
        assert_eq!(result.expect("both are right").requests, 2);
    }

    #[test]
    fn a_message_waits_for_room_in_the_socket() {
        // More than the kernel takes at once.
        let message = vec![0x81; 1 << 24];
        let length = message.len();
        let result = load(&message, move |stream| {
            send(stream, UPGRADED);
            for _ in 0..2 {
                let mut got = vec![0; length];
                stream.read_exact(&mut got).expect("the load is connected");
                send(stream, ANSWER);
            }
            wait_for_end(stream);
        });
        assert_eq!(result.expect("both are right").requests, 2);
    }

    #[test]
    fn compressed_answers_are_not_compared() {
        let result = load(b"\xc1\x82\0\0\0\0hi", |stream| {
            send(stream, DEFLATED);
            expect(stream, b"\xc1\x82\0\0\0\0hi");
            send(stream, b"\xc1\x03any");
            expect(stream, b"\xc1\x82\0\0\0\0hi");
            send(stream, ANSWER);
            wait_for_end(stream);
        });
        assert_eq!(result.expect("both are right").requests, 2);
    }

    #[test]
    fn a_server_that_closes_is_an_error() {
        let result = load(MESSAGE, |stream| {
            send(stream, UPGRADED);
            expect(stream, MESSAGE);
            send(stream, b"\x81\x05he");
        });
        assert_eq!(message_of(result), "the server closed a connection");
        assert_eq!(
            message_of(answer(&[b"\x88\x08\x03\xf3failed"])),
            "the server closed a connection with a close frame: `1011 failed`"
        );
    }

    #[test]
    fn an_end_right_behind_an_answer_is_seen() {
        let result = load(MESSAGE, |stream| {
            send(stream, UPGRADED);
            expect(stream, MESSAGE);
            send(stream, ANSWER);
        });
        // An end or a reset, as the next message came after it or before.
        result.expect_err("one message was not answered");
    }

    #[test]
    fn wrong_answers_are_errors() {
        let wrong: [(&[&[u8]], &str); 5] = [
            (
                &[b"\x82\x05hello"],
                "expected a frame that begins with `0x81`, got `0x82`",
            ),
            (
                &[b"\xc1\x05hello"],
                "expected a frame that begins with `0x81`, got `0xc1`",
            ),
            (
                &[b"\x81\x04hell"],
                "expected a message of 5 bytes, got one of 4",
            ),
            (
                &[b"\x81", b"\x05hel", b"lO"],
                "expected the message that was sent, got another one",
            ),
            (
                &[b"\x89\x7e\0\x7e"],
                "expected a control frame of 125 bytes at most, got one of 126",
            ),
        ];
        for (pieces, why) in wrong {
            assert_eq!(message_of(answer(pieces)), why);
        }
    }

    #[test]
    fn silence_is_an_error() {
        assert_eq!(message_of(answer(&[])), "no answer in 0.2 s");
        assert_eq!(
            message_of(load(MESSAGE, wait_for_end)),
            "no answer in 0.2 s"
        );
    }

    #[test]
    fn a_refused_handshake_is_an_error() {
        let refused = load(MESSAGE, |stream| {
            send(stream, b"HTTP/1.1 403 Forbidden\r\n\r\n")
        });
        let why = r"expected a handshake without compression, got `HTTP/1.1 403 Forbidden\r\n\r\n`";
        assert_eq!(message_of(refused), why);
        let compressed = load(MESSAGE, |stream| send(stream, DEFLATED));
        assert!(message_of(compressed).starts_with("expected a handshake without compression"));
        let plain = load(b"\xc1\x80\0\0\0\0", |stream| send(stream, UPGRADED));
        assert!(message_of(plain).starts_with("expected a handshake with compression"));
    }
}

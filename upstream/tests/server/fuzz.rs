//! Requests with random faults, in random pieces: nobody panics or waits, and the answer does not depend on the pieces.

use super::support::{Client, Server};

const CASES: u64 = 400;

const REQUESTS: &[&str] = &[
    "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n",
    "GET http://b/where?x=y HTTP/1.1\r\nHost: a\r\nx: 1,\t2\r\n\r\n",
    "HEAD /hello HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    "POST /echo HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
    "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nt: u\r\n\r\n",
    "POST /early HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
];

/// What faults are made of.
const PIECES: &[&str] = &[
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "\0",
    "0",
    "f",
    "\u{7f}",
    "\u{e9}",
    "content-length: 3\r\n",
    "content-length: 03\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: gzip\r\n",
    "host: b\r\n",
    "connection: close\r\n",
    " folded\r\n",
    "HTTP/1.1",
    "HTTP/2.0",
    "0\r\n\r\n",
    "GET /hello HTTP/1.1\r\nhost: a\r\n\r\n",
];

/// Xorshift: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 32).expect("of 32 bits") % end
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a [u8] {
        all[self.below(all.len())].as_bytes()
    }

    /// Some requests behind each other, with a few faults.
    fn requests(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..=self.below(3) {
            bytes.extend_from_slice(self.of(REQUESTS));
        }
        self.spoil(&mut bytes);
        bytes
    }

    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(4)).min(bytes.len());
            match self.below(4) {
                0 => drop(bytes.splice(at..at, self.of(PIECES).iter().copied())),
                1 => drop(bytes.drain(at..end)),
                2 => bytes[at] = u8::try_from(self.below(256)).expect("a byte"),
                _ => drop(bytes.splice(at..end, self.of(PIECES).iter().copied())),
            }
        }
    }

    /// Where it is cut.
    fn pieces<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let most = 1 + self.below(40);
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at((1 + self.below(most)).min(bytes.len()));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}

/// All that is answered but for the date, and how many requests the service has seen.
fn answers(server: &Server, pieces: &[&[u8]]) -> (String, usize) {
    let mut client = Client::connect(server);
    for piece in pieces {
        client.write_bytes(piece);
    }
    client.end();
    let answers = client.all_bytes();
    let answers = String::from_utf8_lossy(&answers);
    let lines = answers.split_inclusive("\r\n");
    let undated = lines.filter(|line| !line.starts_with("date: "));
    (undated.collect(), server.requests())
}

#[test]
fn requests_with_faults_have_one_answer_however_they_are_cut() {
    let server = Server::start();
    for seed in 1..=CASES {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let bytes = random.requests();
        let shown = String::from_utf8_lossy(&bytes);
        let whole = answers(&server, &[&bytes]);
        for _ in 0..2 {
            let pieces = random.pieces(&bytes);
            assert_eq!(answers(&server, &pieces), whole, "seed {seed}: {shown:?}");
        }
        // After a refusal nothing is answered and nobody called.
        let (text, _) = &whole;
        if let Some(refusal) = text.find("HTTP/1.1 4") {
            let behind = &text[refusal + 1..];
            assert!(!behind.contains("HTTP/1.1 "), "seed {seed}: {shown:?}");
        }
    }
}

#[test]
fn frames_with_faults_do_no_harm() {
    let server = Server::start();
    let mut good = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    let head = b"\0\0\x0d\x01\x04\0\0\0\x01\x83\x86\x01\x01a\x04\x05/echo";
    let body = b"\0\0\x05\0\x01\0\0\0\x01hello";
    let next = b"\0\0\x0e\x01\x05\0\0\0\x03\x82\x86\x01\x01a\x04\x06/hello";
    for part in [&settings[..], &acknowledged, head, body, next] {
        good.extend_from_slice(part);
    }
    let preface = 24;
    for seed in 1..=CASES {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut frames = good[preface..].to_vec();
        random.spoil(&mut frames);
        let bytes = [&good[..preface], &frames].concat();
        let mut client = Client::connect(&server);
        for piece in random.pieces(&bytes) {
            client.write_bytes(piece);
        }
        client.end();
        client.all_bytes();
    }
    let mut client = Client::connect(&server);
    client.write(super::GET);
    assert_eq!(client.response(), (200, "hello".into()));
}

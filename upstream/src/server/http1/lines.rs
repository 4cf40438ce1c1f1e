//! Runs on: network thread; pure.
//!
//! The head of a response as it is written: RFC 9112, section 4.

use std::io::Write as _;

/// The head of a response but for the service's fields.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) status: u16,
    pub(super) framed: Framed,
    pub(super) closes: bool,
    /// The client has to be told that it may go on.
    pub(super) keeps: bool,
}

/// How the body is framed, if the service's fields don't say it.
#[derive(Default)]
pub(super) enum Framed {
    Already,
    Length(usize),
    Chunks,
    Upgraded,
    #[default]
    Empty,
}

impl Lines {
    pub(super) fn write<'a>(
        &self,
        out: &mut Vec<u8>,
        fields: &mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a),
        date: &[u8],
    ) {
        write_status(out, self.status);
        let mut dated = false;
        fields.for_each(|(name, value)| {
            dated |= name == b"date";
            write_field(out, name, value);
        });
        if !dated {
            write_field(out, b"date", date);
        }
        match self.framed {
            Framed::Already => {}
            Framed::Length(length) => {
                let _ = write!(out, "content-length: {length}\r\n");
            }
            Framed::Chunks => write_field(out, b"transfer-encoding", b"chunked"),
            Framed::Empty => write_field(out, b"content-length", b"0"),
            Framed::Upgraded => {
                out.extend_from_slice(b"\r\n");
                return;
            }
        }
        if self.closes {
            write_field(out, b"connection", b"close");
        } else if self.keeps {
            write_field(out, b"connection", b"keep-alive");
        }
        out.extend_from_slice(b"\r\n");
    }
}

pub(super) fn write_status(out: &mut Vec<u8>, status: u16) {
    let known = http::StatusCode::from_u16(status).ok();
    let reason = known
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unknown");
    let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n");
}

pub(super) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

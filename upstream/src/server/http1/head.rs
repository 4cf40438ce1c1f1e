//! Runs on: network thread; pure.
//!
//! The head of a request of HTTP/1 (RFC 9112), and what it says of the body behind it. What two readers could
//! understand differently is refused: that is how requests are smuggled (RFC 9112, section 11.2).

use crate::server::{Fields, Head, Refusal, Version, decimal};

/// The fields that a head may have, whatever the service's own limit is.
pub(super) const MOST_FIELDS: usize = 1024;

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What the head says to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// What follows.
    pub(super) framing: Framing,
    /// The client wants to go on with the connection.
    pub(super) keep_alive: bool,
    /// The method is HEAD.
    pub(super) head_only: bool,
    /// The version.
    pub(super) version: Version,
    /// The client waits for `100 Continue`.
    pub(super) expects_continue: bool,
    /// The client asks for a WebSocket.
    pub(super) websocket: bool,
}

/// What there is of a head in some bytes.
pub(super) enum Parsed<R> {
    /// All of it, in so many bytes, and what the caller has made of it.
    Complete(usize, R),
    /// More has to come.
    Partial,
}

/// How much of a head has been looked at.
///
/// What comes byte by byte would else be parsed as often. It is parsed when its end is there, and before that when it
/// has grown twofold: so all of it is read a few times, and what is no head is seen soon.
#[derive(Debug, Default)]
pub(super) struct Progress {
    searched: usize,
    parsed: usize,
}

impl Progress {
    /// Whether the head, of which `bytes` have come, is to be parsed now.
    pub(super) fn is_due(&mut self, bytes: &[u8]) -> bool {
        let begin = self.searched.saturating_sub(2);
        self.searched = bytes.len();
        let due = bytes.len() >= 2 * self.parsed || has_end(&bytes[begin..]);
        if due {
            self.parsed = bytes.len();
        }
        due
    }
}

/// Whether there is an empty line.
fn has_end(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&byte| byte == b'\n').skip(1);
    let Some(mut line) = lines.next() else {
        return false;
    };
    // What is behind the last LF is no line yet.
    lines.any(|next| matches!(std::mem::replace(&mut line, next), [] | [b'\r']))
}

/// Without the empty lines that a client may send behind a body (RFC 9112, section 2.2).
///
/// A CR alone is none, and stays.
pub(super) fn skip_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Reads a head from the beginning of `bytes`, and has `read` see it.
pub(super) fn parse<R>(
    bytes: &[u8],
    limit: usize,
    read: impl FnOnce(&Head<'_>, Said) -> R,
) -> Result<Parsed<R>, Refusal> {
    let mut room = [const { std::mem::MaybeUninit::uninit() }; 64];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut room) {
        Ok(httparse::Status::Complete(length)) => {
            let (parsed, said) = check(&request, &bytes[..length], limit)?;
            Ok(Parsed::Complete(length, read(&parsed, said)))
        }
        Ok(httparse::Status::Partial) => partial(bytes, limit),
        Err(httparse::Error::TooManyHeaders) => parse_many(bytes, limit, read),
        Err(error) => Err(Refusal::bad(reason(error))),
    }
}

/// The same with more fields than most have.
#[cold]
fn parse_many<R>(
    bytes: &[u8],
    limit: usize,
    read: impl FnOnce(&Head<'_>, Said) -> R,
) -> Result<Parsed<R>, Refusal> {
    let mut room = vec![httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut room);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let (parsed, said) = check(&request, &bytes[..length], limit)?;
            Ok(Parsed::Complete(length, read(&parsed, said)))
        }
        Ok(httparse::Status::Partial) => partial(bytes, limit),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::TOO_MANY_FIELDS),
        Err(error) => Err(Refusal::bad(reason(error))),
    }
}

fn partial<R>(bytes: &[u8], limit: usize) -> Result<Parsed<R>, Refusal> {
    match bytes.len() > limit {
        true => Err(Refusal::HEAD_TOO_LARGE),
        false => Ok(Parsed::Partial),
    }
}

fn reason(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => "bad_field",
        httparse::Error::Version => "bad_version",
        _ => "bad_request_line",
    }
}

/// What httparse lets in, but nobody else may see alike.
fn check<'a>(
    request: &'a httparse::Request<'_, 'a>,
    head: &[u8],
    limit: usize,
) -> Result<(Head<'a>, Said), Refusal> {
    if head.len() > limit {
        return Err(Refusal::HEAD_TOO_LARGE);
    }
    if has_bare_line_feed(head) {
        return Err(Refusal::bad("bare_line_feed"));
    }
    let version = match request.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    let method = request.method.unwrap_or_default().as_bytes();
    let target = request.path.unwrap_or_default().as_bytes();
    let fields = read_fields(request.headers)?;
    let framing = match (fields.coding, fields.length) {
        (Coding::None, length) => Framing::Length(length.unwrap_or(0)),
        (Coding::Chunked, None) if version != Version::Http10 => Framing::Chunked,
        (Coding::Unknown, _) => return Err(Refusal::UNKNOWN_CODING),
        (Coding::Chunked | Coding::Faulty, _) => return Err(Refusal::bad("bad_framing")),
    };
    let (authority, path) = split(target, method)?;
    let said = Said {
        framing,
        keep_alive: match version {
            Version::Http10 => fields.keeps && !fields.closes,
            _ => !fields.closes,
        },
        head_only: method == b"HEAD",
        version,
        expects_continue: fields.expects_continue && version != Version::Http10,
        websocket: fields.upgrades && fields.websocket,
    };
    if fields.host.is_none() && version != Version::Http10 {
        return Err(Refusal::bad("bad_host"));
    }
    let head = Head {
        version,
        method,
        target: path,
        authority: authority.or(fields.host),
        fields: Fields::Http1(request.headers),
        length: match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => None,
        },
        websocket: said.websocket,
    };
    Ok((head, said))
}

#[derive(Default)]
struct Read<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    coding: Coding,
    closes: bool,
    keeps: bool,
    upgrades: bool,
    websocket: bool,
    expects_continue: bool,
}

fn read_fields<'a>(fields: &[httparse::Header<'a>]) -> Result<Read<'a>, Refusal> {
    let mut read = Read::default();
    for field in fields {
        let (name, value) = (field.name.as_bytes(), field.value);
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => once(read.host.replace(value), "bad_host")?,
            6 if name.eq_ignore_ascii_case(b"expect") => {
                read.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                read.websocket |=
                    members(value).any(|member| member.eq_ignore_ascii_case(b"websocket"));
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for member in members(value) {
                    read.closes |= member.eq_ignore_ascii_case(b"close");
                    read.keeps |= member.eq_ignore_ascii_case(b"keep-alive");
                    read.upgrades |= member.eq_ignore_ascii_case(b"upgrade");
                    // It is for everybody on the way (RFC 9110, section 7.6.1).
                    if member.eq_ignore_ascii_case(b"host") {
                        return Err(Refusal::bad("bad_connection"));
                    }
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value).ok_or(Refusal::bad("bad_framing"))?;
                once(read.length.replace(length), "bad_framing")?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                read.coding = read.coding.and(value);
            }
            _ => {}
        }
    }
    Ok(read)
}

/// How a body is coded.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// Not at all.
    #[default]
    None,
    /// In chunks.
    Chunked,
    /// In chunks, of something else.
    Unknown,
    /// Twice in chunks, or so that its end is not to be known (RFC 9112, section 6.3).
    Faulty,
}

impl Coding {
    /// With one more `transfer-encoding`.
    fn and(self, value: &[u8]) -> Self {
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let last = members(value).filter(|coding| !coding.is_empty()).last();
        match self {
            _ if !last.is_some_and(is_chunked) => Self::Faulty,
            Self::None if is_chunked(value) => Self::Chunked,
            Self::Chunked if is_chunked(value) => Self::Faulty,
            _ => Self::Unknown,
        }
    }
}

/// The members of a list (RFC 9110, section 5.6.1).
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// Of a field that a head has once: what it had before.
fn once<T>(before: Option<T>, details: &'static str) -> Result<(), Refusal> {
    before.map_or(Ok(()), |_| Err(Refusal::bad(details)))
}

/// The authority and the path of a target: RFC 9112, section 3.2.
fn split<'a>(target: &'a [u8], method: &[u8]) -> Result<(Option<&'a [u8]>, &'a [u8]), Refusal> {
    if target.contains(&b'#') {
        return Err(Refusal::bad("bad_target"));
    }
    if target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") {
        return Ok((None, target));
    }
    if method == b"CONNECT" {
        // The service has the word on it.
        return Ok((Some(target), b""));
    }
    let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
        let begin = target.get(..scheme.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    });
    let Some(scheme) = scheme else {
        return Err(Refusal::bad("bad_target"));
    };
    let rest = &target[scheme.len()..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    match path {
        _ if matches!(authority, [] | [b':', ..]) => Err(Refusal::bad("bad_target")),
        [] => Ok((Some(authority), b"/")),
        [b'/', ..] => Ok((Some(authority), path)),
        // A query without a path has no form of its own here.
        _ => Err(Refusal::bad("bad_target")),
    }
}

/// Lines end with CR LF. What takes LF alone for an end, as a recipient may, sees other fields than who does not.
fn has_bare_line_feed(head: &[u8]) -> bool {
    let mut before = 0;
    for &byte in head {
        if byte == b'\n' && before != b'\r' {
            return true;
        }
        before = byte;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_comes_byte_by_byte_is_parsed_a_few_times() {
        let head = format!(
            "GET / HTTP/1.1\r\nx: {}\r\nhost: a\r\n\r\n",
            "y".repeat(60_000)
        );
        let head = head.as_bytes();
        let mut progress = Progress::default();
        let due: Vec<_> = (1..=head.len())
            .filter(|&length| progress.is_due(&head[..length]))
            .collect();
        assert!(due.len() < 20, "{due:?}");
        assert_eq!(due.last(), Some(&head.len()));
    }

    #[test]
    fn the_end_of_a_head_is_seen_wherever_it_is_cut() {
        for end in ["\r\n\r\n", "\n\n", "\n\r\n", "\r\n\n"] {
            let head = format!("GET / HTTP/1.1\r\nhost: a{end}");
            for cut in 1..head.len() {
                let mut progress = Progress::default();
                progress.is_due(&head.as_bytes()[..cut]);
                progress.is_due(&head.as_bytes()[..head.len() - 1]);
                assert!(progress.is_due(head.as_bytes()), "{head:?} at {cut}");
            }
        }
    }
}

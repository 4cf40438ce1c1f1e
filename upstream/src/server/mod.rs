//! Runs on: network thread, unless it says otherwise.
//!
//! A server of HTTP/1.1 and HTTP/2 on one port, told apart by the preface of HTTP/2 (RFC 9113, section 3.3), for an
//! application that stands behind somebody else's proxy.
//!
//! It knows connections and what goes over them, and nothing of who answers: that is a [`Service`]. All of a server is
//! on one thread, so nothing here locks, and what is said to a stream is done when the call returns, but for the bytes:
//! they leave when the service's turn is over, in as few writes as there are connections.
//!
//! - [`network`], the thread: its turns, its clock, its connections
//! - [`listen`], who comes
//! - [`io`], sockets of either kind
//! - [`http1`] and [`http2`], connections
//!
//! # What holds
//!
//! - No borrow of a connection's state is held across a call into the service, which may answer at once.
//! - An [`Exchange`] hears nothing after [`on_gone`](Exchange::on_gone), and nothing after its response has ended but the
//!   rest of its request's body being thrown away, of which it hears nothing either.
//! - A [`Stream`] outlives its exchange by any time, and then does nothing.

use std::borrow::Cow;
use std::fs::File;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

mod http1;
mod http2;
mod io;
mod listen;
mod network;

pub use listen::Listener;
pub use network::{Network, Running};

/// How long a client may pause in sending what nobody reads any more.
const PAUSE: Duration = Duration::from_secs(2);
/// How long it may send it at most.
const HELD: Duration = Duration::from_secs(60);

/// Who answers.
pub trait Service: 'static {
    /// A request has come. The service may answer it before it returns.
    fn begin(&self, head: &Head<'_>, stream: &Stream) -> Rc<dyn Exchange>;

    /// A head that was refused was answered with this.
    fn refused(&self, ends: &Ends, refusal: Refusal);

    /// Whether the server stops: each connection then closes after its response.
    fn drains(&self) -> bool;

    /// The thread's turn: what has come for its streams from elsewhere is to be said to them, and what they have said
    /// to be given away.
    fn turn(&self);

    /// What there was to be written has been, as far as clients take it.
    fn wrote(&self);

    /// Time has passed.
    fn tick(&self, now: Instant);
}

/// The service's side of a request and its response.
pub trait Exchange: 'static {
    /// The next piece of the request's body, or of what a client sends over an upgraded connection, after a head with status 101.
    /// With the last one `end`; it may be empty.
    fn on_body(&self, piece: Cow<'_, [u8]>, end: bool) -> Flow;

    /// The client takes what it is sent again: see [`Stream::is_slow`].
    fn on_writable(&self);

    /// So many bytes more of a file have been sent, and whether that is all of it; or why it can't be sent, after which
    /// the client is [gone](Self::on_gone).
    fn on_file(&self, sent: std::io::Result<usize>, is_all: bool);

    /// The client has gone before its response was complete.
    fn on_gone(&self);
}

/// Whether the body of a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// More is welcome.
    Go,
    /// No more until [`Stream::resume`].
    Pause,
}

/// The version of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

/// The head of a request. Its framing was checked, and so were names and values as such; what they mean was not.
#[derive(Debug)]
pub struct Head<'a> {
    /// The version.
    pub version: Version,
    /// The method.
    pub method: &'a [u8],
    /// Path and query; `*`; empty of CONNECT.
    pub target: &'a [u8],
    /// `host` or `:authority`, or that of an absolute target.
    pub authority: Option<&'a [u8]>,
    /// All fields, `host` among them.
    pub fields: Fields<'a>,
    /// Bytes of the body; `None` if that will be seen.
    pub length: Option<u64>,
    /// It asks for a WebSocket: by an upgrade, or by an extended CONNECT (RFC 8441).
    pub websocket: bool,
}

/// The fields of a head.
#[derive(Debug, Clone, Copy)]
pub enum Fields<'a> {
    /// In wire order, names as sent.
    Http1(&'a [httparse::Header<'a>]),
    /// Those of a name behind each other, names in lower case.
    Http2(&'a http::HeaderMap),
}

impl<'a> Fields<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Http1(fields) => fields.len(),
            Self::Http2(fields) => fields.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has `see` see names and values.
    pub fn for_each(&self, mut see: impl FnMut(&'a [u8], &'a [u8])) {
        match self {
            Self::Http1(fields) => fields
                .iter()
                .for_each(|field| see(field.name.as_bytes(), field.value)),
            Self::Http2(fields) => fields
                .iter()
                .for_each(|(name, value)| see(name.as_ref(), value.as_bytes())),
        }
    }
}

/// The two ends of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub client: End,
    /// Ours.
    pub server: End,
}

/// One end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct End {
    /// An IP address; the path of a Unix domain socket; empty for its unnamed client.
    pub host: String,
    /// None of a Unix domain socket.
    pub port: Option<u16>,
}

/// A response to what is no request that could be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// What was wrong, in one word.
    pub details: &'static str,
}

impl Refusal {
    const TOO_MANY_FIELDS: Self = Self {
        status: 431,
        details: "too_many_fields",
    };
    const HEAD_TOO_LARGE: Self = Self {
        status: 431,
        details: "head_too_large",
    };
    const UNKNOWN_CODING: Self = Self {
        status: 501,
        details: "unknown_transfer_coding",
    };
    const SLOW_HEAD: Self = Self {
        status: 408,
        details: "slow_head",
    };

    const fn bad(details: &'static str) -> Self {
        Self {
            status: 400,
            details,
        }
    }
}

/// A piece of a response's body.
pub enum Piece<'a> {
    /// Copied where it is less to copy it.
    Copied(&'a [u8]),
    /// Kept until it has left.
    Kept(Bytes),
}

impl Piece<'_> {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Kept(bytes) => bytes.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The head of a response.
pub struct ResponseHead<'a, 'f> {
    /// 101 to 999.
    pub status: u16,
    /// Names in lower case. What frames the body is added.
    pub fields: &'a mut (dyn Iterator<Item = (&'f [u8], &'f [u8])> + 'f),
    /// Bytes of the body, as the fields say it.
    pub length: Option<u64>,
    /// The connection is to be closed after it.
    pub close: bool,
}

/// What a service can say to a request. Cheap to clone.
#[derive(Clone)]
pub struct Stream(Kind);

#[derive(Clone)]
enum Kind {
    Http1(http1::Stream),
    Http2(http2::Stream),
}

impl Stream {
    /// The ends of its connection.
    pub fn ends(&self) -> &Ends {
        match &self.0 {
            Kind::Http1(stream) => stream.ends(),
            Kind::Http2(stream) => stream.ends(),
        }
    }

    /// The head of the response, and the first of its body; all of it if `end`.
    pub fn start(&self, head: ResponseHead<'_, '_>, body: Piece<'_>, end: bool) {
        match &self.0 {
            Kind::Http1(stream) => stream.start(head, body, end),
            Kind::Http2(stream) => stream.start(head, body, end),
        }
    }

    /// More of the response's body; the last if `end`.
    pub fn send(&self, body: Piece<'_>, end: bool) {
        match &self.0 {
            Kind::Http1(stream) => stream.send(body, end),
            Kind::Http2(stream) => stream.send(body, end),
        }
    }

    /// Whether it can have [files](Self::send_file).
    pub fn takes_files(&self) -> bool {
        matches!(self.0, Kind::Http1(_))
    }

    /// So many bytes of a file from `offset` on, as more of the response's body: see [`Exchange::on_file`].
    pub fn send_file(&self, file: File, offset: u64, length: usize) {
        match &self.0 {
            Kind::Http1(stream) => stream.send_file(file, offset, length),
            // Its frames have to be written.
            Kind::Http2(stream) => stream.reset(),
        }
    }

    /// The end of the response with trailers.
    pub fn send_trailers<'a>(
        &self,
        trailers: &mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a),
    ) {
        match &self.0 {
            Kind::Http1(stream) => stream.send_trailers(trailers),
            Kind::Http2(stream) => stream.send_trailers(trailers),
        }
    }

    /// A head before that of the response: 100 or 103.
    pub fn send_interim<'a>(
        &self,
        status: u16,
        fields: &mut (dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a),
    ) {
        match &self.0 {
            Kind::Http1(stream) => stream.send_interim(status, fields),
            Kind::Http2(stream) => stream.send_interim(status, fields),
        }
    }

    /// Ends the stream where it stands.
    pub fn reset(&self) {
        match &self.0 {
            Kind::Http1(stream) => stream.reset(),
            Kind::Http2(stream) => stream.reset(),
        }
    }

    /// Ends the stream, of whose request nothing has come, before a response: on HTTP/1 as if the connection had ended
    /// before it, on HTTP/2 by REFUSED_STREAM (RFC 9113, section 8.7). So a client may send it again elsewhere.
    pub fn turn_back(&self) {
        match &self.0 {
            Kind::Http1(stream) => stream.reset(),
            Kind::Http2(stream) => stream.turn_back(),
        }
    }

    /// More of the request's body is welcome. What is there already comes within this call.
    pub fn resume(&self) {
        match &self.0 {
            Kind::Http1(stream) => stream.resume(),
            Kind::Http2(stream) => stream.resume(),
        }
    }

    /// The client does not take what it is sent.
    pub fn is_slow(&self) -> bool {
        match &self.0 {
            Kind::Http1(stream) => stream.is_slow(),
            Kind::Http2(stream) => stream.is_slow(),
        }
    }
}

/// What a server goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of a head.
    pub head_bytes: usize,
    /// How long a client may take for a head; zero is for ever.
    pub timeout_head: Duration,
    /// How long a connection may wait for its next request; zero is for ever.
    pub timeout_keep_alive: Duration,
    /// How long a client may take nothing of what it is sent at the end of a response; zero is for ever.
    pub timeout_idle: Duration,
    /// How often the clock is looked at.
    pub tick: Duration,
    /// Whether requests may ask for WebSockets.
    pub websockets: bool,
    /// Streams of HTTP/2 that a connection may have at a time.
    pub streams: u32,
    /// Bytes of a body that may be on their way on a stream of HTTP/2.
    pub stream_window: u32,
    /// And on all streams of a connection.
    pub connection_window: u32,
    /// Connections at a time.
    pub connections: usize,
}

/// A number of digits alone.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

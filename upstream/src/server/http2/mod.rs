//! Runs on: network thread.
//!
//! A connection of HTTP/2, on the crate `h2`: framing, flow control and some defences against floods are its.
//!
//! A request has a task of its own, which hears of its body, of room for its response, and of its end. What the service
//! says goes to `h2` at once, and out when the connection's task runs next, which is once for all streams.
//!
//! - [`stream`], a request and its response
//! - [`frames`], the socket, on which frames are counted
//! - [`account`], how many of them are borne

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::header::{CONTENT_LENGTH, HOST};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::io::Io;
use super::{Ends, Fields, HELD, Head, Network, PAUSE, Settings, Version, decimal};
use account::{Account, TAKEN_BACK};
use frames::Watched;

pub(super) use frames::PREFACE;
pub(super) use stream::Stream;

mod account;
mod frames;
mod stream;

/// The life of a connection, which has begun with `first`.
pub(super) async fn serve(network: Rc<Network>, io: Io, ends: Ends, first: &[u8]) {
    let io = Rc::new(RefCell::new(io));
    let account = Rc::new(Account::new(network.now()));
    let watched = Watched::new(&network, &io, &account, first);
    if serve_requests(&network, watched, &account, Rc::new(ends)).await {
        linger(&network, &io).await;
    }
}

/// Whether the client may still take what was said last.
async fn serve_requests(
    network: &Rc<Network>,
    io: Watched,
    account: &Rc<Account>,
    ends: Rc<Ends>,
) -> bool {
    let settings = &network.settings;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(settings.streams)
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(u32::try_from(settings.head_bytes).unwrap_or(u32::MAX));
    if settings.websockets {
        builder.enable_connect_protocol();
    }
    let mut handshake = pin!(builder.handshake::<_, Bytes>(io));
    let limit = settings.timeout_head;
    let shaken = async {
        if limit.is_zero() {
            return handshake.as_mut().await.ok();
        }
        timeout(limit, handshake.as_mut()).await.ok()?.ok()
    };
    let Some(mut connection) = shaken.await else {
        return false;
    };
    let clock = network.ticks();
    let mut closes = false;
    let mut ends_now = false;
    let mut is_stuck = false;
    let mut idle_since = None;
    let mut busy = network.busy();
    loop {
        let accepted = poll_fn(|context| {
            clock.wakes(context.waker());
            if network.service.drains() && !closes {
                closes = true;
                connection.graceful_shutdown();
            }
            let now = network.now();
            idle_since = match connection.has_streams() {
                true => None,
                false => idle_since.or(Some(now)),
            };
            is_stuck = is_over(account.stuck_since.get(), settings.timeout_idle, now);
            if is_stuck {
                return Poll::Ready(None);
            }
            if let Some(reason) = end(account, idle_since, settings, now)
                && !std::mem::replace(&mut ends_now, true)
            {
                connection.abrupt_shutdown(reason);
            }
            let accepted = connection.poll_accept(context);
            busy.set(connection.has_streams());
            accepted.map(|accepted| accepted?.ok())
        });
        let Some((request, respond)) = accepted.await else {
            return !is_stuck;
        };
        idle_since = None;
        begin(network, &ends, account, request, respond);
    }
}

/// Why the connection is to end, if it is.
fn end(
    account: &Account,
    idle_since: Option<Instant>,
    settings: &Settings,
    now: Instant,
) -> Option<Reason> {
    if account.is_ill_begun() {
        return Some(Reason::PROTOCOL_ERROR);
    }
    if account.is_spent() {
        return Some(Reason::ENHANCE_YOUR_CALM);
    }
    let idle = is_over(idle_since, settings.timeout_keep_alive, now);
    // While nothing can be written nothing is read either.
    let reads = account.stuck_since.get().is_none();
    let slow = reads && is_over(account.head_since.get(), settings.timeout_head, now);
    (idle || slow).then_some(Reason::NO_ERROR)
}

fn is_over(since: Option<Instant>, limit: Duration, now: Instant) -> bool {
    !limit.is_zero() && since.is_some_and(|since| now.duration_since(since) >= limit)
}

/// Throws away what the client still sends. To close at once would take from it what it was told last.
async fn linger(network: &Network, io: &RefCell<Io>) {
    let read = async || {
        let read =
            poll_fn(|context| network.read(|buffer| io.borrow_mut().poll_read(context, buffer)));
        timeout(PAUSE, read).await
    };
    let all = async { while matches!(read().await, Ok(Ok(1..))) {} };
    let _ = timeout(HELD, all).await;
}

/// What of a request is to be known before it can be read.
struct Checked {
    websocket: bool,
    length: Option<u64>,
}

/// Checks what `h2` lets in; nothing if the request is malformed (RFC 9113, section 8.1.1).
fn check(parts: &http::request::Parts) -> Option<Checked> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let is_connect = parts.method == http::Method::CONNECT;
    let target = target(parts);
    let is_target = match target {
        b"" => is_connect && protocol.is_none(),
        b"*" => parts.method == http::Method::OPTIONS,
        _ => target.starts_with(b"/"),
    };
    let mut hosts = parts.headers.get_all(HOST).iter();
    let is_hosted = parts.uri.authority().is_some() | hosts.next().is_some();
    let mut lengths = parts.headers.get_all(CONTENT_LENGTH).iter();
    let length = match lengths.next() {
        Some(length) => Some(decimal(length.as_bytes())?),
        None => None,
    };
    let is_once = hosts.next().is_none() && lengths.next().is_none();
    let has_scheme = parts.uri.scheme_str() != Some("");
    (is_target && is_hosted && is_once && has_scheme).then(|| Checked {
        websocket: protocol
            .is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket")),
        // The end of an empty body may come with a body.
        length: length.filter(|length| *length > 0),
    })
}

fn target(parts: &http::request::Parts) -> &[u8] {
    let target = parts.uri.path_and_query();
    target.map_or(b"", |target| target.as_str().as_bytes())
}

/// A request has come.
fn begin(
    network: &Rc<Network>,
    ends: &Rc<Ends>,
    account: &Rc<Account>,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, body) = request.into_parts();
    let Some(Checked { websocket, length }) = check(&parts) else {
        account.spend(TAKEN_BACK);
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    };
    let is_complete = body.is_end_stream();
    let authority = parts.uri.authority();
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    let host = parts.headers.get(HOST).map(|host| host.as_bytes());
    let head = Head {
        version: Version::Http2,
        // As an upgrade is, on HTTP/1.
        method: if websocket {
            b"GET"
        } else {
            parts.method.as_str().as_bytes()
        },
        target: target(&parts),
        authority: authority.or(host),
        fields: Fields::Http2(&parts.headers),
        length: if is_complete { Some(0) } else { length },
        websocket,
    };
    // Of a WebSocket the end is to be heard, too.
    let body = (websocket || !is_complete).then_some(body);
    let stream = Stream::new(network, ends, account, respond, body);
    let handle = super::Stream(super::Kind::Http2(stream.clone()));
    let exchange = network.service.begin(&head, &handle);
    if stream.begins(exchange) {
        spawn_local(async move { poll_fn(|context| stream.poll(context)).await });
    }
}

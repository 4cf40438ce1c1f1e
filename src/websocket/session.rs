//! Runs on: the threads of either front; pure.
//!
//! A WebSocket from its handshake to its end. Frames become messages here, so that pings, closing and
//! broken frames do not wait for the application as long as there is room for what is before them.
//!
//! What the client sends is taken while the application has room for messages ([`REQUEST_WINDOW`])
//! and while the client takes the answers to its pings ([`ANSWERS`]). The rest is left to who carries
//! the bytes: after each call that sends what is in `out`, and ends its stream if the WebSocket
//! [is over](Session::is_over).

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::close::Failure;
use super::connection::Connection;
use super::event::Event;
use super::handshake::Handshake;
use super::negotiation::negotiate;
use super::settings::WebSockets;
use crate::exchange::{ExchangeId, Fields, Inbound, Payload, REQUEST_WINDOW};

/// Bytes of answers, to pings as a rule, that may wait for a client that does not read.
const ANSWERS: usize = 64 * 1024;

/// How long a client gets to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// One WebSocket, between its client and the loop.
pub(crate) struct Session {
    id: ExchangeId,
    settings: Rc<WebSockets>,
    phase: Phase,
    /// What the messages cost that the application has not taken.
    unread: usize,
    /// Bytes of answers since the client has taken what it was sent.
    answered: usize,
    /// When a ping was sent last, or a part of a frame came, or the WebSocket opened.
    pinged: Instant,
    /// The client owes an answer to that ping.
    owes_pong: bool,
    /// Since when the client owes a close frame.
    closing: Option<Instant>,
}

enum Phase {
    /// The application has not decided yet.
    Offered(Box<Handshake>),
    Open(Box<Connection>),
    /// Neither side sends any more.
    Over,
}

impl Session {
    pub(crate) fn new(
        id: ExchangeId,
        settings: Rc<WebSockets>,
        handshake: Handshake,
        now: Instant,
    ) -> Self {
        Self {
            id,
            settings,
            phase: Phase::Offered(Box::new(handshake)),
            unread: 0,
            answered: 0,
            pinged: now,
            owes_pong: false,
            closing: None,
        }
    }

    /// Whether the stream is to end.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether the application has closed it. If it is over, too, then the client has all that was sent before, or has
    /// had its time.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The application accepts the handshake. Gives the fields of a response with status 101, `fields` among them.
    pub(crate) fn accept(
        &mut self,
        subprotocol: Option<&str>,
        fields: &Fields,
        now: Instant,
    ) -> Option<Fields> {
        let Phase::Offered(offer) = &self.phase else {
            return None;
        };
        let agreed = self.settings.deflate.then(|| negotiate(&offer.extensions));
        let (deflate, extension) = agreed.flatten().unzip();
        let mut all = Fields::default();
        for (name, value) in [
            ("upgrade", Some("websocket")),
            ("connection", Some("Upgrade")),
            ("sec-websocket-accept", offer.accept.as_deref()),
            ("sec-websocket-protocol", subprotocol),
            ("sec-websocket-extensions", extension.as_deref()),
        ] {
            if let Some(value) = value {
                all.push(name.as_bytes(), value.as_bytes());
            }
        }
        fields
            .iter()
            .for_each(|(name, value)| all.push(name, value));
        let connection = Connection::new(self.settings.max_size, deflate);
        self.phase = Phase::Open(Box::new(connection));
        self.pinged = now;
        Some(all)
    }

    /// Takes what there is room for from the front of `data`, up to the next message. `None` means that nothing more is
    /// taken now. `is_slow` is a client that does not take what it is sent.
    pub(crate) fn receive(
        &mut self,
        data: &mut &[u8],
        is_slow: bool,
        out: &mut Vec<u8>,
    ) -> Option<Inbound> {
        if !is_slow {
            self.answered = 0;
        }
        if self.is_full(is_slow) {
            return None;
        }
        let before = out.len();
        let message = self.next(data, out);
        self.answered += out.len() - before;
        message
    }

    /// Whether the client is to wait: for the application, or until it takes the answers to its pings.
    fn is_full(&self, is_slow: bool) -> bool {
        self.unread >= REQUEST_WINDOW || (is_slow && self.answered >= ANSWERS)
    }

    fn next(&mut self, data: &mut &[u8], out: &mut Vec<u8>) -> Option<Inbound> {
        loop {
            let event = match &mut self.phase {
                Phase::Offered(_) => return None,
                Phase::Open(connection) => {
                    let event = connection.receive(data, out)?;
                    if connection.is_closed() {
                        self.phase = Phase::Over;
                    }
                    event
                }
                Phase::Over => {
                    *data = &[];
                    return None;
                }
            };
            match event {
                Event::Text(text) => return Some(self.message(Payload::Text(text))),
                Event::Binary(data) => return Some(self.message(Payload::Binary(data))),
                Event::Pong => self.owes_pong = false,
                Event::Close { code, reason } => return Some(self.closed(code, reason)),
                Event::Failed(Failure { code, reason }) => {
                    return Some(self.closed(code, reason.to_owned()));
                }
            }
        }
    }

    fn message(&mut self, payload: Payload) -> Inbound {
        self.unread += payload.request_cost(self.settings.least_cost);
        Inbound::Message(self.id, payload)
    }

    fn closed(&self, code: u16, reason: String) -> Inbound {
        let id = self.id;
        Inbound::Closed { id, code, reason }
    }

    /// A piece has come. If it is not the end of a frame, no pong can come before that.
    pub(crate) fn has_come(&mut self, now: impl FnOnce() -> Instant) {
        if let Phase::Open(connection) = &self.phase
            && connection.is_amid_frame()
        {
            self.pinged = now();
        }
    }

    /// The application has taken messages of this cost.
    pub(crate) fn has_read(&mut self, cost: usize) {
        self.unread = self.unread.saturating_sub(cost);
    }

    /// The client takes what it is sent again.
    pub(crate) fn has_room(&mut self) {
        self.answered = 0;
    }

    /// The client has ended its side, and all that it had sent was taken: without a close frame it has gone.
    pub(crate) fn client_ends(&mut self) -> Option<Inbound> {
        let is_open = matches!(self.phase, Phase::Open(_));
        is_open.then(|| {
            self.phase = Phase::Over;
            Inbound::Disconnect(self.id)
        })
    }

    /// What the client had sent before it went, and there was no room for: `kept` bytes. Of what was
    /// compressed no more than is kept of what was not, for nobody would wait any more: the rest is
    /// lost.
    pub(crate) fn left<'a>(
        &mut self,
        kept: usize,
        chunks: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<Inbound> {
        let (mut left, mut out) = (Vec::new(), Vec::new());
        let mut room = kept.max(REQUEST_WINDOW);
        for mut chunk in chunks {
            while room > 0
                && let Some(message) = self.next(&mut chunk, &mut out)
            {
                if let Inbound::Message(_, payload) = &message {
                    room = room.saturating_sub(payload.len());
                }
                left.push(message);
            }
        }
        left
    }

    /// Sends a message of the application's, of which a large one is returned: see [`Connection::send_text`].
    pub(crate) fn send<'a>(&mut self, payload: &'a Payload, out: &mut Vec<u8>) -> &'a [u8] {
        match (&mut self.phase, payload) {
            (Phase::Open(connection), Payload::Text(text)) => connection.send_text(text, out),
            (Phase::Open(connection), Payload::Binary(data)) => connection.send_binary(data, out),
            _ => &[],
        }
    }

    /// Begins the closing handshake. What is left unread is for nobody any more, and is taken; the
    /// client's close frame is behind it.
    pub(crate) fn close(&mut self, code: u16, reason: &str, now: Instant, out: &mut Vec<u8>) {
        if let Phase::Open(connection) = &mut self.phase
            && let Err(error) = connection.close(code, reason, out)
        {
            log::error!("a WebSocket is not closed: {error}");
        }
        self.closing = Some(now);
        self.unread = 0;
    }

    /// Time has passed: pings, and ends a client that has not answered a ping or a close frame.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        is_slow: bool,
        out: &mut Vec<u8>,
    ) -> Option<Inbound> {
        let is_full = self.is_full(is_slow);
        let Phase::Open(connection) = &mut self.phase else {
            return None;
        };
        if let Some(since) = self.closing {
            if now.duration_since(since) >= CLOSE_TIMEOUT {
                self.phase = Phase::Over;
            }
            return None;
        }
        // Its pong may be behind what there is no room for. A client that has gone is found by TCP,
        // for which there are pings still.
        self.owes_pong &= !is_full;
        let limit = match self.owes_pong {
            true => self.settings.ping_timeout,
            false => self.settings.ping_interval,
        };
        if limit.is_zero() || now.duration_since(self.pinged) < limit {
            return None;
        }
        if !self.owes_pong {
            connection.ping(b"", out);
            self.pinged = now;
            self.owes_pong = true;
            return None;
        }
        // It will not answer this either.
        let Failure { code, reason } = Failure::UNANSWERED;
        connection.fail(Failure::UNANSWERED, out);
        self.phase = Phase::Over;
        Some(self.closed(code, reason.to_owned()))
    }
}

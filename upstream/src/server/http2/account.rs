//! Runs on: network thread; pure.
//!
//! How much of what costs a client nothing a connection bears.
//!
//! `h2` bounds what a client can make it keep: streams, resets of streams that nobody has accepted yet, heads,
//! CONTINUATION and small DATA frames. It does not bound how many frames it reads that ask for nothing, or requests that
//! are taken back at once (CVE-2023-44487). Here is what holds: on a connection there are never more than [`MOST`] of
//! them beyond those that time and what was sent to the client have made up for.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Frames at a time: a client may have some to say of each of its streams.
const MOST: u64 = 5000;
/// Frames for which a second makes up.
const A_SECOND: u64 = 100;
/// What the head of a response or a frame of its body makes up for: clients say of each that they have taken it.
pub(super) const SENT: u64 = 10;
/// What a request counts that is malformed, or taken back before there is a response and within [`SOON`].
pub(super) const TAKEN_BACK: u64 = 10;
/// How long a client waits at least for a response that it wants.
pub(super) const SOON: Duration = Duration::from_secs(1);

/// What is left of it, and other things that end a connection.
pub(super) struct Account {
    left: Cell<u64>,
    filled: Cell<Instant>,
    ill_begun: Cell<bool>,
    /// When a head has begun that is not complete.
    pub(super) head_since: Cell<Option<Instant>>,
    /// When the socket has taken something last, if something waits for it.
    pub(super) stuck_since: Cell<Option<Instant>>,
}

impl Account {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: Cell::new(MOST),
            filled: Cell::new(now),
            ill_begun: Cell::default(),
            head_since: Cell::default(),
            stuck_since: Cell::default(),
        }
    }

    pub(super) fn spend(&self, count: u64) {
        self.left.set(self.left.get().saturating_sub(count));
    }

    pub(super) fn earn(&self, count: u64) {
        self.left.set(MOST.min(self.left.get() + count));
    }

    /// Time has passed.
    pub(super) fn fill(&self, now: Instant) {
        let passed = now.duration_since(self.filled.get());
        let earned = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let earned = earned.saturating_mul(A_SECOND) / 1000;
        if earned > 0 && !self.is_spent() {
            self.filled.set(now);
            self.earn(earned.min(MOST));
        }
    }

    /// The connection has begun with something else than settings (RFC 9113, section 3.4).
    pub(super) fn begins_ill(&self) {
        self.ill_begun.set(true);
    }

    /// Likewise: the connection is to end.
    pub(super) fn is_ill_begun(&self) -> bool {
        self.ill_begun.get()
    }

    /// Nothing is left: the connection is to end.
    pub(super) fn is_spent(&self) -> bool {
        self.left.get() == 0
    }
}

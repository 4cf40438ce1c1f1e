//! Runs on: any thread.
//!
//! A worker: what one Envoy worker thread and its loop thread share, which is two mailboxes; and what
//! the launcher may know of the loop.

use super::inbox::Inbox;
use super::outbox::Outbox;
use super::pulse::Pulse;

/// The two mailboxes between an Envoy worker thread and its loop thread, and the loop's pulse.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) pulse: Pulse,
}

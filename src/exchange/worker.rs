//! Runs on: any thread.
//!
//! A worker: what one Envoy worker thread and its loop thread share, which is two mailboxes.

use super::inbox::Inbox;
use super::outbox::Outbox;

/// The two mailboxes between an Envoy worker thread and its loop thread.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
}

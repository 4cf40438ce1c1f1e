//! Runs on: any thread.
//!
//! A worker: what one Envoy worker thread and its loop thread share, which is two mailboxes.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::mailbox::{Closed, Mailbox, Wake};
use super::message::{Inbound, Outbound};
use super::wake::Waker;

/// The two mailboxes between an Envoy worker thread and its loop thread.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
}

/// Messages towards the application. A post wakes the reader if it sleeps.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    mailbox: Mailbox<Inbound>,
    /// The reader's. There is none until it has started.
    waker: OnceLock<Arc<dyn Waker>>,
}

impl Inbox {
    /// From now on posts wake the reader by `waker`; it has one in its life.
    pub(crate) fn set_waker(&self, waker: Arc<dyn Waker>) {
        let waker = self.waker.get_or_init(|| waker);
        // Who has posted before has found none.
        if self.mailbox.has_messages() {
            waker.wake();
        }
    }

    /// Posts all of `batch`; errors, with `batch` untouched, once the loop has ended.
    pub(crate) fn post_all(&self, batch: &mut Vec<Inbound>) -> Result<(), Closed> {
        if self.mailbox.post_all(batch)? == Wake::Reader
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
        Ok(())
    }

    /// Takes what was posted. Only the reader calls this, and not before it has cleared what wakes
    /// it: what is posted in between wakes it once more, or is taken by this very call.
    pub(crate) fn drain(&self, batch: &mut Vec<Inbound>) {
        self.mailbox.drain(batch);
    }

    pub(crate) fn close(&self) -> Vec<Inbound> {
        self.mailbox.close()
    }
}

/// Messages towards the client. A post wakes the reader, which is the stream that leads: see
/// [`streams`](self).
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    mailbox: Mailbox<Outbound>,
    /// The reader's. `None` while no stream is live: then there is nobody whom a message could
    /// concern.
    waker: Mutex<Option<Arc<dyn Waker>>>,
}

impl Outbox {
    /// Posts `message`.
    pub(crate) fn post(&self, message: Outbound) {
        // The outbox is never closed: Envoy's worker threads outlive the loops.
        if let Ok(Wake::Reader) = self.mailbox.post_or_merge(message, Outbound::merge) {
            let waker = self.waker.lock().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// From now on posts wake the reader by `waker`. Who sets one looks afterwards whether there are
    /// messages: their posters may have found another one, or none.
    pub(crate) fn set_waker(&self, waker: Option<Arc<dyn Waker>>) {
        *self.waker.lock() = waker;
    }

    /// Whether somebody reads.
    pub(crate) fn has_waker(&self) -> bool {
        self.waker.lock().is_some()
    }

    pub(crate) fn has_messages(&self) -> bool {
        self.mailbox.has_messages()
    }

    pub(crate) fn drain(&self, batch: &mut Vec<Outbound>) {
        self.mailbox.drain(batch);
    }
}

#[cfg(test)]
mod tests;

//! Runs on: any thread posts; an Envoy worker thread reads.
//!
//! The mailbox towards the client.

use std::sync::Arc;

use parking_lot::Mutex;

use super::mailbox::{Mailbox, Wake};
use super::message::Outbound;
use super::wake::Waker;

/// Messages towards the client. A post wakes the reader, which of a worker's streams is the one that
/// leads.
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
mod tests {
    use super::*;

    /// What other threads are kept from while something happens.
    impl Outbox {
        pub(crate) fn while_messages_are_locked<R>(&self, act: impl FnOnce() -> R) -> R {
            self.mailbox.while_locked(act)
        }

        pub(crate) fn while_waker_is_locked<R>(&self, act: impl FnOnce() -> R) -> R {
            let _waker = self.waker.lock();
            act()
        }
    }
}

//! Runs on: any thread.
//!
//! A worker: what one Envoy worker thread and its loop thread share, which is two mailboxes.

mod dispatch;
pub(crate) mod event_loop;
mod streams;
mod ticker;
mod wake;

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub(crate) use dispatch::Dispatcher;
pub(crate) use event_loop::{LoopStart, LoopThread};
pub(crate) use streams::Streams;
pub(crate) use wake::{LoopWaker, Waker};

use crate::exchange::{Inbound, Outbound};
use crate::mailbox::{Closed, Mailbox, Wake};

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
    fn drain(&self, batch: &mut Vec<Inbound>) {
        self.mailbox.drain(batch);
    }

    fn close(&self) -> Vec<Inbound> {
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
    fn set_waker(&self, waker: Option<Arc<dyn Waker>>) {
        *self.waker.lock() = waker;
    }

    /// Whether somebody reads.
    fn has_waker(&self) -> bool {
        self.waker.lock().is_some()
    }

    fn has_messages(&self) -> bool {
        self.mailbox.has_messages()
    }

    fn drain(&self, batch: &mut Vec<Outbound>) {
        self.mailbox.drain(batch);
    }
}

#[cfg(test)]
mod tests;

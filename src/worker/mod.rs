//! Runs on: any thread.
//!
//! A worker: what one Envoy worker thread and its loop thread share, which is two mailboxes.

mod dispatch;
pub(crate) mod event_loop;
mod streams;
mod ticker;
mod wake;

use std::io;
use std::sync::Arc;

use envoy::Scheduler;
use parking_lot::Mutex;

pub(crate) use dispatch::Dispatcher;
pub(crate) use event_loop::{LoopStart, LoopThread};
pub(crate) use streams::{Streams, TURN};

use crate::exchange::{Inbound, Outbound};
use crate::mailbox::{Closed, Mailbox, Wake};
use wake::LoopWaker;

/// The two mailboxes between an Envoy worker thread and its loop thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
}

impl Worker {
    pub(crate) fn new() -> io::Result<Self> {
        let inbox = Inbox {
            mailbox: Mailbox::default(),
            waker: LoopWaker::new()?,
        };
        Ok(Self {
            inbox,
            outbox: Outbox::default(),
        })
    }
}

/// Messages towards the loop. A post wakes the loop if it sleeps.
#[derive(Debug)]
pub(crate) struct Inbox {
    mailbox: Mailbox<Inbound>,
    waker: LoopWaker,
}

impl Inbox {
    /// Posts all of `batch`; errors, with `batch` untouched, once the loop has ended.
    pub(crate) fn post_all(&self, batch: &mut Vec<Inbound>) -> Result<(), Closed> {
        if self.mailbox.post_all(batch)? == Wake::Reader {
            self.waker.wake();
        }
        Ok(())
    }

    /// Takes what was posted. Only the loop thread calls this.
    fn drain(&self, batch: &mut Vec<Inbound>) {
        // In this order: a post between the two finds its batch taken by this very call.
        self.waker.clear();
        self.mailbox.drain(batch);
    }

    fn close(&self) -> Vec<Inbound> {
        self.mailbox.close()
    }
}

/// Messages towards Envoy. A post commits an event through the leading stream; see
/// [`streams`](self) for who leads.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    mailbox: Mailbox<Outbound>,
    /// `None` while no stream is live: then there is nobody whom a message could concern.
    leader: Mutex<Option<Arc<Scheduler>>>,
}

impl Outbox {
    /// Posts `message`.
    pub(crate) fn post(&self, message: Outbound) {
        // The outbox is never closed: Envoy's worker threads outlive the loops.
        if let Ok(Wake::Reader) = self.mailbox.post_or_merge(message, Outbound::merge) {
            let leader = self.leader.lock().clone();
            if let Some(leader) = leader {
                leader.commit(TURN);
            }
        }
    }

    fn set_leader(&self, leader: Option<Arc<Scheduler>>) {
        *self.leader.lock() = leader;
    }

    fn has_leader(&self) -> bool {
        self.leader.lock().is_some()
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

//! Runs on: any thread posts; the loop thread reads.
//!
//! The mailbox towards the application.

use std::sync::{Arc, OnceLock};

use super::mailbox::{Closed, Mailbox, Wake};
use super::message::Inbound;
use super::wake::Waker;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::LoopWaker;

    impl Inbox {
        /// What the reader finds when it looks.
        pub(crate) fn take(&self) -> Vec<Inbound> {
            let mut batch = Vec::new();
            self.drain(&mut batch);
            batch
        }
    }

    /// An inbox whose loop can be woken.
    fn inbox() -> (Inbox, Arc<LoopWaker>) {
        let (inbox, waker) = (Inbox::default(), LoopWaker::new().expect("an eventfd"));
        let waker = Arc::new(waker);
        inbox.set_waker(waker.clone());
        (inbox, waker)
    }

    #[test]
    fn the_first_message_wakes_the_loop_and_looking_lets_it_sleep() {
        let (inbox, waker) = inbox();
        let cancel = || vec![Inbound::CancelAll];
        assert!(!waker.is_readable());
        assert!(inbox.post_all(&mut Vec::new()).is_ok());
        assert!(!waker.is_readable(), "nothing was posted");
        assert!(inbox.post_all(&mut cancel()).is_ok());
        assert!(inbox.post_all(&mut cancel()).is_ok());
        assert!(waker.is_readable());
        waker.clear();
        assert_eq!(inbox.take().len(), 2);
        assert!(!waker.is_readable());
        assert!(inbox.post_all(&mut cancel()).is_ok());
        assert!(waker.is_readable());
    }

    #[test]
    fn a_closed_inbox_gives_the_batch_back_and_wakes_nobody() {
        let (inbox, waker) = inbox();
        let mut batch = vec![Inbound::CancelAll];
        assert!(inbox.post_all(&mut batch).is_ok());
        assert_eq!(inbox.close().len(), 1);
        waker.clear();
        batch.push(Inbound::CancelAll);
        assert!(inbox.post_all(&mut batch).is_err());
        assert_eq!(batch.len(), 1);
        assert!(!waker.is_readable());
    }

    #[test]
    fn what_was_posted_before_there_was_a_reader_wakes_it_when_it_comes() {
        let inbox = Inbox::default();
        let mut batch = vec![Inbound::CancelAll];
        assert!(inbox.post_all(&mut batch).is_ok());
        let waker = Arc::new(LoopWaker::new().expect("an eventfd"));
        inbox.set_waker(waker.clone());
        assert!(waker.is_readable());
    }
}

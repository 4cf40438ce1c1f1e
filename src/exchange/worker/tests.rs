use super::*;
use crate::exchange::LoopWaker;

/// The loop's side, for tests that play it.
impl Worker {
    /// What the loop finds when it looks.
    pub(crate) fn take_inbox(&self) -> Vec<Inbound> {
        let mut batch = Vec::new();
        self.inbox.drain(&mut batch);
        batch
    }

    /// The loop ends.
    pub(crate) fn close_inbox(&self) -> Vec<Inbound> {
        self.inbox.close()
    }

    pub(crate) fn outbox_has_messages(&self) -> bool {
        self.outbox.has_messages()
    }
}

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

/// A worker whose loop can be woken.
fn worker() -> (Worker, Arc<LoopWaker>) {
    let (worker, waker) = (Worker::default(), LoopWaker::new().expect("an eventfd"));
    let waker = Arc::new(waker);
    worker.inbox.set_waker(waker.clone());
    (worker, waker)
}

#[test]
fn the_first_message_wakes_the_loop_and_looking_lets_it_sleep() {
    let (worker, waker) = worker();
    let cancel = || vec![Inbound::CancelAll];
    assert!(!waker.is_readable());
    assert!(worker.inbox.post_all(&mut Vec::new()).is_ok());
    assert!(!waker.is_readable(), "nothing was posted");
    assert!(worker.inbox.post_all(&mut cancel()).is_ok());
    assert!(worker.inbox.post_all(&mut cancel()).is_ok());
    assert!(waker.is_readable());
    waker.clear();
    assert_eq!(worker.take_inbox().len(), 2);
    assert!(!waker.is_readable());
    assert!(worker.inbox.post_all(&mut cancel()).is_ok());
    assert!(waker.is_readable());
}

#[test]
fn a_closed_inbox_gives_the_batch_back_and_wakes_nobody() {
    let (worker, waker) = worker();
    let mut batch = vec![Inbound::CancelAll];
    assert!(worker.inbox.post_all(&mut batch).is_ok());
    assert_eq!(worker.close_inbox().len(), 1);
    waker.clear();
    batch.push(Inbound::CancelAll);
    assert!(worker.inbox.post_all(&mut batch).is_err());
    assert_eq!(batch.len(), 1);
    assert!(!waker.is_readable());
}

#[test]
fn what_was_posted_before_there_was_a_reader_wakes_it_when_it_comes() {
    let worker = Worker::default();
    let mut batch = vec![Inbound::CancelAll];
    assert!(worker.inbox.post_all(&mut batch).is_ok());
    let waker = Arc::new(LoopWaker::new().expect("an eventfd"));
    worker.inbox.set_waker(waker.clone());
    assert!(waker.is_readable());
}

use super::*;

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

    /// Whether the loop has been woken, and has not looked since.
    pub(crate) fn is_woken(&self) -> bool {
        self.inbox.waker.is_readable()
    }

    /// Sleeps, as the loop does, until it is woken.
    #[track_caller]
    pub(crate) fn sleep(&self) {
        self.inbox.waker.wait();
    }
}

#[test]
fn the_first_message_wakes_the_loop_and_looking_lets_it_sleep() {
    let worker = Worker::new().expect("a worker");
    let cancel = || vec![Inbound::CancelAll];
    assert!(!worker.is_woken());
    assert!(worker.inbox.post_all(&mut Vec::new()).is_ok());
    assert!(!worker.is_woken(), "nothing was posted");
    assert!(worker.inbox.post_all(&mut cancel()).is_ok());
    assert!(worker.inbox.post_all(&mut cancel()).is_ok());
    assert!(worker.is_woken());
    assert_eq!(worker.take_inbox().len(), 2);
    assert!(!worker.is_woken());
    assert!(worker.inbox.post_all(&mut cancel()).is_ok());
    assert!(worker.is_woken());
}

#[test]
fn a_closed_inbox_gives_the_batch_back_and_wakes_nobody() {
    let worker = Worker::new().expect("a worker");
    let mut batch = vec![Inbound::CancelAll];
    assert!(worker.inbox.post_all(&mut batch).is_ok());
    assert_eq!(worker.close_inbox().len(), 1);
    worker.take_inbox();
    batch.push(Inbound::CancelAll);
    assert!(worker.inbox.post_all(&mut batch).is_err());
    assert_eq!(batch.len(), 1);
    assert!(!worker.is_woken());
}

//! Runs on: any thread.
//!
//! The queue into another thread. Threads of aiovoy meet here and nowhere else.
//!
//! Invariants, each relied on by a caller:
//! - **One wake-up a batch.** `post_or_merge` and `post_all` report "wake the reader" to exactly one
//!   poster between two `drain`s: the first. The reader that was woken drains everything.
//! - **Wake after unlock.** The report is returned, so the caller cannot wake under the lock.
//! - **Nothing is stranded.** Once closed, every message comes back to its poster.
//! - **Order.** Messages leave in the order in which the lock was taken.

use parking_lot::Mutex;

/// A closable queue. Its bound is its posters' business: each message type states it.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    /// `None` once closed.
    queue: Mutex<Option<Queue<T>>>,
}

#[derive(Debug)]
struct Queue<T> {
    messages: Vec<T>,
    /// A reader has been told of `messages` and has not drained them yet.
    reader_told: bool,
}

/// The reader must be woken by the poster that receives this.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
#[must_use = "the reader sleeps until it is woken"]
pub(crate) enum Wake {
    /// This message is the first since the last drain.
    Reader,
    /// An earlier poster wakes the reader, or there is nothing new.
    Nobody,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        let queue = Queue {
            messages: Vec::new(),
            reader_told: false,
        };
        Self {
            queue: Mutex::new(Some(queue)),
        }
    }
}

impl<T> Mailbox<T> {
    /// Queues `message`.
    ///
    /// `merge` sees the newest message still queued and may take `message` into it; it then
    /// returns `None`. Errors with the message if the mailbox is closed.
    pub(crate) fn post_or_merge(
        &self,
        message: T,
        merge: impl FnOnce(&mut T, T) -> Option<T>,
    ) -> Result<Wake, T> {
        let mut guard = self.queue.lock();
        let Some(queue) = guard.as_mut() else {
            return Err(message);
        };
        let unmerged = match queue.messages.last_mut() {
            Some(newest) => merge(newest, message),
            None => Some(message),
        };
        queue.messages.extend(unmerged);
        Ok(queue.tell_reader())
    }

    /// Queues all of `batch` in order and leaves it empty with its capacity.
    ///
    /// Errors, with `batch` untouched, if the mailbox is closed.
    pub(crate) fn post_all(&self, batch: &mut Vec<T>) -> Result<Wake, Closed> {
        let mut guard = self.queue.lock();
        let queue = guard.as_mut().ok_or(Closed)?;
        if batch.is_empty() {
            return Ok(Wake::Nobody);
        }
        queue.messages.append(batch);
        Ok(queue.tell_reader())
    }

    /// Moves all messages to `batch`, which must be empty; its capacity becomes the queue's.
    pub(crate) fn drain(&self, batch: &mut Vec<T>) {
        debug_assert!(
            batch.is_empty(),
            "a batch is handled before the next is taken"
        );
        if let Some(queue) = self.queue.lock().as_mut() {
            std::mem::swap(&mut queue.messages, batch);
            queue.reader_told = false;
        }
    }

    /// Whether messages wait for the reader.
    pub(crate) fn has_messages(&self) -> bool {
        self.queue
            .lock()
            .as_ref()
            .is_some_and(|queue| !queue.messages.is_empty())
    }

    /// Closes the mailbox and returns what was left in it.
    pub(crate) fn close(&self) -> Vec<T> {
        self.queue
            .lock()
            .take()
            .map(|queue| queue.messages)
            .unwrap_or_default()
    }
}

/// The mailbox has no reader any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

impl<T> Queue<T> {
    fn tell_reader(&mut self) -> Wake {
        if std::mem::replace(&mut self.reader_told, true) {
            Wake::Nobody
        } else {
            Wake::Reader
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    impl<T> Mailbox<T> {
        fn post(&self, message: T) -> Result<Wake, T> {
            self.post_or_merge(message, |_, message| Some(message))
        }

        /// Runs `act` while posters and the reader wait.
        pub(crate) fn while_locked<R>(&self, act: impl FnOnce() -> R) -> R {
            let _queue = self.queue.lock();
            act()
        }
    }

    #[test]
    fn one_poster_between_two_drains_wakes_the_reader() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.post(1), Ok(Wake::Reader));
        assert_eq!(mailbox.post(2), Ok(Wake::Nobody));
        let mut batch = Vec::new();
        mailbox.drain(&mut batch);
        assert_eq!(batch, [1, 2]);
        assert_eq!(mailbox.post(3), Ok(Wake::Reader));
    }

    #[test]
    fn a_batch_is_moved_in_order_and_an_empty_one_wakes_nobody() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.post_all(&mut Vec::<u8>::new()), Ok(Wake::Nobody));
        let mut batch = vec![1, 2];
        assert_eq!(mailbox.post_all(&mut batch), Ok(Wake::Reader));
        assert!(batch.is_empty());
        assert!(mailbox.has_messages());
        mailbox.drain(&mut batch);
        assert_eq!(batch, [1, 2]);
    }

    #[test]
    fn a_message_can_join_the_newest_one() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.post(vec![1]), Ok(Wake::Reader));
        let joined = mailbox.post_or_merge(vec![2], |newest, mut message| {
            newest.append(&mut message);
            None
        });
        assert_eq!(joined, Ok(Wake::Nobody));
        assert_eq!(mailbox.close(), [vec![1, 2]]);
    }

    #[test]
    fn a_closed_mailbox_hands_messages_back() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.post(1), Ok(Wake::Reader));
        assert_eq!(mailbox.close(), [1]);
        assert_eq!(mailbox.post(2), Err(2));
        let mut batch = vec![3];
        assert_eq!(mailbox.post_all(&mut batch), Err(Closed));
        assert_eq!(batch, [3]);
        assert!(mailbox.close().is_empty());
    }

    /// Four posters against one reader that only looks when told: no message may be left behind,
    /// whichever way posts and drains interleave.
    #[test]
    fn no_message_is_stranded_under_contention() {
        const EACH: usize = 20_000;
        let mailbox = Arc::new(Mailbox::default());
        let (wake, woken) = std::sync::mpsc::channel();
        let wakes = Arc::new(AtomicUsize::new(0));
        let posters: Vec<_> = (0..4)
            .map(|_| {
                let (mailbox, wake, wakes) = (mailbox.clone(), wake.clone(), wakes.clone());
                std::thread::spawn(move || {
                    for message in 0..EACH {
                        if mailbox.post(message) == Ok(Wake::Reader) {
                            wakes.fetch_add(1, Ordering::Relaxed);
                            wake.send(()).expect("the reader outlives the posters");
                        }
                    }
                })
            })
            .collect();
        let (mut seen, mut batch) = (0, Vec::new());
        while seen < 4 * EACH {
            woken.recv().expect("each batch has a wake-up");
            mailbox.drain(&mut batch);
            assert!(!batch.is_empty(), "a wake-up has messages behind it");
            seen += batch.drain(..).count();
        }
        for poster in posters {
            poster.join().expect("poster");
        }
        assert!(wakes.load(Ordering::Relaxed) <= seen);
    }
}

//! Runs on: any thread.
//!
//! What wakes the reader of a mailbox.

use std::fmt::Debug;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the reader of a mailbox, whoever that is.
///
/// - Any thread may call it, of posters as of the reader itself. It neither blocks nor attaches to
///   Python, and runs nothing of the reader's.
/// - A reader that is woken looks afterwards, and takes everything. Several wake-ups before that may
///   be one.
/// - To wake a reader that has gone is nothing.
pub(crate) trait Waker: Debug + Send + Sync {
    /// Has the reader look into its mailbox.
    fn wake(&self);
}

/// Wakes an event loop, which watches a descriptor with `add_reader`: an eventfd(2).
#[derive(Debug)]
pub(crate) struct LoopWaker(OwnedFd);

impl LoopWaker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?))
    }

    /// Makes the descriptor unreadable until the next [`wake`](Waker::wake).
    pub(crate) fn clear(&self) {
        // The only error for a valid descriptor is a zero counter: then it is unreadable.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }

    /// What the loop watches.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Waker for LoopWaker {
    /// Makes the descriptor readable.
    fn wake(&self) {
        // The only error for a valid descriptor is a full counter: then it is readable.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::LoopWaker;

    /// Long enough for any thread of a test on a busy machine.
    const PATIENCE: Timespec = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };

    impl LoopWaker {
        /// Whether the loop would wake.
        pub(crate) fn is_readable(&self) -> bool {
            self.poll(Timespec::default())
        }

        /// Waits as the loop does.
        #[track_caller]
        pub(crate) fn wait(&self) {
            assert!(self.poll(PATIENCE), "nobody woke the loop");
        }

        fn poll(&self, timeout: Timespec) -> bool {
            let mut watched = [PollFd::new(&self.0, PollFlags::IN)];
            poll(&mut watched, Some(&timeout)).expect("poll") > 0
        }
    }
}

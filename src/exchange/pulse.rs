//! Runs on: the control thread asks, the loop thread answers; any thread looks.
//!
//! Whether a loop turns.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::inbox::Inbox;
use super::message::Inbound;

/// What is known of the turns of a loop. It is asked by a message, which takes its turn in the inbox:
/// who waits for the answer learns how long any other message would wait. No request pays for that.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// When the loop was asked, if it has not answered. There is one question at a time.
    asked: Mutex<Option<Instant>>,
    /// The loop's thread, by Python's number.
    thread: OnceLock<u64>,
}

impl Pulse {
    /// Asks the loop that reads `inbox`, unless it owes an answer. Returns for how long it has owed
    /// that. Does not wait.
    pub(crate) fn ask(&self, inbox: &Inbox) -> Duration {
        {
            let mut asked = self.asked.lock();
            if let Some(asked) = *asked {
                return asked.elapsed();
            }
            *asked = Some(Instant::now());
        }
        if inbox.post_all(&mut vec![Inbound::Ping]).is_err() {
            // A loop that has ended owes nothing.
            self.answer();
        }
        Duration::ZERO
    }

    /// For how long the loop has owed an answer, if it does.
    pub(crate) fn owed(&self) -> Option<Duration> {
        self.asked.lock().map(|asked| asked.elapsed())
    }

    /// The loop runs on `thread`, by Python's number.
    pub(crate) fn know_thread(&self, thread: u64) {
        // A loop has one in its life.
        let _ = self.thread.set(thread);
    }

    /// The loop's thread, by Python's number; `None` if it has not started.
    pub(crate) fn thread(&self) -> Option<u64> {
        self.thread.get().copied()
    }

    /// The loop has come to the question, or will not.
    pub(crate) fn answer(&self) {
        *self.asked.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_asked_once_until_it_answers() {
        let (pulse, inbox) = (Pulse::default(), Inbox::default());
        assert_eq!(pulse.owed(), None);
        assert_eq!(pulse.ask(&inbox), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        let owed = pulse.ask(&inbox);
        assert!(owed >= Duration::from_millis(2));
        assert!(pulse.ask(&inbox) >= owed, "the oldest question counts");
        assert!(matches!(inbox.take()[..], [Inbound::Ping]));
        assert!(pulse.owed() >= Some(owed));
        pulse.answer();
        assert_eq!(pulse.owed(), None);
        assert_eq!(pulse.ask(&inbox), Duration::ZERO);
        assert!(matches!(inbox.take()[..], [Inbound::Ping]));
    }

    #[test]
    fn a_loop_that_has_ended_owes_nothing() {
        let (pulse, inbox) = (Pulse::default(), Inbox::default());
        inbox.close();
        assert_eq!(pulse.ask(&inbox), Duration::ZERO);
        assert_eq!(pulse.ask(&inbox), Duration::ZERO);
    }
}

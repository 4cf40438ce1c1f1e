//! Runs on: the threads of either front.
//!
//! The clock of streams. That of a test's thread stands still until it is put forward.

#[cfg(not(test))]
pub(crate) use std::time::Instant;

#[cfg(test)]
pub(crate) use played::{Instant, advance};

#[cfg(test)]
mod played {
    use std::cell::Cell;
    use std::ops::Add;
    use std::time::Duration;

    thread_local!(static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) });

    /// Puts this thread's clock forward.
    pub(crate) fn advance(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    /// What the bridge uses of `std::time::Instant`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    impl Instant {
        pub(crate) fn now() -> Self {
            Self(NOW.get())
        }

        pub(crate) fn elapsed(self) -> Duration {
            Self::now().duration_since(self)
        }

        pub(crate) fn duration_since(self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, time: Duration) -> Self {
            Self(self.0 + time)
        }
    }
}

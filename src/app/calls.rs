//! Runs on: loop thread.
//!
//! Which calls of the application there are on a loop.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::exchange::ExchangeId;

/// The application calls of one loop that have not returned, each with its `C`.
///
/// A call that Envoy has given up *leaves*: it is cancelled, but its place is taken until it returns.
/// Envoy has given that place away at once, since its circuit breakers count streams. So a call that
/// comes meanwhile waits to be begun by its `B`, one for each that leaves. The application never has
/// more calls than Envoy has let in, as long as they leave when they are told to.
pub(crate) struct Calls<C, B> {
    known: FxHashMap<ExchangeId, (C, Stage)>,
    leaving: usize,
    waiting: VecDeque<(ExchangeId, B)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running,
    /// Given up, and since when.
    Leaving(Instant),
    /// Nobody waits for its place any more.
    Overdue,
}

/// How long a call may take to leave. One that has been told by `http.disconnect` has as long for
/// itself, before it is cancelled.
pub(crate) const LEAVES_WITHIN: Duration = Duration::from_secs(5);

impl<C, B> Default for Calls<C, B> {
    fn default() -> Self {
        Self {
            known: FxHashMap::default(),
            leaving: 0,
            waiting: VecDeque::new(),
        }
    }
}

impl<C, B> Calls<C, B> {
    /// Adds a call. `begin` comes back if it may begin at once.
    pub(crate) fn add(&mut self, id: ExchangeId, call: C, begin: B) -> Option<B> {
        let waits = self.leaving > self.waiting.len();
        let stage = if waits {
            Stage::Waiting
        } else {
            Stage::Running
        };
        self.known.insert(id, (call, stage));
        if waits {
            self.waiting.push_back((id, begin));
            return None;
        }
        Some(begin)
    }

    /// The next call that has waited and may begin now.
    pub(crate) fn next(&mut self) -> Option<(ExchangeId, B)> {
        self.has_next().then(|| self.begin_next()).flatten()
    }

    /// The next call that has waited, whether there is a place or not.
    pub(crate) fn begin_next(&mut self) -> Option<(ExchangeId, B)> {
        let (id, begin) = self.waiting.pop_front()?;
        if let Some((_, stage)) = self.known.get_mut(&id) {
            *stage = Stage::Running;
        }
        Some((id, begin))
    }

    /// Envoy has given the call of `id` up. Returns it, if it has begun and is to leave.
    pub(crate) fn leave(&mut self, id: ExchangeId) -> Option<&C> {
        let (call, stage) = self.known.get_mut(&id)?;
        if *stage != Stage::Running {
            return None;
        }
        *stage = Stage::Leaving(Instant::now());
        self.leaving += 1;
        Some(call)
    }

    /// Those that should have left by `now`. Their places count as free from now on.
    pub(crate) fn overdue(&mut self, now: Instant) -> impl Iterator<Item = &C> {
        let (leaving, known) = (&mut self.leaving, self.known.values_mut());
        known.filter_map(move |(call, stage)| match stage {
            Stage::Leaving(since) if now.duration_since(*since) >= LEAVES_WITHIN => {
                *stage = Stage::Overdue;
                *leaving -= 1;
                Some(&*call)
            }
            _ => None,
        })
    }

    /// The call of `id` has returned, or is not to begin.
    pub(crate) fn remove(&mut self, id: ExchangeId) -> Option<C> {
        let (call, stage) = self.known.remove(&id)?;
        match stage {
            Stage::Leaving(_) => self.leaving -= 1,
            Stage::Waiting => self.waiting.retain(|(waiting, _)| *waiting != id),
            Stage::Running | Stage::Overdue => {}
        }
        Some(call)
    }

    /// Whether the call of `id` waits.
    pub(crate) fn waits(&self, id: ExchangeId) -> bool {
        matches!(self.known.get(&id), Some((_, Stage::Waiting)))
    }

    /// Whether there is one that [`next`](Self::next) would give.
    pub(crate) fn has_next(&self) -> bool {
        self.waiting.len() > self.leaving
    }

    pub(crate) fn get(&self, id: ExchangeId) -> Option<&C> {
        self.known.get(&id).map(|(call, _)| call)
    }

    pub(crate) fn get_mut(&mut self, id: ExchangeId) -> Option<&mut C> {
        self.known.get_mut(&id).map(|(call, _)| call)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ExchangeId, &C)> {
        self.known.iter().map(|(id, (call, _))| (*id, call))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Calls, LEAVES_WITHIN};
    use crate::exchange::{ExchangeId, Table};

    /// Calls that are known, and begun, by their names.
    #[derive(Default)]
    struct Loop {
        calls: Calls<&'static str, &'static str>,
        ids: Table<()>,
        begun: Vec<&'static str>,
    }

    impl Loop {
        fn come(&mut self, name: &'static str) -> ExchangeId {
            let id = self.ids.insert_with(|_| ());
            self.begun.extend(self.calls.add(id, name, name));
            id
        }

        fn turn(&mut self) {
            while let Some((_, name)) = self.calls.next() {
                self.begun.push(name);
            }
        }

        fn begun(&mut self) -> Vec<&'static str> {
            self.turn();
            std::mem::take(&mut self.begun)
        }
    }

    #[test]
    fn one_waits_for_each_that_leaves() {
        let mut calls = Loop::default();
        let [one, two] = ["one", "two"].map(|name| calls.come(name));
        assert_eq!(calls.calls.leave(one), Some(&"one"));
        let three = calls.come("three");
        calls.come("four");
        assert_eq!(calls.begun(), ["one", "two", "four"]);
        assert!(calls.calls.waits(three));
        calls.calls.remove(two);
        assert_eq!(calls.begun(), [""; 0]);
        assert!(!calls.calls.has_next());
        assert_eq!(calls.calls.remove(one), Some("one"));
        assert!(calls.calls.has_next());
        assert_eq!(calls.begun(), ["three"]);
        assert!(!calls.calls.waits(three));
    }

    #[test]
    fn who_waits_and_is_given_up_never_begins() {
        let mut calls = Loop::default();
        let one = calls.come("one");
        calls.calls.leave(one);
        let two = calls.come("two");
        assert_eq!(calls.calls.leave(two), None);
        calls.calls.remove(two);
        calls.calls.remove(one);
        assert_eq!(calls.begun(), ["one"]);
    }

    #[test]
    fn who_does_not_leave_in_time_is_not_waited_for() {
        let mut calls = Loop::default();
        let one = calls.come("one");
        calls.calls.leave(one);
        calls.come("two");
        let later = Instant::now() + LEAVES_WITHIN;
        assert_eq!(
            calls.calls.overdue(later - Duration::from_secs(1)).count(),
            0
        );
        assert_eq!(calls.calls.overdue(later).collect::<Vec<_>>(), [&"one"]);
        assert_eq!(calls.calls.overdue(later).count(), 0);
        assert_eq!(calls.begun(), ["one", "two"]);
        calls.calls.remove(one);
        calls.come("three");
        assert_eq!(calls.begun(), ["three"]);
    }

    #[test]
    fn who_leaves_leaves_once() {
        let mut calls = Loop::default();
        let one = calls.come("one");
        assert!(calls.calls.leave(one).is_some());
        assert!(calls.calls.leave(one).is_none());
        calls.calls.remove(one);
        assert!(calls.calls.leave(one).is_none());
        calls.come("two");
        assert_eq!(calls.begun(), ["one", "two"]);
    }

    #[test]
    fn at_the_end_all_begin() {
        let mut calls = Loop::default();
        let one = calls.come("one");
        calls.calls.leave(one);
        let two = calls.come("two");
        assert_eq!(calls.calls.begin_next(), Some((two, "two")));
        assert_eq!(calls.calls.begin_next(), None);
    }
}

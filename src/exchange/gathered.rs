//! Runs on: the threads of either front.
//!
//! What a thread of a front has for its loop, until the thread's turn is over: one post, and one
//! wake-up, serve all of it.

use std::cell::{RefCell, RefMut};

use super::message::{Inbound, Request};
use super::process::Process;
use super::table::ExchangeId;
use super::worker::Worker;

/// What a thread has gathered.
#[derive(Debug, Default)]
pub(crate) struct Gathered(RefCell<Vec<Inbound>>);

impl Gathered {
    /// Adds a message. Returns its place.
    pub(crate) fn push(&self, message: Inbound) -> usize {
        let mut all = self.0.borrow_mut();
        all.push(message);
        all.len() - 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// The request of `id`, which was added at this place, if it is still there: more of its body may
    /// join it.
    pub(crate) fn request(&self, id: ExchangeId, place: usize) -> Option<RefMut<'_, Request>> {
        let waiting = RefMut::filter_map(self.0.borrow_mut(), |all| match all.get_mut(place) {
            Some(Inbound::Start(found, request)) if *found == id => Some(request),
            _ => None,
        });
        waiting.ok()
    }

    /// Takes the request of `id` back, of which the application won't hear then. Returns whether it
    /// was still there.
    pub(crate) fn take_back(&self, id: ExchangeId) -> bool {
        let is_it = |message: &Inbound| matches!(message, Inbound::Start(found, _) if *found == id);
        let mut all = self.0.borrow_mut();
        let place = all.iter().position(is_it);
        // No body joins the requests behind it any more: they are not at their places.
        place.map(|place| all.remove(place)).is_some()
    }

    /// Gives all to the loop. Returns whose requests it can't take, because it has ended.
    pub(crate) fn give(&self, process: &Process, worker: &Worker) -> Vec<ExchangeId> {
        let mut all = self.0.borrow_mut();
        if worker.inbox.post_all(&mut all).is_ok() {
            return Vec::new();
        }
        let refused = all.drain(..).filter_map(|message| match message {
            Inbound::Start(id, _) => Some(id),
            _ => None,
        });
        // Also for those that have ended meanwhile: their calls will not be made.
        refused
            .inspect(|_| process.in_flight.return_call())
            .collect()
    }
}

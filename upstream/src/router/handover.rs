//! What the two streams of a request have in common.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use envoy::{EnvoyFilter, FilterRef};
use rustc_hash::FxHashMap;

/// The request header that has the number of what was handed over.
pub const NUMBER: &str = "x-aiovoy-exchange";

/// The requests of one Envoy worker thread that are under way through the router.
///
/// Invariants:
/// - An entry is there from the front's request headers to its end, so that a retry or a mirrored
///   request, which brings the same number, finds it, too.
/// - A number is never given twice, so one that comes late finds nothing.
#[derive(Default)]
pub struct Handover {
    last: Cell<u64>,
    under_way: RefCell<FxHashMap<u64, Rc<UnderWay>>>,
}

/// A request on its way, as its second stream knows it.
pub struct UnderWay {
    front: FilterRef,
    authority_is_empty: bool,
    by_envoy: Cell<bool>,
}

/// Why a stream gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The first stream is over: its client has gone, or was answered.
    Over,
    /// It brings no number that was given.
    Unknown,
}

impl UnderWay {
    /// The first stream, which is that of the client's connection, with the request as the router has
    /// sent it on.
    pub fn front(&self) -> &FilterRef {
        &self.front
    }

    /// Whether the client has sent an empty `:authority`, in whose place another one stands.
    pub fn authority_is_empty(&self) -> bool {
        self.authority_is_empty
    }

    /// Whether a second stream that is cut off was so by Envoy's own will, and not by the client's:
    /// time was up, or the router tries again.
    pub fn is_given_up(&self) -> bool {
        self.by_envoy.get()
    }
}

impl Handover {
    /// Hands the request over to the second stream. Returns the number, under which it is
    /// [forgotten](Self::forget) at the end.
    pub(super) fn hand_over(&self, envoy: &mut EnvoyFilter<'_>, authority_is_empty: bool) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        let under_way = UnderWay {
            front: envoy.filter_ref(),
            authority_is_empty,
            by_envoy: Cell::new(true),
        };
        self.under_way
            .borrow_mut()
            .insert(number, Rc::new(under_way));
        envoy.set_request_header(NUMBER, number.to_string().as_bytes());
        number
    }

    /// What was handed over to this stream.
    ///
    /// # Errors
    ///
    /// [`Lost`], if it brings no number of a request that is under way.
    pub fn take(&self, envoy: &EnvoyFilter<'_>) -> Result<Rc<UnderWay>, Lost> {
        let number = envoy.request_header(NUMBER);
        let number = number.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        let number: u64 = number.ok_or(Lost::Unknown)?;
        match self.under_way.borrow().get(&number) {
            Some(under_way) => Ok(under_way.clone()),
            None if (1..=self.last.get()).contains(&number) => Err(Lost::Over),
            None => Err(Lost::Unknown),
        }
    }

    /// The first stream of this request is over, `by_envoy` if it was Envoy that has given it up.
    pub(super) fn forget(&self, number: u64, by_envoy: bool) {
        // Dropped outside the borrow.
        let forgotten = self.under_way.borrow_mut().remove(&number);
        if let Some(under_way) = forgotten {
            under_way.by_envoy.set(by_envoy);
        }
    }

    /// How many requests are under way.
    pub fn len(&self) -> usize {
        self.under_way.borrow().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

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
pub struct Handover<H> {
    last: Cell<u64>,
    under_way: RefCell<FxHashMap<u64, Rc<UnderWay<H>>>>,
}

struct UnderWay<H> {
    front: FilterRef,
    /// Until the first who comes for it.
    head: RefCell<Option<H>>,
}

/// What the second stream of a request gets.
pub struct HandedOver<H> {
    /// The first stream, which is that of the client's connection.
    pub front: FilterRef,
    /// What it has read. A retry gets none, and reads it from the first stream itself.
    pub head: Option<H>,
}

impl<H> Default for Handover<H> {
    fn default() -> Self {
        Self {
            last: Cell::default(),
            under_way: RefCell::default(),
        }
    }
}

impl<H> Handover<H> {
    /// Hands `head` over to the second stream of this request. Returns the number, under which it is
    /// [forgotten](Self::forget) at the end.
    pub fn hand_over(&self, envoy: &mut EnvoyFilter<'_>, head: H) -> u64 {
        let number = self.last.get() + 1;
        self.last.set(number);
        let under_way = UnderWay {
            front: envoy.filter_ref(),
            head: RefCell::new(Some(head)),
        };
        self.under_way
            .borrow_mut()
            .insert(number, Rc::new(under_way));
        envoy.set_request_header(NUMBER, number.to_string().as_bytes());
        number
    }

    /// What was handed over to this stream; `None` if it brings no number of a request that is under
    /// way.
    pub fn take(&self, envoy: &EnvoyFilter<'_>) -> Option<HandedOver<H>> {
        let number = envoy.request_header(NUMBER)?;
        let number = str::from_utf8(number).ok()?.parse().ok()?;
        let under_way = self.under_way.borrow().get(&number).cloned()?;
        let head = under_way.head.take();
        Some(HandedOver {
            front: under_way.front.clone(),
            head,
        })
    }

    /// The first stream of this request is over.
    pub fn forget(&self, number: u64) {
        // Dropped outside the borrow.
        let forgotten = self.under_way.borrow_mut().remove(&number);
        drop(forgotten);
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

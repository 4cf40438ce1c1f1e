//! What the two streams of a request have in common.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

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
    stage: Cell<Stage>,
    /// Marks that the client's connection has more to write than it is to have, which nest.
    above: Cell<u32>,
    /// Bytes of the body that have gone to the router.
    body: Cell<u64>,
    second: RefCell<Weak<dyn Second>>,
    answered: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    UnderWay,
    /// The first stream ends, since Envoy has given it up.
    GivenUp,
    /// It ends for another reason.
    Over,
}

/// What the second stream of a request is told of the first. It runs in a hook of that, which may only
/// read.
pub trait Second {
    /// The client's connection has room again.
    fn below_watermark(&self);

    /// More of the body has gone to the router, so many bytes by now.
    fn body_passed(&self, bytes: u64);

    /// The first stream ends, before this one has. What the router does with the place of this one comes
    /// later.
    fn over(&self, envoy: &EnvoyFilter<'_>);
}

struct Nobody;

impl Second for Nobody {
    fn below_watermark(&self) {}
    fn body_passed(&self, _: u64) {}
    fn over(&self, _: &EnvoyFilter<'_>) {}
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

    /// Whether the client's connection has more to write than it is to have.
    pub fn is_above_watermark(&self) -> bool {
        self.above.get() > 0
    }

    /// Has `second` told of the first stream, in place of one before it.
    pub fn tell(&self, second: Weak<dyn Second>) {
        *self.second.borrow_mut() = second;
        self.answered.set(false);
    }

    /// The second stream has begun its response.
    pub fn answer(&self) {
        self.answered.set(true);
    }

    /// Whether it has, so that the response is not Envoy's own.
    pub fn is_answered(&self) -> bool {
        self.answered.get()
    }

    fn second(&self) -> Option<Rc<dyn Second>> {
        self.second.borrow().upgrade()
    }

    pub(super) fn above_watermark(&self) {
        self.above.set(self.above.get() + 1);
    }

    pub(super) fn body_passed(&self, bytes: usize) {
        self.body.set(self.body.get() + bytes as u64);
        if let Some(second) = self.second() {
            second.body_passed(self.body.get());
        }
    }

    pub(super) fn below_watermark(&self) {
        self.above.set(self.above.get().saturating_sub(1));
        if let Some(second) = self.second().filter(|_| !self.is_above_watermark()) {
            second.below_watermark();
        }
    }

    /// Bytes of the body that have gone to the router.
    pub fn body(&self) -> u64 {
        self.body.get()
    }

    /// Whether the first stream ends: nobody reads what the second still answers.
    pub fn is_over(&self) -> bool {
        self.stage.get() != Stage::UnderWay
    }

    /// The first stream ends, `given_up` if it is by Envoy's will.
    pub(super) fn end(&self, envoy: &EnvoyFilter<'_>, given_up: bool) {
        if self.is_over() {
            return;
        }
        self.stage.set(if given_up {
            Stage::GivenUp
        } else {
            Stage::Over
        });
        if let Some(second) = self.second() {
            second.over(envoy);
        }
    }

    /// Whether a second stream that is cut off was so by Envoy's own will, and not by the client's:
    /// time was up, or the router tries again.
    pub fn is_given_up(&self) -> bool {
        self.stage.get() != Stage::Over
    }
}

impl Handover {
    /// Hands the request over to the second stream. Returns it with its number, under which it is
    /// [forgotten](Self::forget) at the end.
    pub(super) fn hand_over(
        &self,
        envoy: &mut EnvoyFilter<'_>,
        authority_is_empty: bool,
    ) -> (u64, Rc<UnderWay>) {
        let number = self.last.get() + 1;
        self.last.set(number);
        let under_way = Rc::new(UnderWay {
            front: envoy.filter_ref(),
            authority_is_empty,
            stage: Cell::new(Stage::UnderWay),
            above: Cell::default(),
            body: Cell::default(),
            second: RefCell::new(Weak::<Nobody>::new()),
            answered: Cell::default(),
        });
        self.under_way
            .borrow_mut()
            .insert(number, under_way.clone());
        // Of a client's own it would take the place; but all that comes behind it is not the client's.
        if envoy.request_header(NUMBER).is_some() {
            envoy.set_request_header(NUMBER, b"");
        }
        envoy.set_request_header(NUMBER, number.to_string().as_bytes());
        (number, under_way)
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
            Some(under_way) if !under_way.is_over() => Ok(under_way.clone()),
            Some(_) => Err(Lost::Over),
            None if (1..=self.last.get()).contains(&number) => Err(Lost::Over),
            None => Err(Lost::Unknown),
        }
    }

    /// The first stream of this request is over.
    pub(super) fn forget(&self, number: u64) {
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

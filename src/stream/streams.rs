//! Runs on: Envoy worker thread.
//!
//! The streams of one Envoy worker thread, and its two mailboxes seen from there.
//!
//! Wake-ups in both directions go through the scheduler of one live stream, the *leader*:
//!
//! - **Towards the loop.** What hooks post in one iteration of Envoy's dispatcher gathers in
//!   `gathered`. The first of it commits one event, which Envoy runs at the end of the same
//!   iteration without a system call; only then does the batch go to the inbox, and the loop is
//!   woken if it sleeps.
//! - **Towards Envoy.** The first response in the outbox commits one event through the leader.
//!
//! Invariants:
//! - There is a leader whenever there is a live stream that has posted, and it is live.
//! - While `gathered` is not empty, or messages lie in the outbox, an event is on its way to a
//!   live leader, or `turn` is running. When the leader ends, another stream takes the lead and
//!   the event is committed anew. If there is none, what was gathered goes to the loop at once;
//!   what lies in the outbox is for streams that have ended, and waits for the next leader.
//! - No borrow of this module's cells is held across a call into Envoy or into a filter.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy::{EnvoyFilter, Scheduler};
use upstream::router::Handover;

use super::filter::Filter;
use super::request;
use super::ticker::Ticker;
use crate::admission::clock::now;
use crate::admission::{Refusal, RefusalLog, Rules};
use crate::exchange::{
    ExchangeId, Gathered, Inbound, Outbound, Process, RequestHead, Running, Table, Waker, Worker,
};
use crate::websocket::WebSockets;

/// The one event that aiovoy commits to a stream: "take your turn".
const TURN: u64 = 1;

impl Waker for Scheduler {
    fn wake(&self) {
        self.commit(TURN);
    }
}

/// The streams of one Envoy worker thread.
pub(crate) struct Streams {
    pub(crate) process: Arc<Process>,
    /// What the configuration says of requests.
    pub(crate) rules: Rules,
    known: request::Known,
    /// What it says of WebSockets.
    pub(crate) websockets: Rc<WebSockets>,
    worker: Arc<Worker>,
    live: RefCell<Table<Rc<Filter>>>,
    leader: RefCell<Option<(ExchangeId, Arc<Scheduler>)>>,
    ticker: Ticker,
    /// When the streams were told of time last, or the clock began to run.
    last_tick: Cell<Option<Instant>>,
    pub(crate) gathered: Gathered,
    /// An event is on its way to the leader.
    turn_due: Cell<bool>,
    /// `turn` is taking the outbox and will come to `gathered`.
    in_turn: Cell<bool>,
    /// HTTP/1 connections that were told that they close, and when. Until Envoy does it, requests
    /// that were sent behind each other still come.
    closing: RefCell<VecDeque<(u64, Instant)>>,
    /// What [`believe_probe`](Self::believe_probe) has found.
    believes_probe: Cell<bool>,
    /// The lines that the log takes of what is refused.
    pub(crate) refusals: RefusalLog,
    /// What the access log was told last: kept for its memory.
    pub(crate) log_value: RefCell<Vec<u8>>,
    /// The requests that go through the router.
    pub(crate) handover: Rc<Handover>,
    /// Streams that go on with what Envoy has kept of their request.
    resumed: RefCell<Vec<ExchangeId>>,
    /// Bytes of bodies of which the loop has not been told that they were dropped.
    dropped: Cell<usize>,
    /// Kept for their capacity.
    outbound: RefCell<Vec<Outbound>>,
    scratch: RefCell<Vec<u8>>,
}

/// How long a connection that closes is remembered; Envoy's `drain_timeout` in our configuration is
/// a quarter of it.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// What a buffer that is kept for its capacity may have of it.
const SCRATCH: usize = 256 * 1024;

/// So many bytes of bodies may have been dropped without the loop's being told.
const DROPPED: usize = 64 * 1024;

impl Streams {
    /// The streams of this thread, which is that of worker `index` of `process`. They are made at
    /// the thread's first stream: Envoy has no hook for the start of a worker thread.
    pub(crate) fn of_thread(process: &Arc<Process>, index: u32) -> Rc<Self> {
        thread_local!(static STREAMS: OnceCell<Rc<Streams>> = const { OnceCell::new() });
        STREAMS.with(|streams| {
            streams
                .get_or_init(|| Rc::new(Self::new(process.clone(), index)))
                .clone()
        })
    }

    fn new(process: Arc<Process>, index: u32) -> Self {
        Self {
            rules: Rules::new(&process.config),
            known: request::Known::default(),
            websockets: Rc::new(WebSockets::new(&process.config)),
            worker: process.worker(index),
            process,
            live: RefCell::default(),
            leader: RefCell::default(),
            ticker: Ticker::default(),
            last_tick: Cell::default(),
            gathered: Gathered::default(),
            turn_due: Cell::default(),
            in_turn: Cell::default(),
            closing: RefCell::default(),
            believes_probe: Cell::default(),
            refusals: RefusalLog::default(),
            log_value: RefCell::default(),
            handover: Rc::default(),
            resumed: RefCell::default(),
            dropped: Cell::default(),
            outbound: RefCell::default(),
            scratch: RefCell::default(),
        }
    }

    /// Copies the head of a request, and says whether it is to be refused.
    pub(crate) fn read_head(
        &self,
        envoy: &EnvoyFilter<'_>,
        end_of_stream: bool,
    ) -> (RequestHead, Option<Refusal>) {
        request::read_head(envoy, &self.rules, &self.known, end_of_stream)
    }

    /// How many streams there are, and how many requests are under way through the router.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.live.borrow().iter().count(), self.handover.len())
    }

    /// Adds the stream of `filter`.
    pub(crate) fn add(&self, filter: impl FnOnce(ExchangeId) -> Rc<Filter>) -> Rc<Filter> {
        let mut added = None;
        self.live
            .borrow_mut()
            .insert_with(|id| added.insert(filter(id)).clone());
        added.expect("`insert_with` calls its argument")
    }

    /// The stream of `id`, if it lives.
    pub(crate) fn get(&self, id: ExchangeId) -> Option<Rc<Filter>> {
        self.live.borrow().get(id).cloned()
    }

    /// Posts `message` of exchange `id` when the turn comes. Returns its place until then.
    pub(crate) fn post(&self, envoy: &EnvoyFilter<'_>, id: ExchangeId, message: Inbound) -> usize {
        let place = self.gathered.push(message);
        self.ensure_leader(envoy, id);
        self.ensure_turn();
        place
    }

    /// An HTTP/1 connection was told that it closes.
    pub(crate) fn closes(&self, connection: u64) {
        self.closing.borrow_mut().push_back((connection, now()));
    }

    /// Whether a connection was told so; it is asked for only if one was.
    pub(crate) fn is_closing(&self, connection: impl FnOnce() -> Option<u64>) -> bool {
        let mut closing = self.closing.borrow_mut();
        while closing
            .front()
            .is_some_and(|(_, since)| now().duration_since(*since) > CLOSES_WITHIN)
        {
            closing.pop_front();
        }
        if closing.is_empty() {
            return false;
        }
        let connection = connection();
        closing.iter().any(|(id, _)| Some(*id) == connection)
    }

    /// Has the stream of `id` go on with what Envoy has kept of its request, in a moment: the
    /// caller is in a hook that must not act.
    pub(crate) fn resume(&self, id: ExchangeId) {
        self.resumed.borrow_mut().push(id);
        self.ensure_turn();
    }

    /// Whether a probe that finds a connection reset is to be believed. `probe` is one of a connection
    /// that has just brought a request: if that finds it reset, the kernel accepts any option.
    pub(crate) fn believe_probe(&self, probe: impl FnOnce() -> bool) {
        if !self.believes_probe.get() {
            self.believes_probe.set(!probe());
        }
    }

    /// Whether it is.
    pub(crate) fn believes_probe(&self) -> bool {
        self.believes_probe.get()
    }

    /// An empty buffer. [`give_back`](Self::give_back) keeps its capacity for the next.
    pub(crate) fn scratch(&self) -> Vec<u8> {
        self.scratch.take()
    }

    /// Takes a buffer back.
    pub(crate) fn give_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= SCRATCH {
            buffer.clear();
            self.scratch.replace(buffer);
        }
    }

    /// Forgets the stream of `id`, with `last` as its last messages.
    pub(crate) fn remove(
        &self,
        envoy: &EnvoyFilter<'_>,
        id: ExchangeId,
        last: impl IntoIterator<Item = Inbound>,
    ) {
        // Dropped outside the borrow.
        let removed = self.live.borrow_mut().remove(id);
        drop(removed);
        for message in last {
            self.gathered.push(message);
        }
        if matches!(*self.leader.borrow(), Some((leader, _)) if leader == id) {
            self.hand_over_lead(envoy);
        }
        self.ensure_turn();
    }

    /// A leader's event: takes what the loop has posted to its streams and gives the loop what
    /// hooks have gathered.
    pub(crate) fn turn(&self, envoy: &mut EnvoyFilter<'_>) {
        self.turn_due.set(false);
        self.in_turn.set(true);
        self.take_outbound(envoy);
        for id in self.resumed.take() {
            if let Some(filter) = self.get(id) {
                filter.resume(envoy);
            }
        }
        self.in_turn.set(false);
        for id in self.gathered.give(&self.process, &self.worker) {
            if let Some(filter) = self.get(id) {
                filter.refuse(envoy);
            }
        }
    }

    /// Sees to it that there is a leader, by which streams learn of time, too.
    pub(crate) fn ensure_leader(&self, envoy: &EnvoyFilter<'_>, id: ExchangeId) {
        // A stream that has ended can't lead: its events go nowhere.
        if self.leader.borrow().is_none() && self.live.borrow().get(id).is_some() {
            self.lead(id, envoy.new_scheduler());
        }
    }

    /// Makes `id` the leader. The outbox must learn of it before it is looked at: a poster that
    /// still found the old leader, or none, has then put its message where we see it.
    fn lead(&self, id: ExchangeId, scheduler: Scheduler) {
        let scheduler = Arc::new(scheduler);
        self.worker.outbox.set_waker(Some(scheduler.clone()));
        *self.leader.borrow_mut() = Some((id, scheduler));
        let (process, tick) = (&self.process, self.websockets.tick);
        if self.ticker.ensure(&process.tokio, &self.worker, tick) {
            self.last_tick.set(Some(now()));
        }
        if self.worker.outbox.has_messages() {
            self.commit();
        }
    }

    fn hand_over_lead(&self, envoy: &EnvoyFilter<'_>) {
        *self.leader.borrow_mut() = None;
        self.worker.outbox.set_waker(None);
        // The event that the old leader was to get is lost.
        self.turn_due.set(false);
        let heir = self.live.borrow().any().cloned();
        if let Some((id, scheduler)) = heir.and_then(|heir| heir.scheduler(envoy)) {
            self.lead(id, scheduler);
        }
    }

    /// Sees to it that what lies in `gathered` gets to the loop.
    fn ensure_turn(&self) {
        let idle = self.gathered.is_empty() && self.resumed.borrow().is_empty();
        if self.in_turn.get() || self.turn_due.get() || idle {
            return;
        }
        if self.leader.borrow().is_some() {
            self.commit();
        } else {
            // The last stream has ended: nothing is left to gather from, and nobody to refuse.
            self.gathered.give(&self.process, &self.worker);
        }
    }

    fn commit(&self) {
        let scheduler = self
            .leader
            .borrow()
            .as_ref()
            .map(|(_, scheduler)| scheduler.clone());
        if let Some(scheduler) = scheduler {
            self.turn_due.set(true);
            scheduler.wake();
        }
    }

    fn take_outbound(&self, envoy: &mut EnvoyFilter<'_>) {
        // Taken out, so that a hook that runs inside finds an empty one.
        let mut batch = self.outbound.take();
        self.worker.outbox.drain(&mut batch);
        for message in batch.drain(..) {
            let Some(id) = message.id() else {
                match message {
                    // Nobody hears it if it has taken too long.
                    Outbound::Running(sender) => drop(sender.send(self.running(envoy))),
                    _ => self.tick(envoy),
                }
                continue;
            };
            let kept = message.kept();
            if let Some(filter) = self.get(id) {
                filter.deliver(envoy, message);
            }
            self.has_dropped(kept);
        }
        self.outbound.replace(batch);
    }

    /// So many bytes that were kept for us have been dropped. What the loop's side keeps of them until it runs has a
    /// bound.
    fn has_dropped(&self, bytes: usize) {
        let dropped = self.dropped.get() + bytes;
        self.dropped.set(dropped % DROPPED);
        if dropped >= DROPPED {
            self.gathered.push(Inbound::Dropped);
        }
    }

    fn tick(&self, envoy: &mut EnvoyFilter<'_>) {
        let now = now();
        self.last_tick.set(Some(now));
        for filter in self.filters() {
            filter.tick(envoy, now);
        }
    }

    /// The time, give or take a tick: to read it costs nothing. Known while there is a leader.
    pub(crate) fn last_tick(&self) -> Option<Instant> {
        self.last_tick.get()
    }

    /// The requests that have not ended.
    fn running(&self, envoy: &EnvoyFilter<'_>) -> Running {
        let now = now();
        let filters = self.filters().into_iter();
        let requests = filters.filter_map(|filter| {
            let since = filter.since()?;
            Some((now.duration_since(since), filter))
        });
        Running::new(requests.collect(), |filter| filter.name(envoy))
    }

    fn filters(&self) -> Vec<Rc<Filter>> {
        self.live.borrow().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests;

//! Runs on: network thread.
//!
//! The requests of a thread, its mailboxes, and the turns in which they meet.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use upstream::server::{Ends, Exchange, Flow, Head, Network, Service, Stream};

use super::access_log::AccessLog;
use super::request;
use super::stream::{Served, answer, answer_handshake, take_dropped};
use super::websocket::WebSocket;
use crate::admission::{Refusal, RefusalLog, Rules};
use crate::exchange::{
    ExchangeId, Failure, Gathered, HttpVersion, Inbound, Outbound, Process, Request, RequestHead,
    Running, Table, Worker,
};
use crate::websocket::{Session, WebSockets, handshake, read_handshake};

/// The requests of a thread.
pub(crate) struct Front {
    pub(super) process: Arc<Process>,
    worker: Arc<Worker>,
    pub(super) rules: Rules,
    websockets: Rc<WebSockets>,
    pub(super) refusals: RefusalLog,
    pub(super) access_log: Option<AccessLog>,
    /// Requests without an id get one.
    gives_ids: bool,
    pub(super) this: Weak<Self>,
    network: RefCell<Weak<Network>>,
    live: RefCell<Table<Rc<Served>>>,
    pub(super) gathered: Gathered,
    /// Kept for its capacity.
    outbound: RefCell<Vec<Outbound>>,
}

impl Front {
    pub(crate) fn new(
        process: Arc<Process>,
        worker: Arc<Worker>,
        gives_ids: bool,
        access_log: Option<AccessLog>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            rules: Rules::new(&process.config),
            websockets: Rc::new(WebSockets::new(&process.config)),
            refusals: RefusalLog::default(),
            access_log,
            gives_ids,
            process,
            worker,
            this: this.clone(),
            network: RefCell::default(),
            live: RefCell::default(),
            gathered: Gathered::default(),
            outbound: RefCell::default(),
        })
    }

    /// The network that serves it.
    pub(crate) fn know(&self, network: &Rc<Network>) {
        *self.network.borrow_mut() = Rc::downgrade(network);
    }

    /// Posts `message` when the turn comes. Returns its place until then.
    pub(super) fn post(&self, message: Inbound) -> usize {
        let place = self.gathered.push(message);
        if place == 0
            && let Some(network) = self.network.borrow().upgrade()
        {
            network.want_turn();
        }
        place
    }

    /// Forgets a request.
    pub(super) fn remove(&self, id: ExchangeId) {
        let removed = self.live.borrow_mut().remove(id);
        drop(removed);
    }

    fn get(&self, id: ExchangeId) -> Option<Rc<Served>> {
        self.live.borrow().get(id).cloned()
    }

    fn take_outbound(&self) {
        let mut batch = self.outbound.take();
        self.worker.outbox.drain(&mut batch);
        for message in batch.drain(..) {
            match (message.id(), message) {
                (Some(id), message) => {
                    if let Some(served) = self.get(id) {
                        served.deliver(message);
                    }
                }
                // Nobody hears it if it has taken too long.
                (None, Outbound::Running(sender)) => drop(sender.send(self.running())),
                (None, _) => {}
            }
        }
        self.outbound.replace(batch);
    }

    /// The time, give or take a tick.
    fn now(&self) -> Instant {
        let network = self.network.borrow().upgrade();
        network.map_or_else(Instant::now, |network| network.now())
    }

    /// The requests that have not ended.
    fn running(&self) -> Running {
        let now = Instant::now();
        let live = self.live.borrow();
        let requests = live.iter();
        let requests = requests.map(|served| (now.duration_since(served.since), served));
        Running::new(requests.collect(), |served| Some(served.name()))
    }

    fn give_inbound(&self) {
        for id in self.gathered.give(&self.process, &self.worker) {
            if let Some(served) = self.get(id) {
                served.deliver(Outbound::Fail(id, Failure::TooLate));
            }
        }
    }

    fn let_in(&self, head: &Head<'_>, stream: &Stream) -> Result<Rc<Served>, Box<TurnedAway>> {
        let (mut read, refusal) = request::read_head(head, stream.ends(), &self.rules);
        if self.gives_ids && read.field(b"x-request-id").is_none() {
            let id = uuid::Uuid::new_v4().hyphenated().to_string();
            read.fields.push(b"x-request-id", id.as_bytes());
        }
        if let Some(refusal) = refusal {
            return Err(TurnedAway::new(Why::Refusal(refusal), read));
        }
        // What follows chunks are no frames.
        let is_chunked = head.length.is_none() && read.version == HttpVersion::Http11;
        if read.websocket && (is_chunked || read.version == HttpVersion::Http10) {
            let refusal = handshake::Refusal::Request;
            return Err(TurnedAway::new(Why::Handshake(refusal), read));
        }
        let handshake = match read_handshake(&read).transpose() {
            Ok(handshake) => handshake,
            Err(refusal) => return Err(TurnedAway::new(Why::Handshake(refusal), read)),
        };
        let in_flight = &self.process.in_flight;
        if !in_flight.arrive(self.rules.limit_concurrency) {
            return Err(TurnedAway::new(Why::Refusal(Refusal::BUSY), read));
        }
        let log = self.access_log();
        let entry = log.map(|log| Box::new(log.begin(&read)));
        let settings = &self.websockets;
        let offer = handshake
            .as_ref()
            .map(|handshake| settings.offer(handshake));
        let request = Request {
            head: Arc::new(read),
            body: Vec::new(),
            complete: head.length == Some(0),
            websocket: offer,
            sends_files: stream.takes_files(),
        };
        let now = self.now();
        let mut added = None;
        self.live.borrow_mut().insert_with(|id| {
            let session = |handshake| Session::new(id, settings.clone(), handshake, now);
            let socket = handshake.map(|handshake| Box::new(WebSocket::new(session(handshake))));
            let served = Served::new(id, self, stream.clone(), request, socket, entry, now);
            added.insert(Rc::new(served)).clone()
        });
        Ok(added.expect("`insert_with` calls its argument"))
    }
}

impl Front {
    /// The access log, unless the application's side has it.
    fn access_log(&self) -> Option<&AccessLog> {
        let is_elsewhere = self.process.app_logs_requests.load(Ordering::Relaxed);
        self.access_log.as_ref().filter(|_| !is_elsewhere)
    }

    /// Says in the logs what a request was answered with that has got no further.
    fn tell_logs(&self, status: u16, bytes: usize, details: &str, head: RequestHead) {
        if let Some(log) = self.access_log() {
            log.end(&log.begin(&head), status, bytes as u64);
        }
        let (status, reason) = (Some(status.into()), details.as_bytes());
        self.refusals.log(status, reason, || Some(head));
    }
}

impl Service for Front {
    fn begin(&self, head: &Head<'_>, stream: &Stream) -> Rc<dyn Exchange> {
        match self.let_in(head, stream) {
            Ok(served) => served,
            Err(turned) => {
                let TurnedAway { why, head: read } = *turned;
                match why {
                    Why::Refusal(refusal) => {
                        let Refusal {
                            status,
                            text,
                            details,
                        } = refusal;
                        self.tell_logs(status, text.len(), details, read);
                        answer(stream, refusal, head.length == Some(0));
                    }
                    Why::Handshake(refusal) => {
                        let text = refusal.to_string();
                        self.tell_logs(refusal.status(), text.len(), &text, read);
                        answer_handshake(stream, &refusal, &text);
                    }
                }
                Rc::new(Nobody)
            }
        }
    }

    fn refused(&self, ends: &Ends, refusal: upstream::server::Refusal) {
        let head = RequestHead {
            client: request::endpoint(&ends.client),
            ..RequestHead::default()
        };
        self.tell_logs(refusal.status, 0, refusal.details, head);
    }

    fn drains(&self) -> bool {
        self.process.in_flight.draining()
    }

    fn turn(&self) {
        self.take_outbound();
        self.give_inbound();
    }

    fn wrote(&self) {
        if let Some(log) = &self.access_log {
            log.flush();
        }
        if take_dropped() {
            // A loop that has ended has freed all.
            let _ = self.worker.inbox.post_all(&mut vec![Inbound::Dropped]);
        }
    }

    fn tick(&self, now: Instant) {
        let all: Vec<_> = self.live.borrow().iter().cloned().collect();
        all.iter().for_each(|served| served.tick(now));
    }
}

/// A request that is not let in.
struct TurnedAway {
    why: Why,
    head: RequestHead,
}

enum Why {
    Refusal(Refusal),
    Handshake(handshake::Refusal),
}

impl TurnedAway {
    fn new(why: Why, head: RequestHead) -> Box<Self> {
        Box::new(Self { why, head })
    }
}

/// Who hears of a request that was answered when it came.
struct Nobody;

impl Exchange for Nobody {
    fn on_body(&self, _: Cow<'_, [u8]>, _: bool) -> Flow {
        Flow::Go
    }

    fn on_writable(&self) {}

    fn on_file(&self, _: io::Result<usize>, _: bool) {}

    fn on_gone(&self) {}
}

//! Runs on: network thread.
//!
//! The thread of a server: its turns, its clock, its connections.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Instant, SystemTime};

use futures::task::AtomicWaker;
use tokio::task::{JoinHandle, spawn_local};

use super::{Listener, Service, Settings, http1, listen};

/// Bytes that are read at a time, from whichever connection.
const BUFFER: usize = 64 * 1024;

/// Bytes of a date.
const DATE: usize = 29;

fn date() -> [u8; DATE] {
    let mut date = [b' '; DATE];
    let text = httpdate::fmt_http_date(SystemTime::now());
    date.iter_mut()
        .zip(text.bytes())
        .for_each(|(to, from)| *to = from);
    date
}

/// What the connections of a thread share.
pub struct Network {
    pub(super) settings: Settings,
    pub(super) service: Rc<dyn Service>,
    /// Those that have something to be written at the end of the turn.
    unwritten: RefCell<Vec<Rc<http1::Connection>>>,
    connections: RefCell<Vec<Rc<http1::Connection>>>,
    /// Where a connection reads to: see [`read`](Self::read).
    buffer: RefCell<Vec<u8>>,
    /// Kept for its capacity.
    spare: RefCell<Vec<u8>>,
    now: Cell<Instant>,
    /// The same for people (RFC 9110, section 5.6.7).
    date: Cell<[u8; DATE]>,
    /// What is to be written will be.
    in_turn: Cell<bool>,
    turn: TurnWaker,
    /// Tasks that hear of time.
    clocks: RefCell<Vec<Weak<Clock>>>,
    /// Connections that may come.
    pub(super) room: Cell<usize>,
    /// Connections, other than of HTTP/1, that have requests which are not over.
    busy: Cell<usize>,
}

/// What tells a task that time has passed.
#[derive(Default)]
pub(super) struct Clock(RefCell<Option<Waker>>);

impl Clock {
    /// From now on it wakes by this.
    pub(super) fn wakes(&self, waker: &Waker) {
        let mut known = self.0.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

/// Whether a connection has requests that are not over, up to the last byte that the client takes.
pub(super) struct Busy(Rc<Network>, bool);

impl Busy {
    pub(super) fn set(&mut self, is_busy: bool) {
        let before = std::mem::replace(&mut self.1, is_busy);
        let number = self.0.busy.get() + usize::from(is_busy) - usize::from(before);
        self.0.busy.set(number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// The place of a connection.
pub(super) struct Taken(Rc<Network>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.room.set(self.0.room.get() + 1);
    }
}

/// What wakes a thread for a turn. Of its own thread's.
#[derive(Default)]
struct TurnWaker(RefCell<Option<Waker>>);

impl Network {
    /// A thread's network.
    pub fn new(settings: Settings, service: Rc<dyn Service>) -> Rc<Self> {
        Rc::new(Self {
            room: Cell::new(settings.connections),
            settings,
            service,
            unwritten: RefCell::default(),
            connections: RefCell::default(),
            buffer: RefCell::default(),
            spare: RefCell::default(),
            now: Cell::new(Instant::now()),
            date: Cell::new(date()),
            in_turn: Cell::default(),
            turn: TurnWaker::default(),
            clocks: RefCell::default(),
            busy: Cell::default(),
        })
    }

    /// The time, give or take a tick.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Has the service take its turn once those connections have been read that can be read now.
    pub fn want_turn(&self) {
        if let Some(waker) = &*self.turn.0.borrow() {
            waker.wake_by_ref();
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.settings.connections - self.room.get()
    }

    /// Whether there is something of responses that clients have not taken yet.
    pub fn is_unwritten(&self) -> bool {
        let connections = self.connections.borrow();
        let mut unwritten = connections.iter().map(|connection| connection.unwritten());
        self.busy.get() > 0 || unwritten.any(|bytes| bytes > 0)
    }

    /// What says whether a connection, other than of HTTP/1, has requests that are not over, as long as it is kept.
    pub(super) fn busy(self: &Rc<Self>) -> Busy {
        Busy(self.clone(), false)
    }

    pub(super) fn date(&self) -> [u8; DATE] {
        self.date.get()
    }

    /// A place for one more connection, as long as it is kept.
    pub(super) fn take_place(self: &Rc<Self>) -> Taken {
        self.room.set(self.room.get().saturating_sub(1));
        Taken(self.clone())
    }

    /// `connection` hears of time until it is forgotten.
    pub(super) fn know(&self, connection: Rc<http1::Connection>) {
        connection.place.set(self.connections.borrow().len());
        self.connections.borrow_mut().push(connection);
    }

    pub(super) fn forget(&self, connection: &http1::Connection) {
        let mut connections = self.connections.borrow_mut();
        let place = connection.place.get();
        connections.swap_remove(place);
        if let Some(moved) = connections.get(place) {
            moved.place.set(place);
        }
    }

    /// Has a task hear of time, as long as that is kept.
    pub(super) fn ticks(&self) -> Rc<Clock> {
        let clock = Rc::<Clock>::default();
        self.clocks.borrow_mut().push(Rc::downgrade(&clock));
        clock
    }

    /// `connection` has something to write.
    pub(super) fn writes(&self, connection: Rc<http1::Connection>) {
        let mut unwritten = self.unwritten.borrow_mut();
        if unwritten.is_empty() && !self.in_turn.get() {
            self.want_turn();
        }
        unwritten.push(connection);
    }

    /// Writes what there is to be written.
    pub(super) fn write(&self) {
        let mut unwritten = self.unwritten.take();
        unwritten
            .drain(..)
            .for_each(|connection| connection.write());
        let mut now_unwritten = self.unwritten.borrow_mut();
        if now_unwritten.is_empty() {
            *now_unwritten = unwritten;
        }
        drop(now_unwritten);
        self.service.wrote();
    }

    /// Lends a buffer to read to, empty and with room. Who has filled it may keep it.
    pub(super) fn read<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffer = self.buffer.borrow_mut();
        buffer.clear();
        buffer.reserve(BUFFER);
        act(&mut buffer)
    }

    pub(super) fn spare(&self) -> Vec<u8> {
        self.spare.take()
    }

    pub(super) fn give_back(&self, mut spare: Vec<u8>) {
        if spare.capacity() <= BUFFER {
            spare.clear();
            self.spare.replace(spare);
        }
    }
}

/// What a network does as long as it is kept: its turns and its clock, or letting clients in.
pub struct Running(Vec<JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Network {
    /// Begins to take turns and to tell the time, within a runtime of tokio's for one thread. Others have the service
    /// take a turn by `waker`.
    pub fn start(self: &Rc<Self>, waker: Arc<AtomicWaker>) -> Running {
        Running(vec![
            spawn_local(take_turns(self.clone(), waker)),
            spawn_local(tell_time(self.clone())),
        ])
    }

    /// Lets clients in.
    pub fn accept(self: &Rc<Self>, listeners: Vec<Listener>) -> Running {
        let listeners = listeners.into_iter();
        let tasks = listeners.map(|listener| spawn_local(listen::accept(self.clone(), listener)));
        Running(tasks.collect())
    }
}

/// A turn for each time that somebody has asked for one.
async fn take_turns(network: Rc<Network>, waker: Arc<AtomicWaker>) {
    poll_fn(|context| -> Poll<()> {
        waker.register(context.waker());
        let known = network
            .turn
            .0
            .borrow()
            .as_ref()
            .is_some_and(|known| known.will_wake(context.waker()));
        if !known {
            *network.turn.0.borrow_mut() = Some(context.waker().clone());
        }
        network.in_turn.set(true);
        network.service.turn();
        network.write();
        network.in_turn.set(false);
        Poll::Pending
    })
    .await;
}

async fn tell_time(network: Rc<Network>) {
    loop {
        tokio::time::sleep(network.settings.tick).await;
        let now = Instant::now();
        network.now.set(now);
        network.date.set(date());
        network.service.tick(now);
        let connections: Vec<_> = network.connections.borrow().iter().cloned().collect();
        connections
            .iter()
            .for_each(|connection| connection.tick(now));
        network.clocks.borrow_mut().retain(|clock| {
            let clock = clock.upgrade();
            if let Some(waker) = clock.as_ref().and_then(|clock| clock.0.borrow().clone()) {
                waker.wake();
            }
            clock.is_some()
        });
        network.write();
    }
}

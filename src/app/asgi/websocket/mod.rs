//! Runs on: loop thread.
//!
//! One `websocket` exchange as the application sees it: its `receive` and its `send`. Frames,
//! pings and the closing handshake are Envoy's side's business: `stream::filter::websocket`.

mod message;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::waiters::Waiters;
use crate::app::access_log::AccessLine;
use crate::app::disconnect::{ClientDisconnected, is_disconnect, let_go};
use crate::app::dispatch::Dispatcher;
use crate::app::outcome::{Outcome, log_exception};
use crate::app::python::awaitable::{Awaitable, Source};
use crate::app::python::log;
use crate::app::response_order::Step as Response;
use crate::exchange::{
    ExchangeId, Failure, Handshakes, Outbound, Payload, RESPONSE_WINDOW, RequestHead, WINDOW_STEP,
    WebSocketOffer,
};
use state::{Progress, Socket, Step, Violation};

/// Closed without a close frame, or never opened (RFC 6455, section 7.4.1).
const ABNORMAL: u16 = 1006;
/// The server stops (IANA registry of close codes).
const SERVICE_RESTART: u16 = 1012;
/// The application has failed.
const INTERNAL_ERROR: u16 = 1011;
/// The application has ended.
const NORMAL: u16 = 1000;

/// One `websocket` exchange.
#[pyclass(frozen, module = "aiovoy")]
pub(crate) struct WebSocketCycle {
    id: ExchangeId,
    dispatcher: Py<Dispatcher>,
    /// What the log calls it.
    name: String,
    /// Never held while Python code runs: dropping an object may run any.
    state: Mutex<State>,
}

struct State {
    /// `websocket.connect` has been received.
    connect_received: bool,
    socket: Socket,
    /// Messages of the client that the application has not received.
    incoming: VecDeque<Payload>,
    /// What one message counts for at least in the client's window.
    least_cost: usize,
    /// The cost of messages received of which Envoy's side has not been told.
    unreported: usize,
    /// It has been told to close, before it was open.
    closes_once_open: bool,
    /// How it was closed, once it is: code and reason.
    closed: Option<(u16, String)>,
    receivers: Waiters,
    /// Bytes sent that Envoy has not taken.
    outstanding: usize,
    senders: Waiters,
    line: AccessLine,
}

/// What [`WebSocketCycle::feed`] is told.
pub(crate) enum Event {
    /// A message of the client's.
    Message(Payload),
    /// Envoy has taken bytes.
    Room(usize),
    /// The client has closed the WebSocket, or broken the protocol: code and reason.
    Closed(u16, String),
    /// The stream is gone.
    Disconnect,
    /// It is to be closed, as all are.
    Shutdown(Handshakes),
}

impl WebSocketCycle {
    pub(crate) fn new(
        id: ExchangeId,
        dispatcher: Py<Dispatcher>,
        offer: &WebSocketOffer,
        head: &Arc<RequestHead>,
    ) -> Self {
        let is_logged = dispatcher.get().logs_requests();
        let state = State {
            connect_received: false,
            socket: Socket::new(offer.subprotocols.clone()),
            incoming: VecDeque::new(),
            least_cost: offer.least_cost,
            unreported: 0,
            closes_once_open: false,
            closed: None,
            receivers: Waiters::default(),
            outstanding: 0,
            senders: Waiters::default(),
            line: AccessLine::new(is_logged, head),
        };
        Self {
            id,
            dispatcher,
            name: head.name(),
            state: Mutex::new(state),
        }
    }

    /// Takes what has come from Envoy, and has whoever waits for it look again.
    pub(crate) fn feed(&self, py: Python<'_>, event: Event) -> PyResult<()> {
        let waiters = {
            let mut state = self.state.lock();
            match event {
                Event::Message(payload) => {
                    state.incoming.push_back(payload);
                    std::mem::take(&mut state.receivers)
                }
                Event::Room(bytes) => {
                    state.outstanding = state.outstanding.saturating_sub(bytes);
                    if state.is_full() {
                        return Ok(());
                    }
                    std::mem::take(&mut state.senders)
                }
                Event::Closed(code, reason) => state.close(code, reason),
                Event::Disconnect => state.close(ABNORMAL, String::new()),
                Event::Shutdown(handshakes) => match (state.socket.progress(), handshakes) {
                    (Progress::Open, _) => self.close_for_restart(&mut state),
                    (Progress::Connecting, Handshakes::Finish) => {
                        state.closes_once_open = true;
                        return Ok(());
                    }
                    (Progress::Connecting, Handshakes::Fail) => {
                        let stopping = Outbound::Fail(self.id, Failure::Stopping);
                        self.dispatcher.get().post(stopping);
                        state.close(SERVICE_RESTART, String::new())
                    }
                    (Progress::Denying | Progress::Closed, _) => return Ok(()),
                },
            }
        };
        waiters.wake(py)
    }

    /// Whether the application waits in `receive`.
    pub(crate) fn listens(&self) -> bool {
        !self.state.lock().receivers.is_empty()
    }

    /// The application has ended: logs what there is to log and ends the exchange.
    pub(crate) fn end(&self, py: Python<'_>, outcome: &Outcome) {
        let (waiters, progress, line) = {
            let mut state = self.state.lock();
            let progress = state.socket.progress();
            if matches!(progress, Progress::Connecting | Progress::Denying) {
                state.line.answer(500);
            }
            let waiters = state.close(ABNORMAL, String::new());
            (waiters, progress, state.line.take())
        };
        line.write(py);
        log_end(py, outcome, progress, &self.name);
        waiters.wake_at_end(py);
        let (id, dispatcher) = (self.id, self.dispatcher.get());
        match (progress, outcome) {
            (Progress::Connecting | Progress::Denying, _) => {
                dispatcher.post(Outbound::Fail(id, Failure::Application));
            }
            (Progress::Open, outcome) => {
                let code = match outcome {
                    Outcome::Returned => NORMAL,
                    Outcome::Raised(_) => INTERNAL_ERROR,
                };
                let reason = String::new();
                dispatcher.post(Outbound::Close { id, code, reason });
            }
            (Progress::Closed, _) => {}
        }
        dispatcher.forget(id);
    }
}

#[pymethods]
impl WebSocketCycle {
    /// ASGI `receive`.
    fn receive(slf: Py<Self>) -> Awaitable {
        Awaitable::new(Receive(slf))
    }

    /// ASGI `send`.
    fn send<'py>(slf: &Bound<'py, Self>, message: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let (py, cycle) = (slf.py(), slf.get());
        let connecting = cycle.state.lock().socket.progress() == Progress::Connecting;
        let message = message::parse(message, connecting)?;
        let (waiters, full, line) = {
            let mut state = cycle.state.lock();
            let step = state.socket.accept(message).map_err(violation)?;
            let waiters = cycle.take(&mut state, step);
            (waiters, state.is_full(), state.line.take())
        };
        line.write(py);
        waiters.wake(py)?;
        if full {
            return Ok(Py::new(py, Awaitable::new(Sending(slf.clone().unbind())))?.into_any());
        }
        Ok(cycle.dispatcher.get().done(py).into_any())
    }
}

impl WebSocketCycle {
    /// Closes it, which is open, since this process ends. Returns who is to look again.
    fn close_for_restart(&self, state: &mut State) -> Waiters {
        self.dispatcher.get().post(Outbound::Close {
            id: self.id,
            code: SERVICE_RESTART,
            reason: String::new(),
        });
        state.close(SERVICE_RESTART, String::new())
    }

    /// Does what a message has come to, in the order in which messages were accepted. Returns who
    /// is to look again.
    fn take(&self, state: &mut State, step: Step) -> Waiters {
        let id = self.id;
        let (outbound, closed) = match step {
            Step::Accept {
                subprotocol,
                fields,
            } => {
                state.line.answer(101);
                self.dispatcher.get().post(Outbound::Accept {
                    id,
                    subprotocol,
                    fields,
                });
                if state.closes_once_open {
                    return self.close_for_restart(state);
                }
                return Waiters::default();
            }
            Step::Send(payload) => {
                state.outstanding += payload.response_cost();
                (Outbound::Message(id, payload), None)
            }
            Step::Close { code, reason } => {
                let closed = (code, reason.clone());
                (Outbound::Close { id, code, reason }, Some(closed))
            }
            Step::Refuse => {
                state.line.answer(403);
                let closed = (ABNORMAL, String::new());
                (Outbound::Fail(id, Failure::Refused), Some(closed))
            }
            Step::Deny(Response::Start { head, body, end }) => {
                state.line.answer(head.status);
                state.outstanding += body.len();
                let closed = end.then(|| (ABNORMAL, String::new()));
                (
                    Outbound::Start {
                        id,
                        head,
                        body,
                        end,
                    },
                    closed,
                )
            }
            Step::Deny(Response::Body { data, end }) => {
                state.outstanding += data.len();
                let closed = end.then(|| (ABNORMAL, String::new()));
                (Outbound::Body { id, data, end }, closed)
            }
            // The rest is not among the messages of a denial.
            Step::Deny(_) => return Waiters::default(),
        };
        self.dispatcher.get().post(outbound);
        match closed {
            Some((code, reason)) => state.close(code, reason),
            None => Waiters::default(),
        }
    }
}

impl State {
    /// Whether Envoy is to have no more for now.
    fn is_full(&self) -> bool {
        self.closed.is_none() && self.outstanding > RESPONSE_WINDOW
    }

    /// It is closed from now on, if it is not yet. Returns who is to look again.
    fn close(&mut self, code: u16, reason: String) -> Waiters {
        self.socket.close();
        self.closed.get_or_insert((code, reason));
        let mut waiters = std::mem::take(&mut self.receivers);
        waiters.append(&mut self.senders);
        waiters
    }
}

/// The source of `receive`.
struct Receive(Py<WebSocketCycle>);

impl Source for Receive {
    fn poll<'py>(
        &self,
        py: Python<'py>,
        waiter: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let cycle = self.0.get();
        let mut state = cycle.state.lock();
        if !std::mem::replace(&mut state.connect_received, true) {
            drop(state);
            return message::connect(py).map(|message| Some(message.into_any()));
        }
        if let Some(payload) = state.incoming.pop_front() {
            state.unreported += payload.request_cost(state.least_cost);
            let read = if state.unreported >= WINDOW_STEP {
                std::mem::take(&mut state.unreported)
            } else {
                0
            };
            drop(state);
            if read > 0 {
                cycle.dispatcher.get().post(Outbound::Read(cycle.id, read));
            }
            return message::receive(py, &payload).map(|message| Some(message.into_any()));
        }
        if let Some((code, reason)) = state.closed.clone() {
            drop(state);
            let message = message::disconnect(py, code, &reason);
            return message.map(|message| Some(message.into_any()));
        }
        if let Some(waiter) = waiter {
            state.receivers.push(waiter);
        }
        Ok(None)
    }

    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.get().dispatcher.get().create_future(py)
    }

    fn forget(&self, waiter: &Py<PyAny>) {
        let forgotten = self.0.get().state.lock().receivers.remove(waiter);
        drop(forgotten);
    }
}

/// The source of a `send` that waits for the client.
struct Sending(Py<WebSocketCycle>);

impl Source for Sending {
    fn poll<'py>(
        &self,
        py: Python<'py>,
        waiter: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let cycle = self.0.get();
        let (closed, full) = {
            let mut state = cycle.state.lock();
            let full = state.is_full();
            if full && let Some(waiter) = waiter {
                state.senders.push(waiter);
            }
            (state.closed.is_some(), full)
        };
        if closed {
            return Err(violation(Violation::Closed));
        }
        Ok((!full).then(|| py.None().into_bound(py)))
    }

    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.get().dispatcher.get().create_future(py)
    }

    fn forget(&self, waiter: &Py<PyAny>) {
        let forgotten = self.0.get().state.lock().senders.remove(waiter);
        drop(forgotten);
    }
}

/// As [`Outcome::log`], for a call that may leave the close to the server.
fn log_end(py: Python<'_>, outcome: &Outcome, progress: Progress, name: &str) {
    match (outcome, progress) {
        (Outcome::Returned, Progress::Connecting) => {
            let text = "ASGI application returned without answering the WebSocket handshake";
            log::error(py, &format!("{text}: {name}"), None);
        }
        (Outcome::Returned, Progress::Denying) => {
            let text = "ASGI application returned without completing its response";
            log::error(py, &format!("{text}: {name}"), None);
        }
        (Outcome::Returned, _) => {}
        (Outcome::Raised(error), Progress::Closed) if is_disconnect(py, error) => let_go(py, error),
        (Outcome::Raised(error), _) => log_exception(py, error, name),
    }
}

fn violation(violation: Violation) -> PyErr {
    let text = violation.to_string();
    match violation {
        Violation::Closed => ClientDisconnected::new_err(text),
        _ => PyRuntimeError::new_err(text),
    }
}

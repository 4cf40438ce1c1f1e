//! Runs on: loop thread.
//!
//! One `http` exchange as the application sees it: its `receive` and its `send`.

use std::collections::VecDeque;

use parking_lot::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;

use super::message;
use super::outcome::{Outcome, Progress};
use super::state::{Response, Step, Violation};
use crate::exchange::{ExchangeId, Outbound, RESPONSE_WINDOW, Request, WINDOW_STEP};
use crate::python::awaitable::{Awaitable, Poll, Source};
use crate::worker::Dispatcher;

pyo3::create_exception!(
    aiovoy,
    ClientDisconnected,
    PyOSError,
    "The client has gone: `send` has nobody to send to (ASGI HTTP 2.4, \"Disconnected Client\")."
);

/// One `http` exchange.
#[pyclass(frozen, module = "aiovoy")]
pub(crate) struct HttpCycle {
    id: ExchangeId,
    dispatcher: Py<Dispatcher>,
    /// Never held while Python code runs: dropping an object may run any.
    state: Mutex<State>,
}

struct State {
    /// The task that runs the application; asyncio itself refers to tasks only weakly.
    task: Option<Py<PyAny>>,
    /// The application's call has ended.
    ended: bool,
    disconnected: bool,
    // Request body
    pieces: VecDeque<Vec<u8>>,
    /// `pieces` holds the rest of the body.
    body_complete: bool,
    /// The application has been told that the body is complete.
    body_received: bool,
    /// Bytes received of which Envoy has not been told.
    unreported: usize,
    receivers: Vec<Py<PyAny>>,
    // Response
    response: Response,
    /// Bytes sent that Envoy has not taken.
    outstanding: usize,
    senders: Vec<Py<PyAny>>,
}

/// What [`HttpCycle::feed`] is told.
pub(crate) enum Event {
    /// More of the request body, and whether it is the last.
    Body(Vec<u8>, bool),
    /// Envoy has taken bytes of the response.
    Room(usize),
    /// The stream is gone.
    Disconnect,
}

impl HttpCycle {
    pub(crate) fn new(id: ExchangeId, dispatcher: Py<Dispatcher>, request: Request) -> Self {
        let Request {
            head,
            body,
            complete,
        } = request;
        let pieces = if body.is_empty() {
            VecDeque::new()
        } else {
            VecDeque::from([body])
        };
        let state = State {
            task: None,
            ended: false,
            disconnected: false,
            pieces,
            body_complete: complete,
            body_received: false,
            unreported: 0,
            receivers: Vec::new(),
            response: Response::new(head.method.as_slice() == b"HEAD"),
            outstanding: 0,
            senders: Vec::new(),
        };
        Self {
            id,
            dispatcher,
            state: Mutex::new(state),
        }
    }

    /// Keeps the task that runs the application, unless that has ended already.
    pub(crate) fn set_task(&self, task: Py<PyAny>) {
        let mut state = self.state.lock();
        if !state.ended {
            state.task = Some(task);
        }
    }

    /// The task that runs the application.
    pub(crate) fn task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state
            .lock()
            .task
            .as_ref()
            .map(|task| task.clone_ref(py))
    }

    /// Takes what has come from Envoy, and has whoever waits for it look again.
    pub(crate) fn feed(&self, py: Python<'_>, event: Event) -> PyResult<()> {
        let (mut receivers, mut senders) = (Vec::new(), Vec::new());
        {
            let mut state = self.state.lock();
            match event {
                Event::Body(data, end) => {
                    if !data.is_empty() {
                        state.pieces.push_back(data);
                    }
                    state.body_complete |= end;
                    receivers = std::mem::take(&mut state.receivers);
                }
                Event::Room(bytes) => {
                    state.outstanding = state.outstanding.saturating_sub(bytes);
                    if state.outstanding <= RESPONSE_WINDOW {
                        senders = std::mem::take(&mut state.senders);
                    }
                }
                Event::Disconnect => {
                    state.disconnected = true;
                    state.pieces.clear();
                    receivers = std::mem::take(&mut state.receivers);
                    senders = std::mem::take(&mut state.senders);
                }
            }
        }
        receivers
            .iter()
            .chain(&senders)
            .try_for_each(|waiter| resolve(py, waiter))
    }

    /// The application has ended: logs what there is to log and ends the exchange.
    pub(crate) fn end(&self, py: Python<'_>, outcome: &Outcome) {
        let (task, waiters, progress) = {
            let mut state = self.state.lock();
            let progress = Progress {
                begun: state.response.is_begun(),
                complete: state.response.is_complete(),
                disconnected: state.disconnected,
            };
            state.ended = true;
            // For whoever still holds `send`: its messages have nowhere to go.
            state.disconnected = true;
            let mut waiters = std::mem::take(&mut state.receivers);
            waiters.append(&mut state.senders);
            (state.task.take(), waiters, progress)
        };
        outcome.log(py, progress);
        // Whoever still waits, in a task of the application's own, is told of the end too.
        for waiter in waiters {
            if let Err(error) = resolve(py, &waiter) {
                log::error!("a waiting task was not told of the end of its request: {error}");
            }
        }
        let dispatcher = self.dispatcher.get();
        if !progress.complete && !progress.disconnected {
            dispatcher.post(Outbound::Fail(self.id));
        }
        dispatcher.forget(self.id);
        // Breaks the circle of task, coroutine, `receive` and this object.
        drop(task);
    }
}

#[pymethods]
impl HttpCycle {
    /// ASGI `receive`.
    fn receive(slf: Py<Self>) -> Awaitable {
        Awaitable::new(Receive(slf))
    }

    /// ASGI `send`.
    fn send<'py>(slf: &Bound<'py, Self>, message: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let (py, cycle) = (slf.py(), slf.get());
        let message = message::parse(message)?;
        let mut receivers = Vec::new();
        let (outbound, full) = {
            let mut state = cycle.state.lock();
            if state.disconnected && !state.response.is_complete() {
                drop(state);
                return Err(ClientDisconnected::new_err("the client has disconnected"));
            }
            let step = state.response.accept(message).map_err(violation)?;
            let (outbound, bytes, end) = match step {
                Step::Nothing => (None, 0, false),
                Step::Start { head, body, end } => {
                    let bytes = body.len();
                    (
                        Some(Outbound::Start {
                            id: cycle.id,
                            head,
                            body,
                            end,
                        }),
                        bytes,
                        end,
                    )
                }
                Step::Body { data, end } => {
                    let bytes = data.len();
                    (
                        Some(Outbound::Body {
                            id: cycle.id,
                            data,
                            end,
                        }),
                        bytes,
                        end,
                    )
                }
            };
            state.outstanding += bytes;
            if end {
                // `http.disconnect` follows the end of the response.
                receivers = std::mem::take(&mut state.receivers);
            }
            (outbound, !end && state.outstanding > RESPONSE_WINDOW)
        };
        let dispatcher = cycle.dispatcher.get();
        if let Some(outbound) = outbound {
            dispatcher.post(outbound);
        }
        receivers
            .iter()
            .try_for_each(|waiter| resolve(py, waiter))?;
        if full {
            return Ok(Py::new(py, Awaitable::new(Room(slf.clone().unbind())))?.into_any());
        }
        Ok(dispatcher.done(py).into_any())
    }
}

/// The source of `receive`.
struct Receive(Py<HttpCycle>);

impl Source for Receive {
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Poll<'py>> {
        let cycle = self.0.get();
        let mut state = cycle.state.lock();
        if state.disconnected || state.response.is_complete() {
            drop(state);
            return message::http_disconnect(py).map(|message| Poll::Ready(message.into_any()));
        }
        let piece = state.pieces.pop_front();
        if piece.is_none() && (state.body_received || !state.body_complete) {
            drop(state);
            let waiter = cycle.dispatcher.get().create_future(py)?;
            cycle.state.lock().receivers.push(waiter.clone().unbind());
            return Ok(Poll::Pending(waiter));
        }
        let piece = piece.unwrap_or_default();
        let more = !(state.body_complete && state.pieces.is_empty());
        state.body_received = !more;
        state.unreported += piece.len();
        // Envoy keeps nothing back of a body whose end is here, and needs no word of it.
        let read = if state.unreported >= WINDOW_STEP && !state.body_complete {
            std::mem::take(&mut state.unreported)
        } else {
            0
        };
        drop(state);
        if read > 0 {
            cycle.dispatcher.get().post(Outbound::Read(cycle.id, read));
        }
        message::http_request(py, &piece, more).map(|message| Poll::Ready(message.into_any()))
    }

    fn forget(&self, waiter: &Py<PyAny>) {
        let forgotten = remove(&mut self.0.get().state.lock().receivers, waiter);
        drop(forgotten);
    }
}

/// The source of a `send` that waits for the client.
struct Room(Py<HttpCycle>);

impl Source for Room {
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Poll<'py>> {
        let cycle = self.0.get();
        let (disconnected, full) = {
            let state = cycle.state.lock();
            (state.disconnected, state.outstanding > RESPONSE_WINDOW)
        };
        if disconnected {
            return Err(ClientDisconnected::new_err("the client has disconnected"));
        }
        if !full {
            return Ok(Poll::Ready(py.None().into_bound(py)));
        }
        let waiter = cycle.dispatcher.get().create_future(py)?;
        cycle.state.lock().senders.push(waiter.clone().unbind());
        Ok(Poll::Pending(waiter))
    }

    fn forget(&self, waiter: &Py<PyAny>) {
        let forgotten = remove(&mut self.0.get().state.lock().senders, waiter);
        drop(forgotten);
    }
}

/// Has whoever awaits `waiter` look again.
fn resolve(py: Python<'_>, waiter: &Py<PyAny>) -> PyResult<()> {
    let waiter = waiter.bind(py);
    if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
        waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

fn remove(waiters: &mut Vec<Py<PyAny>>, waiter: &Py<PyAny>) -> Option<Py<PyAny>> {
    let at = waiters.iter().position(|other| other.is(waiter))?;
    Some(waiters.swap_remove(at))
}

fn violation(violation: Violation) -> PyErr {
    PyRuntimeError::new_err(violation.to_string())
}

//! Runs on: loop thread.
//!
//! One `http` exchange as the application sees it: its `receive` and its `send`.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use smallvec::SmallVec;

use super::message;
use super::waiters::Waiters;
use crate::app::access_log::AccessLine;
use crate::app::disconnect::ClientDisconnected;
use crate::app::dispatch::Dispatcher;
use crate::app::outcome::{Outcome, Progress};
use crate::app::python::awaitable::{Awaitable, Source};
use crate::app::response_order::{Client, Message, Response, Step, Violation};
use crate::exchange::file::{FilePart, FileRead, FileReader, Piece};
use crate::exchange::{
    ExchangeId, Failure, Fields, HttpVersion, Outbound, RESPONSE_WINDOW, Request, RequestHead,
    WINDOW_STEP, interim_cost, piece_cost,
};

/// One `http` exchange.
#[pyclass(frozen, freelist = 64, module = "aiovoy")]
pub(crate) struct HttpCycle {
    id: ExchangeId,
    dispatcher: Py<Dispatcher>,
    /// Kept for what the log says of it.
    head: Arc<RequestHead>,
    /// See [`Request::sends_files`].
    sends_files: bool,
    /// Never held while Python code runs: dropping an object may run any.
    state: Mutex<State>,
}

struct State {
    disconnected: bool,
    /// It was Envoy's will.
    given_up: bool,
    // Request body
    pieces: VecDeque<Vec<u8>>,
    /// `pieces` holds the rest of the body.
    body_complete: bool,
    /// The application has been told that the body is complete.
    body_received: bool,
    /// Bytes received of which Envoy has not been told.
    unreported: usize,
    /// The client is to be told to go on with the body when the application asks for it.
    continue_due: bool,
    receivers: Waiters,
    /// Since when receivers have waited for more of the body. Counts until a response begins.
    body_awaited: Option<Instant>,
    // Response
    response: Response,
    /// Bytes sent that Envoy has not taken.
    outstanding: usize,
    /// Since when Envoy has taken nothing although there is more than it is to have.
    room_awaited: Option<Instant>,
    /// The file that is being sent. Meanwhile no other message is accepted.
    transfer: Option<Transfer>,
    /// Why the file was not sent, for the `send` that waits for it.
    transfer_error: Option<PyErr>,
    senders: Waiters,
    line: AccessLine,
}

/// Up to so many bytes pieces of a body are joined when they come.
const JOINED: usize = 4096;

/// A file on its way into the response.
struct Transfer {
    /// `None` while tokio reads, or once it is the network thread's.
    reader: Option<FileReader>,
    /// The network thread sends it, and says how far it has got.
    is_handed_over: bool,
    /// More of the body follows the file.
    more: bool,
}

/// What [`HttpCycle::feed`] is told.
pub(crate) enum Event {
    /// More of the request body, and whether it is the last.
    Body(Vec<u8>, bool),
    /// Envoy has taken bytes of the response.
    Room(usize),
    /// A piece of the file that is being sent.
    File(FileRead),
    /// All of it has been sent, or why not.
    FileSent(io::Result<()>),
    /// The stream is gone.
    Disconnect,
    /// So it is, by Envoy's will.
    GivenUp,
}

impl HttpCycle {
    pub(crate) fn new(id: ExchangeId, dispatcher: Py<Dispatcher>, request: Request) -> Self {
        let is_logged = dispatcher.get().logs_requests();
        let Request {
            head,
            body,
            complete,
            sends_files,
            ..
        } = request;
        let pieces = if body.is_empty() {
            VecDeque::new()
        } else {
            VecDeque::from([body])
        };
        let client = Client {
            head_request: head.method.as_slice() == b"HEAD",
            // HTTP/1.0 knows neither.
            takes_trailers: head.takes_trailers && head.version > HttpVersion::Http10,
            takes_interim: head.version > HttpVersion::Http10,
        };
        let state = State {
            disconnected: false,
            given_up: false,
            pieces,
            body_complete: complete,
            body_received: false,
            unreported: 0,
            continue_due: head.expects_continue && client.takes_interim && !complete,
            receivers: Waiters::default(),
            body_awaited: None,
            response: Response::new(client),
            outstanding: 0,
            room_awaited: None,
            transfer: None,
            transfer_error: None,
            senders: Waiters::default(),
            line: AccessLine::new(is_logged, &head),
        };
        Self {
            id,
            dispatcher,
            head,
            sends_files,
            state: Mutex::new(state),
        }
    }

    /// Takes what has come from Envoy, and has whoever waits for it look again.
    pub(crate) fn feed(&self, py: Python<'_>, event: Event) -> PyResult<()> {
        let (mut receivers, mut senders) = (Waiters::default(), Waiters::default());
        let (mut read, mut ended) = (None, false);
        let (full, line) = {
            let mut state = self.state.lock();
            match event {
                Event::Body(data, end) => {
                    // In the mailbox it counted for more, if it is short.
                    state.unreported += piece_cost(data.len()) - data.len();
                    state.body_complete |= end;
                    read = state.take_read();
                    state.add_piece(data);
                    state.body_awaited = None;
                    receivers = std::mem::take(&mut state.receivers);
                }
                Event::Room(bytes) => {
                    state.outstanding = state.outstanding.saturating_sub(bytes);
                    state.await_room();
                    if !state.is_full() {
                        self.read_on(&mut state);
                        senders = std::mem::take(&mut state.senders);
                    }
                }
                Event::File(read) => ended = self.file(&mut state, read),
                Event::FileSent(sent) => ended = self.file_sent(&mut state, sent),
                Event::Disconnect | Event::GivenUp => {
                    state.disconnected = true;
                    state.given_up = matches!(event, Event::GivenUp);
                    state.pieces.clear();
                    state.transfer = None;
                    receivers = std::mem::take(&mut state.receivers);
                    senders = std::mem::take(&mut state.senders);
                }
            }
            if ended {
                senders = std::mem::take(&mut state.senders);
                if state.response.is_complete() {
                    receivers = std::mem::take(&mut state.receivers);
                }
            }
            (state.room_awaited.is_some(), state.line.take())
        };
        line.write(py);
        if let Some(read) = read {
            self.dispatcher.get().post(Outbound::Read(self.id, read));
        }
        receivers.append(&mut senders);
        let woken = receivers.wake(py);
        if full {
            Dispatcher::watch(self.dispatcher.bind(py))?;
        }
        woken
    }

    /// Whether the application waits in `receive`.
    pub(crate) fn listens(&self) -> bool {
        !self.state.lock().receivers.is_empty()
    }

    /// The application has ended: logs what there is to log and ends the exchange.
    pub(crate) fn end(&self, py: Python<'_>, outcome: &Outcome) {
        let (waiters, progress, line) = {
            let mut state = self.state.lock();
            let progress = Progress {
                begun: state.response.is_begun(),
                complete: state.response.is_complete(),
                disconnected: state.disconnected,
                given_up: state.given_up,
            };
            if !progress.begun && !progress.disconnected {
                state.line.answer(500);
            }
            // For whoever still holds `send`: its messages have nowhere to go.
            state.disconnected = true;
            state.transfer = None;
            let mut waiters = std::mem::take(&mut state.receivers);
            waiters.append(&mut state.senders);
            (waiters, progress, state.line.take())
        };
        line.write(py);
        outcome.log(py, progress, &self.head);
        waiters.wake_at_end(py);
        let dispatcher = self.dispatcher.get();
        if !progress.complete && !progress.disconnected {
            dispatcher.post(Outbound::Fail(self.id, Failure::Application));
        }
        dispatcher.forget(self.id);
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
        let mut receivers = Waiters::default();
        let (waits, full, line) = {
            let mut state = cycle.state.lock();
            if state.disconnected && !state.response.is_complete() {
                drop(state);
                return Err(ClientDisconnected::new_err("the client has disconnected"));
            }
            if state.transfer.is_some() {
                return Err(PyRuntimeError::new_err(
                    "a file is being sent: await that `send` before the next one",
                ));
            }
            // Whoever waited for a file has been cancelled.
            state.transfer_error = None;
            let step = state.response.accept(message).map_err(violation)?;
            cycle.take(&mut state, step);
            if state.response.is_complete() {
                // `http.disconnect` follows the end of the response.
                receivers = std::mem::take(&mut state.receivers);
            }
            let waits = state.must_wait();
            (waits, state.room_awaited.is_some(), state.line.take())
        };
        line.write(py);
        let dispatcher = cycle.dispatcher.get();
        if !receivers.is_empty() {
            receivers.wake(py)?;
        }
        if full {
            Dispatcher::watch(cycle.dispatcher.bind(py))?;
        }
        if waits {
            return Ok(Py::new(py, Awaitable::new(Sending(slf.clone().unbind())))?.into_any());
        }
        Ok(dispatcher.done(py).into_any())
    }
}

impl HttpCycle {
    /// Does what a message has come to. The state stays locked while its messages are posted, so
    /// that they leave in the order in which they were accepted.
    fn take(&self, state: &mut State, step: Step) {
        let (id, dispatcher) = (self.id, self.dispatcher.get());
        let (outbound, bytes) = match step {
            Step::Nothing => return,
            Step::Start { head, body, end } => {
                // No interim response after the final one has begun.
                state.continue_due = false;
                state.line.answer(head.status);
                let bytes = body.len();
                (
                    Outbound::Start {
                        id,
                        head,
                        body,
                        end,
                    },
                    bytes,
                )
            }
            Step::Body { data, end } => {
                let bytes = data.len();
                (Outbound::Body { id, data, end }, bytes)
            }
            Step::EarlyHint(fields) => {
                let cost = interim_cost(&fields);
                (
                    Outbound::Interim {
                        id,
                        status: 103,
                        fields,
                    },
                    cost,
                )
            }
            Step::Trailers(fields) => (Outbound::Trailers(id, fields), 0),
            Step::File { reader, more } => {
                state.transfer = Some(Transfer {
                    reader: Some(reader),
                    is_handed_over: false,
                    more,
                });
                return self.read_on(state);
            }
        };
        state.outstanding += bytes;
        if bytes > 0 && state.is_full() {
            state.room_awaited.get_or_insert_with(Instant::now);
        }
        dispatcher.post(outbound);
    }

    /// Has the next piece of the file read, if there is room for it.
    fn read_on(&self, state: &mut State) {
        if state.is_full() {
            return;
        }
        let reader = state
            .transfer
            .as_mut()
            .and_then(|transfer| transfer.reader.take());
        if let Some(reader) = reader {
            let dispatcher = self.dispatcher.get();
            dispatcher.read_file(self.id, reader, self.sends_files);
        }
    }

    /// Sends a piece of the file. Returns whether the transfer has ended, one way or the other.
    fn file(&self, state: &mut State, read: FileRead) -> bool {
        let Some(transfer) = &mut state.transfer else {
            return false;
        };
        let piece = read.piece;
        let piece = piece.map_err(|error| os_error(&error, read.reader.path()));
        let more = transfer.more;
        transfer.reader = Some(read.reader);
        let sent = piece.and_then(|piece| match piece {
            Piece::Bytes(data, end) => {
                self.take_body(state, data, more || !end)?;
                Ok(end)
            }
            Piece::Rest(part) => self.hand_over(state, part).map(|()| false),
        });
        match sent {
            Ok(false) => {
                self.read_on(state);
                return false;
            }
            Ok(true) => {}
            Err(error) => state.transfer_error = Some(error),
        }
        state.transfer = None;
        true
    }

    /// Has the network thread send what is left of the file.
    fn hand_over(&self, state: &mut State, part: FilePart) -> PyResult<()> {
        // The head, if the file is the first of the body.
        self.take_body(state, Vec::new(), true)?;
        state.response.count(part.length, true).map_err(violation)?;
        if let Some(transfer) = &mut state.transfer {
            transfer.reader = None;
            transfer.is_handed_over = true;
        }
        state.outstanding += part.length;
        state.await_room();
        self.dispatcher.get().post(Outbound::File(self.id, part));
        Ok(())
    }

    /// The network thread has sent the file. Returns whether a transfer has ended by that.
    fn file_sent(&self, state: &mut State, sent: io::Result<()>) -> bool {
        let Some(transfer) = state.transfer.take() else {
            return false;
        };
        state.await_room();
        let ended = sent
            .map_err(|error| os_error(&error, None))
            .and_then(|()| self.take_body(state, Vec::new(), transfer.more));
        state.transfer_error = ended.err();
        true
    }

    fn take_body(&self, state: &mut State, data: Vec<u8>, more: bool) -> PyResult<()> {
        let data = data.into();
        let step = state.response.accept(Message::Body { data, more });
        self.take(state, step.map_err(violation)?);
        Ok(())
    }

    /// Whether the client is waited for, to send the body that the application asks for or to take
    /// the response, and whether nothing of that has happened for `limit`.
    pub(crate) fn waits(&self, now: Instant, limit: Duration) -> Waits {
        let state = self.state.lock();
        // Once there is a response, how long the other side may be silent is the application's
        // business.
        let body_awaited = state.body_awaited.filter(|_| !state.response.is_begun());
        let since = [body_awaited, state.room_awaited];
        match since.into_iter().flatten().min() {
            _ if state.disconnected || state.response.is_complete() => Waits::No,
            None => Waits::No,
            Some(since) if now.duration_since(since) < limit => Waits::Yes,
            Some(_) => Waits::TooLong,
        }
    }
}

/// Whether an exchange waits for its client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    No,
    Yes,
    TooLong,
}

impl State {
    /// Whether Envoy is to have no more for now.
    fn is_full(&self) -> bool {
        self.outstanding > RESPONSE_WINDOW
    }

    /// The client has taken something, or is to: from now on it is waited for, if it has to take more.
    fn await_room(&mut self) {
        let is_sending = self
            .transfer
            .as_ref()
            .is_some_and(|transfer| transfer.is_handed_over);
        self.room_awaited = (is_sending || self.is_full()).then(Instant::now);
    }

    /// Keeps more of the body. What is short joins what is there, or each would cost an allocation; what is long is
    /// copied when it is received, and not before.
    fn add_piece(&mut self, data: Vec<u8>) {
        match self.pieces.back_mut() {
            Some(last) if last.len() + data.len() <= JOINED => last.extend_from_slice(&data),
            _ if data.is_empty() => {}
            _ => self.pieces.push_back(data),
        }
    }

    /// Takes what the next message has of the body: as many pieces as its size allows.
    fn take_pieces(&mut self) -> SmallVec<[Vec<u8>; 1]> {
        let mut bytes = 0;
        let fits = |piece: &&Vec<u8>| {
            bytes += piece.len();
            bytes <= WINDOW_STEP
        };
        let count = self.pieces.iter().take_while(fits).count();
        let count = count.max(1).min(self.pieces.len());
        self.pieces.drain(..count).collect()
    }

    /// The bytes of which Envoy's side is to be told that they are read. It keeps nothing back of a
    /// body whose end is here, and needs no word of it.
    fn take_read(&mut self) -> Option<usize> {
        let due = self.unreported >= WINDOW_STEP && !self.body_complete;
        due.then(|| std::mem::take(&mut self.unreported))
    }

    /// Whether a `send` waits.
    fn must_wait(&self) -> bool {
        !self.response.is_complete() && (self.transfer.is_some() || self.is_full())
    }
}

/// The source of `receive`.
struct Receive(Py<HttpCycle>);

impl Source for Receive {
    fn poll<'py>(
        &self,
        py: Python<'py>,
        waiter: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let cycle = self.0.get();
        let mut state = cycle.state.lock();
        if state.disconnected || state.response.is_complete() {
            drop(state);
            return message::http_disconnect(py).map(|message| Some(message.into_any()));
        }
        if state.pieces.is_empty() && (state.body_received || !state.body_complete) {
            let Some(waiter) = waiter else {
                return Ok(None);
            };
            state.receivers.push(waiter);
            let for_body = !state.body_complete;
            if for_body {
                state.body_awaited.get_or_insert_with(Instant::now);
            }
            let go_on = std::mem::take(&mut state.continue_due);
            let fields = Fields::default();
            if go_on {
                state.outstanding += interim_cost(&fields);
            }
            drop(state);
            if go_on {
                cycle.dispatcher.get().post(Outbound::Interim {
                    id: cycle.id,
                    status: 100,
                    fields,
                });
            }
            if for_body {
                Dispatcher::watch(cycle.dispatcher.bind(py))?;
            }
            return Ok(None);
        }
        let pieces = state.take_pieces();
        let more = !(state.body_complete && state.pieces.is_empty());
        state.body_received = !more;
        state.unreported += pieces.iter().map(Vec::len).sum::<usize>();
        let read = state.take_read();
        drop(state);
        if let Some(read) = read {
            cycle.dispatcher.get().post(Outbound::Read(cycle.id, read));
        }
        message::http_request(py, &pieces, more).map(|message| Some(message.into_any()))
    }

    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.get().dispatcher.get().create_future(py)
    }

    fn forget(&self, waiter: &Py<PyAny>) {
        let forgotten = {
            let mut state = self.0.get().state.lock();
            let forgotten = state.receivers.remove(waiter);
            if state.receivers.is_empty() {
                state.body_awaited = None;
            }
            forgotten
        };
        drop(forgotten);
    }
}

/// The source of a `send` that waits: for the client, or for the file that it sends.
struct Sending(Py<HttpCycle>);

impl Source for Sending {
    fn poll<'py>(
        &self,
        py: Python<'py>,
        waiter: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let cycle = self.0.get();
        let (error, disconnected, waits) = {
            let mut state = cycle.state.lock();
            let error = state.transfer_error.take();
            let disconnected = state.disconnected && !state.response.is_complete();
            let waits = error.is_none() && !disconnected && state.must_wait();
            if waits && let Some(waiter) = waiter {
                state.senders.push(waiter);
            }
            (error, disconnected, waits)
        };
        if let Some(error) = error {
            return Err(error);
        }
        if disconnected {
            return Err(ClientDisconnected::new_err("the client has disconnected"));
        }
        Ok((!waits).then(|| py.None().into_bound(py)))
    }

    fn waiter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.0.get().dispatcher.get().create_future(py)
    }

    fn forget(&self, waiter: &Py<PyAny>) {
        let forgotten = self.0.get().state.lock().senders.remove(waiter);
        drop(forgotten);
    }
}

/// `error` as Python makes it, of the class that its number means.
fn os_error(error: &io::Error, path: Option<&Path>) -> PyErr {
    let text = error.to_string();
    let text = text
        .split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned();
    match error.raw_os_error() {
        Some(number) => match path {
            Some(path) => PyOSError::new_err((number, text, path.to_owned())),
            None => PyOSError::new_err((number, text)),
        },
        None => match path {
            Some(path) => PyOSError::new_err(format!("`{}`: {text}", path.display())),
            None => PyOSError::new_err(text),
        },
    }
}

fn violation(violation: Violation) -> PyErr {
    PyRuntimeError::new_err(violation.to_string())
}

//! Runs on: loop thread.
//!
//! Drains the inbox when the loop is woken: starts a task for each new exchange and gives each
//! running one what has come for it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;

use super::asgi::call::Call;
use super::asgi::cycle::{Cycle, Methods};
use super::asgi::http::Waits;
use super::asgi::scope::ScopeTemplate;
use super::calls::{Calls, LEAVES_WITHIN};
use super::outcome::Outcome;
use super::python::awaitable::{Awaitable, Done};
use super::python::slots;
use super::python::traceback;
use super::tasks::Tasks;
use crate::exchange::file::FileReader;
use crate::exchange::{
    ExchangeId, Failure, Handshakes, Inbound, LoopWaker, Outbound, Process, Request, Waker, Worker,
};

/// The loop's side of a worker.
#[pyclass(frozen, module = "aiovoy")]
pub(crate) struct Dispatcher {
    worker: Arc<Worker>,
    waker: Arc<LoopWaker>,
    process: Arc<Process>,
    /// The applications, in the order of the configuration's mounts.
    apps: Vec<Py<PyAny>>,
    tasks: Tasks,
    call_later: Py<PyAny>,
    done: Py<Done>,
    methods: Methods,
    /// For each application. Set when all have started, which is before the first request.
    scopes: OnceLock<Vec<ScopeTemplate>>,
    calls: Mutex<Calls<Running, Call>>,
    queue: Mutex<Queue>,
    /// A timer for [`sweep`](Self::sweep) runs.
    watching: AtomicBool,
    /// Set once they are closed: those that come now are, too.
    closes_websockets: OnceLock<Handshakes>,
}

/// What has come from the inbox and is not handled yet.
#[derive(Default)]
struct Queue {
    messages: VecDeque<Inbound>,
    /// Empty; kept for its capacity.
    batch: Vec<Inbound>,
}

/// An exchange whose application call has not returned.
struct Running {
    cycle: Cycle,
    /// The task that runs the application, once there is one; asyncio itself refers to tasks only
    /// weakly.
    task: Option<Py<PyAny>>,
}

impl Dispatcher {
    /// The dispatcher of `event_loop`, which it begins to serve at once: posts wake the loop by `waker`.
    pub(crate) fn start(
        event_loop: &Bound<'_, PyAny>,
        waker: LoopWaker,
        worker: Arc<Worker>,
        process: Arc<Process>,
        apps: Vec<Py<PyAny>>,
    ) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        slots::install::<Awaitable>(py)?;
        slots::install::<Call>(py)?;
        slots::install::<Done>(py)?;
        let dispatcher = Self {
            worker,
            waker: Arc::new(waker),
            process,
            apps,
            tasks: Tasks::new(event_loop)?,
            call_later: event_loop.getattr(intern!(py, "call_later"))?.unbind(),
            done: Py::new(py, Done)?,
            methods: Methods::new(py)?,
            scopes: OnceLock::new(),
            calls: Mutex::default(),
            queue: Mutex::default(),
            watching: AtomicBool::default(),
            closes_websockets: OnceLock::new(),
        };
        let dispatcher = Bound::new(py, dispatcher)?;
        let drain = dispatcher.getattr(intern!(py, "drain"))?;
        let this = dispatcher.get();
        let watched = (this.waker.descriptor(), drain);
        event_loop.call_method1(intern!(py, "add_reader"), watched)?;
        let use_task_factory = dispatcher.getattr(intern!(py, "use_task_factory"))?;
        event_loop.setattr(intern!(py, "on_task_factory"), use_task_factory)?;
        this.worker.inbox.set_waker(this.waker.clone());
        Ok(dispatcher.unbind())
    }

    /// Sets what the scopes of each application have in common.
    pub(crate) fn set_scopes(&self, scopes: Vec<ScopeTemplate>) {
        // A loop has one start-up.
        let _ = self.scopes.set(scopes);
    }

    /// The applications.
    pub(crate) fn apps(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.apps.iter().map(|app| app.clone_ref(py)).collect()
    }

    /// Posts `message` to Envoy.
    pub(crate) fn post(&self, message: Outbound) {
        // A forked child has no Envoy.
        if !envoy::is_forked() {
            self.worker.outbox.post(message);
        }
    }

    /// Whether requests are logged here, once they are answered.
    pub(crate) fn logs_requests(&self) -> bool {
        self.process.app_logs_requests.load(Ordering::Relaxed)
    }

    /// A new future of the loop.
    pub(crate) fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.tasks.create_future(py)
    }

    /// A coroutine that is done.
    pub(crate) fn done(&self, py: Python<'_>) -> Py<Done> {
        self.done.clone_ref(py)
    }

    /// Reads the next piece of a file for `id`, which comes as a message.
    pub(crate) fn read_file(&self, id: ExchangeId, reader: FileReader, sends_files: bool) {
        let worker = self.worker.clone();
        self.process.tokio.spawn_blocking(move || {
            let read = Box::new(reader.read(sends_files));
            // Nobody wants it once the loop has ended.
            let _ = worker.inbox.post_all(&mut vec![Inbound::File(id, read)]);
        });
    }

    /// How long the application waits for a client; zero is for ever.
    fn timeout_idle(&self) -> Duration {
        self.process.config.timeout_idle
    }

    /// Sees to it that an exchange which waits for its client does not wait for ever.
    pub(crate) fn watch(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if this.timeout_idle().is_zero() || this.watching.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let again = (this.timeout_idle() / 4).as_secs_f64();
        let sweep = slf.getattr(intern!(py, "sweep"))?;
        this.call_later.call1(py, (again, sweep)).map(drop)
    }

    /// The application call of `id` has ended.
    pub(crate) fn forget(&self, id: ExchangeId) {
        // Dropped outside the lock. It breaks the circle of task, coroutine, `receive` and cycle.
        let (running, has_next) = {
            let mut calls = self.calls.lock();
            (calls.remove(id), calls.has_next())
        };
        if running.is_some() {
            self.process.in_flight.return_call();
        }
        if has_next {
            self.waker.wake();
        }
    }

    /// Ends the inbox: what comes now is refused on Envoy's side.
    pub(crate) fn close(&self) {
        let left = self.worker.inbox.close();
        left.iter().for_each(|message| self.give_up(message));
    }

    /// Ends what the loop has left when it has ended: of one that was told to, nothing.
    pub(crate) fn abandon(&self) {
        self.close();
        while let Some(message) = self.next_message() {
            self.give_up(&message);
        }
        // Dropped outside the lock.
        let calls = std::mem::take(&mut *self.calls.lock());
        let failure = Failure::Application;
        calls
            .iter()
            .for_each(|(id, _)| self.give_up_call(id, failure));
    }

    fn give_up(&self, message: &Inbound) {
        match message {
            Inbound::Start(id, _) => self.give_up_call(*id, Failure::TooLate),
            Inbound::Ping => self.worker.pulse.answer(),
            _ => {}
        }
    }

    /// There is no call of the application any more, or there will be none.
    fn give_up_call(&self, id: ExchangeId, failure: Failure) {
        self.post(Outbound::Fail(id, failure));
        self.process.in_flight.return_call();
    }

    fn take_inbox(&self) {
        let mut queue = self.queue.lock();
        let Queue { messages, batch } = &mut *queue;
        self.waker.clear();
        self.worker.inbox.drain(batch);
        messages.extend(batch.drain(..));
    }

    fn next_message(&self) -> Option<Inbound> {
        self.queue.lock().messages.pop_front()
    }

    fn handle(slf: &Bound<'_, Self>, message: Inbound) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let id = match message {
            Inbound::Start(id, request) => return Self::start_exchange(slf, id, request),
            Inbound::Ping => {
                this.worker.pulse.answer();
                return Ok(());
            }
            // Done when Rust was called: pyo3 then drops what was dropped elsewhere.
            Inbound::Dropped => return Ok(()),
            Inbound::CancelAll => return Self::cancel_all(slf),
            Inbound::GivenUp(id) => return Self::leave(slf, id),
            Inbound::CloseWebSockets(handshakes) => return this.close_websockets(py, handshakes),
            _ => message.id(),
        };
        // An exchange whose application has returned wants to know nothing more.
        let cycle = id.and_then(|id| Some(this.calls.lock().get(id)?.cycle.clone_ref(py)));
        cycle.map_or(Ok(()), |cycle| cycle.feed(py, message))
    }

    fn start_exchange(slf: &Bound<'_, Self>, id: ExchangeId, request: Request) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let closes_websockets = this.closes_websockets.get().copied();
        if request.websocket.is_some() && closes_websockets == Some(Handshakes::Fail) {
            this.give_up_call(id, Failure::Stopping);
            return Ok(());
        }
        let mount = request.head.mount;
        let scopes = this.scopes.get();
        let template = &scopes.expect("no request comes before the start-up has ended")[mount];
        let scope = match &request.websocket {
            Some(offer) => template.build_websocket(py, &request.head, offer)?,
            None => template.build(py, &request.head)?,
        };
        let cycle = Cycle::new(id, slf, request)?;
        let [receive, send] = this.methods.of(py, &cycle)?;
        let call = Call::new(
            cycle.clone_ref(py),
            this.apps[mount].clone_ref(py),
            (scope.unbind(), receive, send),
        );
        let running = Running {
            cycle: cycle.clone_ref(py),
            task: None,
        };
        let call = this.calls.lock().add(id, running, call);
        if let Some(handshakes) = closes_websockets {
            cycle.feed(py, Inbound::CloseWebSockets(handshakes))?;
        }
        if let Some(call) = call {
            this.begin(py, id, call);
        }
        Ok(())
    }

    /// Makes the task of a call.
    fn begin(&self, py: Python<'_>, id: ExchangeId, call: Call) {
        match self.tasks.create(py, call) {
            Ok(task) => {
                // An eager task may have ended already.
                if let Some(running) = self.calls.lock().get_mut(id) {
                    running.task = Some(task.unbind());
                }
            }
            Err(error) => {
                let cycle = self
                    .calls
                    .lock()
                    .get(id)
                    .map(|running| running.cycle.clone_ref(py));
                if let Some(cycle) = cycle {
                    cycle.end(py, &Outcome::Raised(error));
                }
            }
        }
    }

    /// Ends a call that Envoy has given up. If it listens, it is told, and has some time for itself; else
    /// it is cancelled at once.
    fn leave(slf: &Bound<'_, Self>, id: ExchangeId) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        if this.calls.lock().waits(id) {
            this.forget(id);
            return Ok(());
        }
        let leaving = {
            let mut calls = this.calls.lock();
            let leaving = calls.leave(id);
            leaving.map(|running| running.clone_ref(py))
        };
        let Some(Running { cycle, task }) = leaving else {
            return Ok(());
        };
        let listens = cycle.listens();
        cycle.feed(py, Inbound::GivenUp(id))?;
        if !listens {
            cancel(py, task)?;
        }
        let overdue = slf.getattr(intern!(py, "cancel_overdue"))?;
        // A little later, since loops round.
        let seconds = LEAVES_WITHIN.as_secs_f64() + 0.05;
        this.call_later.call1(py, (seconds, overdue)).map(drop)
    }

    /// All exchanges whose application call has not returned.
    fn cycles(&self, py: Python<'_>) -> Vec<Cycle> {
        let calls = self.calls.lock();
        let cycles = calls.iter().map(|(_, running)| running.cycle.clone_ref(py));
        cycles.collect()
    }

    fn close_websockets(&self, py: Python<'_>, handshakes: Handshakes) -> PyResult<()> {
        // A process drains once.
        let _ = self.closes_websockets.set(handshakes);
        let cycles = self.cycles(py).into_iter();
        let told = cycles.map(|cycle| cycle.feed(py, Inbound::CloseWebSockets(handshakes)));
        told.fold(Ok(()), PyResult::and)
    }

    fn cancel_all(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        // Those that wait, too, are cancelled as calls.
        while let Some((id, call)) = this.take_waiting() {
            this.begin(py, id, call);
        }
        let tasks: Vec<_> = {
            let calls = this.calls.lock();
            let tasks = calls.iter().map(|(_, running)| running.task.as_ref());
            tasks
                .map(|task| task.map(|task| task.clone_ref(py)))
                .collect()
        };
        let told = tasks.into_iter().map(|task| cancel(py, task));
        told.fold(Ok(()), PyResult::and)
    }

    fn take_waiting(&self) -> Option<(ExchangeId, Call)> {
        self.calls.lock().begin_next()
    }

    fn take_next(&self) -> Option<(ExchangeId, Call)> {
        self.calls.lock().next()
    }
}

impl Running {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            cycle: self.cycle.clone_ref(py),
            task: self.task.as_ref().map(|task| task.clone_ref(py)),
        }
    }
}

/// Cancels the task of a call, if it has one yet: in its first step an eager one has none.
fn cancel(py: Python<'_>, task: Option<Py<PyAny>>) -> PyResult<()> {
    task.map_or(Ok(()), |task| {
        task.call_method0(py, intern!(py, "cancel")).map(drop)
    })
}

#[pymethods]
impl Dispatcher {
    /// The loop's reader callback.
    fn drain(slf: &Bound<'_, Self>) {
        let (py, this) = (slf.py(), slf.get());
        this.take_inbox();
        // One at a time: Python code that runs below may come back here, as in a loop that is run
        // inside itself, and then goes on with the queue. So no message overtakes another.
        loop {
            while let Some((id, call)) = this.take_next() {
                this.begin(py, id, call);
            }
            let Some(message) = this.next_message() else {
                break;
            };
            let id = match &message {
                Inbound::Start(id, _) => Some(*id),
                _ => None,
            };
            // One exchange's trouble is not another's: the batch goes on.
            if let Err(error) = Self::handle(slf, message) {
                log::error!(
                    "exception in the dispatch of a request\n{}",
                    traceback::format(py, &error)
                );
                if let Some(id) = id {
                    let running = this.calls.lock().remove(id);
                    drop(running);
                    this.give_up_call(id, Failure::Application);
                }
            }
        }
    }

    /// The loop's task factory has been set, or taken back.
    fn use_task_factory(&self, has_factory: bool) {
        self.tasks.use_factory(has_factory);
    }

    /// Ends exchanges that have waited too long for their client, and looks again later if there
    /// are others that wait.
    fn sweep(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        this.watching.store(false, Ordering::Relaxed);
        let (now, limit) = (Instant::now(), this.timeout_idle());
        let calls = this.calls.lock();
        let waiting: Vec<_> = calls
            .iter()
            .map(|(id, running)| (id, running.cycle.waits(now, limit), running))
            .filter(|(_, waits, _)| *waits != Waits::No)
            .map(|(id, waits, running)| (id, waits, running.cycle.clone_ref(py)))
            .collect();
        drop(calls);
        let told = waiting.into_iter().map(|(id, waits, cycle)| {
            if waits == Waits::Yes {
                return Self::watch(slf);
            }
            this.post(Outbound::Fail(id, Failure::Idle));
            cycle.feed(py, Inbound::Disconnect(id))
        });
        // Of several errors one is enough to say.
        told.fold(Ok(()), PyResult::and)
    }

    /// Cancels what Envoy has given up and what has still not left, and waits for it no more.
    fn cancel_overdue(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, this) = (slf.py(), slf.get());
        let (overdue, has_next) = {
            let mut calls = this.calls.lock();
            let overdue = calls.overdue(Instant::now());
            let overdue: Vec<_> = overdue.map(|running| running.clone_ref(py)).collect();
            (overdue, calls.has_next())
        };
        if has_next {
            this.waker.wake();
        }
        let told = overdue.into_iter().map(|running| cancel(py, running.task));
        told.fold(Ok(()), PyResult::and)
    }
}

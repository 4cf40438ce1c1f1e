//! Runs on: the thread of a test.
//!
//! One Envoy worker thread for tests of the bridge's Envoy side: the fake Envoy with the bridge
//! loaded, and in place of the loop a [`PlayedLoop`], which does what the test says and no more.

use std::cell::{Cell, OnceCell};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use envoy::AttributeId;
use envoy::Module;
use envoy::fake::{self, Stream};
use rustc_hash::FxHashMap;
use tokio::runtime::{Builder, Runtime};
use upstream::router::NUMBER;

use crate::config::Config;
use crate::exchange::{
    Data, ExchangeId, Failure, Fields, Inbound, LoopWaker, Outbound, Payload, Process, Request,
    RequestHead, ResponseHead, WebSocketOffer, Worker, piece_cost,
};
use crate::life;
use crate::module::Bridge;
use crate::stream;

/// This thread's Envoy. A thread has one in its life, since its streams meet in a thread-local.
pub(crate) struct EnvoyThread {
    config: fake::FilterConfig,
    /// Those in front of the router and behind it, once they are wanted.
    front: OnceCell<fake::FilterConfig>,
    behind: OnceCell<fake::FilterConfig>,
    envoy: fake::Envoy,
    process: Arc<Process>,
}

/// The loop's side of a worker.
pub(crate) struct PlayedLoop {
    pub(crate) worker: Arc<Worker>,
    waker: Arc<LoopWaker>,
    process: Arc<Process>,
    /// Those whose requests have come, in that order: the index is an exchange's number.
    pub(crate) exchanges: Vec<Exchange>,
    numbers: FxHashMap<ExchangeId, usize>,
    /// How many calls of the application have not returned.
    running: usize,
}

/// What the loop knows of one exchange.
pub(crate) struct Exchange {
    pub(crate) id: ExchangeId,
    pub(crate) head: Arc<RequestHead>,
    /// As far as it has come.
    pub(crate) body: Vec<u8>,
    pub(crate) complete: bool,
    /// What its pieces counted for beyond their bytes.
    pub(crate) excess: usize,
    pub(crate) disconnected: bool,
    /// What it offers, if it is a WebSocket.
    pub(crate) websocket: Option<Box<WebSocketOffer>>,
    /// Its WebSocket was closed by the client.
    closed: bool,
}

/// What [`PlayedLoop::take`] answers if nothing has come.
pub(crate) const NOTHING: [&str; 0] = [];

/// Makes this thread the only Envoy worker thread of a process.
pub(crate) fn start() -> (EnvoyThread, PlayedLoop) {
    start_with("{}")
}

/// The same with settings, which are JSON.
pub(crate) fn start_with(settings: &str) -> (EnvoyThread, PlayedLoop) {
    start_in(&process_with(1, settings, Ticks::Played))
}

/// The same with the real clock.
pub(crate) fn start_ticking(settings: &str) -> (EnvoyThread, PlayedLoop) {
    start_in(&process_with(1, settings, Ticks::Real))
}

fn start_in(process: &Arc<Process>) -> (EnvoyThread, PlayedLoop) {
    (EnvoyThread::start(process, 0), PlayedLoop::new(process, 0))
}

/// What tells streams that time has passed.
enum Ticks {
    /// The streams' clock, so often as the settings say.
    Real,
    /// [`PlayedLoop::advance`] alone. A tick that comes by itself, since the machine is slow, would be
    /// one event more than a test counts.
    Played,
}

/// A process with `workers` workers.
pub(crate) fn new_process(workers: usize) -> Arc<Process> {
    process_with(workers, "{}", Ticks::Played)
}

fn process_with(workers: usize, settings: &str, ticks: Ticks) -> Arc<Process> {
    let mut settings: serde_json::Value = serde_json::from_str(settings).expect("JSON");
    settings["app"] = "main:app".into();
    let config = Config::parse(settings.to_string().as_bytes()).expect("valid settings");
    let tokio = match ticks {
        Ticks::Real => life::runtime().handle(),
        Ticks::Played => STILL.handle(),
    };
    let workers = (0..workers).map(|_| Arc::<Worker>::default());
    Arc::new(Process::new(
        config.into(),
        tokio.clone(),
        workers.collect(),
    ))
}

/// A tokio that nobody runs.
static STILL: LazyLock<Runtime> = LazyLock::new(|| {
    let builder = &mut Builder::new_current_thread();
    builder.build().expect("a runtime")
});

impl EnvoyThread {
    /// Makes this thread the Envoy worker thread `index` of `process`.
    pub(crate) fn start(process: &Arc<Process>, index: u32) -> Self {
        let process = process.clone();
        let bridge = Bridge {
            process: OnceLock::from(process.clone()),
        };
        // Envoy never unloads a module.
        Self::load(Box::leak(Box::new(bridge)), process, index)
    }

    /// The same with `module` in place of the bridge.
    pub(crate) fn load(module: &'static dyn Module, process: Arc<Process>, index: u32) -> Self {
        thread_local!(static STARTED: Cell<bool> = const { Cell::new(false) });
        assert!(!STARTED.replace(true), "a second Envoy of one thread");
        let builder = fake::Envoy::builder().worker_index(index);
        let envoy = builder.load(module).expect("the module loads");
        Self {
            config: filter_config(&envoy, "aiovoy"),
            front: OnceCell::new(),
            behind: OnceCell::new(),
            envoy,
            process,
        }
    }

    /// Begins a stream, of which no hook has run yet.
    pub(crate) fn stream(&self, request: fake::Request) -> Stream {
        self.config.stream(request)
    }

    /// The same in front of a router.
    pub(crate) fn front(&self, request: fake::Request) -> Stream {
        let config = || filter_config(&self.envoy, "aiovoy_front");
        self.front.get_or_init(config).stream(request)
    }

    /// The same behind it.
    pub(crate) fn behind(&self, request: fake::Request) -> Stream {
        let config = || filter_config(&self.envoy, "aiovoy_behind");
        self.behind.get_or_init(config).stream(request)
    }

    /// What a router makes of a stream in front of it: one behind it, over a connection of Envoy's own.
    pub(crate) fn route(&self, front: &Stream) -> Stream {
        let number = &front.request_header(NUMBER)[0];
        let request = fake::Request::get("/").header(NUMBER, number);
        self.behind(request.attribute(AttributeId::RequestProtocol, "HTTP/2"))
    }

    /// A request without a body.
    pub(crate) fn get(&self) -> Stream {
        let stream = self.stream(fake::Request::get("/"));
        stream.request_headers(true);
        stream
    }

    /// A request whose body is still to come.
    pub(crate) fn post(&self) -> Stream {
        let stream = self.stream(fake::Request::post("/"));
        stream.request_headers(false);
        stream
    }

    /// Ends the iteration of Envoy's dispatcher; says how many events were due.
    pub(crate) fn run_events(&self) -> usize {
        self.envoy.run_events()
    }

    /// Runs events, also those that other threads cause, until `done`.
    #[track_caller]
    pub(crate) fn run_until(&self, done: impl FnMut() -> bool) {
        self.envoy.run_until(done);
    }

    /// What was logged, oldest first.
    pub(crate) fn logs(&self) -> Vec<fake::LogRecord> {
        self.envoy.logs()
    }

    /// What a graceful shutdown would wait for.
    pub(crate) fn in_flight(&self) -> usize {
        self.process.in_flight.count()
    }

    /// How many streams there are, and how many requests are under way through the router.
    pub(crate) fn counts(&self) -> (usize, usize) {
        stream::Streams::of_thread(&self.process, 0).counts()
    }

    /// The server is stopping.
    pub(crate) fn drain(&self) {
        self.process.in_flight.drain();
    }
}

fn filter_config(envoy: &fake::Envoy, name: &str) -> fake::FilterConfig {
    let config = envoy.http_filter_config(name, b"");
    config.expect("the module takes its configuration")
}

/// A panic in a hook, or a response out of turn, ends a stream and is logged: no test asks for one.
impl Drop for EnvoyThread {
    fn drop(&mut self) {
        let logs = self.envoy.logs();
        let error = logs.iter().find(|record| record.level == log::Level::Error);
        if let Some(error) = error.filter(|_| !std::thread::panicking()) {
            panic!("Envoy logged an error: {}", error.message);
        }
    }
}

impl PlayedLoop {
    /// The loop of worker `index`.
    pub(crate) fn new(process: &Arc<Process>, index: u32) -> Self {
        let worker = process.worker(index);
        let waker = Arc::new(LoopWaker::new().expect("an eventfd"));
        worker.inbox.set_waker(waker.clone());
        Self {
            worker,
            waker,
            process: process.clone(),
            exchanges: Vec::new(),
            numbers: FxHashMap::default(),
            running: 0,
        }
    }

    /// Takes what is in the inbox, one line a message: `0: start "abc"`, `0: body "" end`,
    /// `0: room 65536`, `0: disconnect`, `cancel all`; of a WebSocket `0: text "abc"`,
    /// `0: binary "abc"`, `0: closed 1000 "bye"`. The number is the exchange's.
    ///
    /// Panics at what must never come: a second start, something else before it, body after its
    /// end, messages after the close frame, anything after the disconnect.
    #[track_caller]
    pub(crate) fn take(&mut self) -> Vec<String> {
        self.waker.clear();
        let messages = self.worker.inbox.take().into_iter();
        messages.map(|message| self.note(message)).collect()
    }

    /// Sleeps until it is woken.
    #[track_caller]
    pub(crate) fn sleep(&self) {
        self.waker.wait();
    }

    /// Whether it has been woken, and has not [taken](Self::take) anything since.
    pub(crate) fn is_woken(&self) -> bool {
        self.waker.is_readable()
    }

    /// Posts a whole response.
    pub(crate) fn answer(&self, exchange: usize, body: &str) {
        self.start(exchange, body, true);
    }

    /// Posts the head of a response with the first of its body.
    pub(crate) fn start(&self, exchange: usize, body: impl AsRef<[u8]>, end: bool) {
        let head = ResponseHead {
            status: 200,
            fields: Fields::default(),
            close: false,
        };
        self.start_with(exchange, head, body, end);
    }

    /// The same with a head of the test's choice.
    pub(crate) fn start_with(
        &self,
        exchange: usize,
        head: ResponseHead,
        body: impl AsRef<[u8]>,
        end: bool,
    ) {
        self.worker.outbox.post(Outbound::Start {
            id: self.exchanges[exchange].id,
            head,
            body: body.as_ref().to_vec().into(),
            end,
        });
    }

    /// Posts more of the body of a response.
    pub(crate) fn body(&self, exchange: usize, data: impl AsRef<[u8]>, end: bool) {
        self.worker.outbox.post(Outbound::Body {
            id: self.exchanges[exchange].id,
            data: data.as_ref().to_vec().into(),
            end,
        });
    }

    /// The same with bytes that are kept.
    pub(crate) fn kept_body(&self, exchange: usize, data: &'static [u8], end: bool) {
        self.worker.outbox.post(Outbound::Body {
            id: self.exchanges[exchange].id,
            data: Data::Kept(Box::new(data)),
            end,
        });
    }

    /// The application has taken `bytes` of the request's body.
    pub(crate) fn read(&self, exchange: usize, bytes: usize) {
        let id = self.exchanges[exchange].id;
        self.worker.outbox.post(Outbound::Read(id, bytes));
    }

    /// The application will not complete its response.
    pub(crate) fn fail(&self, exchange: usize) {
        self.fail_for(exchange, Failure::Application);
    }

    /// A response will not be completed.
    pub(crate) fn fail_for(&self, exchange: usize, failure: Failure) {
        let id = self.exchanges[exchange].id;
        self.worker.outbox.post(Outbound::Fail(id, failure));
    }

    /// Posts an interim head with one field.
    pub(crate) fn interim(&self, exchange: usize, status: u16, name: &str, value: &str) {
        let (id, mut fields) = (self.exchanges[exchange].id, Fields::default());
        fields.push(name.as_bytes(), value.as_bytes());
        self.worker
            .outbox
            .post(Outbound::Interim { id, status, fields });
    }

    /// Ends a response with trailers.
    pub(crate) fn trailers(&self, exchange: usize, trailers: &[(&str, &str)]) {
        let (id, mut fields) = (self.exchanges[exchange].id, Fields::default());
        for (name, value) in trailers {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        self.worker.outbox.post(Outbound::Trailers(id, fields));
    }

    /// Accepts the handshake of a WebSocket.
    pub(crate) fn accept(&self, exchange: usize) {
        self.accept_with(exchange, None, &[]);
    }

    /// The same with a subprotocol and fields of the test's choice.
    pub(crate) fn accept_with(
        &self,
        exchange: usize,
        subprotocol: Option<&str>,
        pairs: &[(&str, &str)],
    ) {
        let (id, mut fields) = (self.exchanges[exchange].id, Fields::default());
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        self.worker.outbox.post(Outbound::Accept {
            id,
            subprotocol: subprotocol.map(str::to_owned),
            fields,
        });
    }

    /// Posts a message of a WebSocket.
    pub(crate) fn text(&self, exchange: usize, text: impl AsRef<[u8]>) {
        let id = self.exchanges[exchange].id;
        let payload = Payload::Text(text.as_ref().to_vec());
        self.worker.outbox.post(Outbound::Message(id, payload));
    }

    /// The same of binary data.
    pub(crate) fn binary(&self, exchange: usize, data: impl AsRef<[u8]>) {
        let id = self.exchanges[exchange].id;
        let payload = Payload::Binary(data.as_ref().to_vec());
        self.worker.outbox.post(Outbound::Message(id, payload));
    }

    /// Closes a WebSocket.
    pub(crate) fn close_websocket(&self, exchange: usize, code: u16, reason: &str) {
        self.worker.outbox.post(Outbound::Close {
            id: self.exchanges[exchange].id,
            code,
            reason: reason.to_owned(),
        });
    }

    /// Puts the clock forward, of which streams learn at the next event.
    pub(crate) fn advance(&self, time: Duration) {
        stream::advance(time);
        self.worker.outbox.post(Outbound::Tick);
    }

    /// Whether something lies in the outbox.
    pub(crate) fn has_posted(&self) -> bool {
        self.worker.outbox.has_messages()
    }

    /// The application's calls return, all that have been made.
    pub(crate) fn return_calls(&mut self) {
        for _ in 0..std::mem::take(&mut self.running) {
            self.process.in_flight.return_call();
        }
    }

    /// Ends, with nothing in its inbox.
    #[track_caller]
    pub(crate) fn close(&self) {
        let left = self.worker.inbox.close();
        assert!(left.is_empty(), "the test takes first");
    }

    #[track_caller]
    fn note(&mut self, message: Inbound) -> String {
        let id = match message {
            Inbound::CancelAll => return "cancel all".to_owned(),
            Inbound::Dropped => return "dropped".to_owned(),
            Inbound::Start(id, request) => return self.note_start(id, request),
            Inbound::Body { id, .. }
            | Inbound::Room(id, _)
            | Inbound::Message(id, _)
            | Inbound::Closed { id, .. }
            | Inbound::Disconnect(id)
            | Inbound::GivenUp(id) => id,
            Inbound::File(..)
            | Inbound::FileSent(..)
            | Inbound::Ping
            | Inbound::CloseWebSockets(_) => {
                unreachable!("does not come from Envoy's side")
            }
        };
        let number = self.numbers.get(&id);
        let number = *number.expect("nothing of an exchange comes before its start");
        let exchange = &mut self.exchanges[number];
        assert!(!exchange.disconnected, "a message after the disconnect");
        match message {
            Inbound::Body { data, end, .. } => {
                assert!(!exchange.complete, "body after its end");
                exchange.body.extend_from_slice(&data);
                exchange.complete = end;
                exchange.excess += piece_cost(data.len()) - data.len();
                format!("{number}: body {}", describe(&data, end))
            }
            Inbound::Room(_, bytes) => format!("{number}: room {bytes}"),
            Inbound::Message(_, payload) => {
                assert!(!exchange.closed, "a message after the close frame");
                match payload {
                    Payload::Text(text) => format!("{number}: text {}", describe(&text, false)),
                    Payload::Binary(data) => format!("{number}: binary {}", describe(&data, false)),
                }
            }
            Inbound::Closed { code, reason, .. } => {
                assert!(!exchange.closed, "closed twice");
                exchange.closed = true;
                format!("{number}: closed {code} {reason:?}")
            }
            Inbound::GivenUp(_) => {
                exchange.disconnected = true;
                format!("{number}: given up")
            }
            _ => {
                exchange.disconnected = true;
                format!("{number}: disconnect")
            }
        }
    }

    #[track_caller]
    fn note_start(&mut self, id: ExchangeId, request: Request) -> String {
        let number = self.exchanges.len();
        assert!(self.numbers.insert(id, number).is_none(), "a second start");
        self.running += 1;
        let piece = describe(&request.body, request.complete);
        self.exchanges.push(Exchange {
            id,
            head: request.head,
            body: request.body,
            complete: request.complete,
            disconnected: false,
            websocket: request.websocket,
            excess: 0,
            closed: false,
        });
        format!("{number}: start {piece}")
    }
}

/// A piece of a body in a few words.
fn describe(data: &[u8], end: bool) -> String {
    let end = if end { " end" } else { "" };
    match str::from_utf8(data) {
        Ok(text) if data.len() <= 16 => format!("{text:?}{end}"),
        _ => format!("<{}>{end}", data.len()),
    }
}

/// Chooses what happens next, in tests that try many orders of events: the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        assert_ne!(seed, 0, "0 brings forth nothing but itself");
        Self(seed)
    }

    /// Any number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// True once in `bound` times.
    pub(crate) fn once_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    /// Xorshift.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

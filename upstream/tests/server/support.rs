//! A server on a thread of its own, with a service that answers by path, and a client of bytes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use tokio::sync::oneshot;
use upstream::server::{
    Ends, Exchange, Flow, Head, Listener, Network, Piece, Refusal, ResponseHead, Service, Settings,
    Stream,
};

/// Long enough for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicUsize,
    gone: AtomicUsize,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// With other settings than most tests have.
    pub(crate) fn start_with(change: fn(&mut Settings)) -> Self {
        let counts = Arc::<Counts>::default();
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let thread = std::thread::spawn({
            let counts = counts.clone();
            move || serve(counts, &bound, stopped, change)
        });
        Self {
            address: address.recv_timeout(PATIENCE).expect("it is bound"),
            counts,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// How many requests the service has seen since this was asked last.
    pub(crate) fn requests(&self) -> usize {
        self.counts.requests.swap(0, Ordering::SeqCst)
    }

    pub(crate) fn wait_for_requests(&self, count: usize) {
        wait_for(&self.counts.requests, count);
    }

    pub(crate) fn wait_for_gone(&self, count: usize) {
        wait_for(&self.counts.gone, count);
    }
}

fn wait_for(counter: &AtomicUsize, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while counter.load(Ordering::SeqCst) < count {
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(counter.swap(0, Ordering::SeqCst), count);
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server has not panicked");
        }
    }
}

fn serve(
    counts: Arc<Counts>,
    bound: &mpsc::Sender<SocketAddr>,
    stopped: oneshot::Receiver<()>,
    change: fn(&mut Settings),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        bound
            .send(listener.local_addr().expect("an address"))
            .expect("the test waits");
        let second = Duration::from_secs(1);
        let mut settings = Settings {
            head_bytes: 16 * 1024,
            timeout_head: second / 4,
            timeout_keep_alive: second / 2,
            timeout_idle: 5 * second,
            tick: Duration::from_millis(20),
            websockets: true,
            streams: 100,
            stream_window: 65_536,
            connection_window: 1024 * 1024,
            connections: 100,
        };
        change(&mut settings);
        let network = Network::new(settings, Rc::new(ByPath(counts)));
        let _turns = network.start(Arc::new(AtomicWaker::new()));
        let _accepting = network.accept(vec![Listener::Tcp(listener)]);
        drop(stopped.await);
    });
}

/// Bytes of the response at `/large`.
pub(crate) const LARGE: usize = 8 * 1024 * 1024;

struct ByPath(Arc<Counts>);

impl Service for ByPath {
    fn begin(&self, head: &Head<'_>, stream: &Stream) -> Rc<dyn Exchange> {
        self.0.requests.fetch_add(1, Ordering::SeqCst);
        let path = String::from_utf8_lossy(head.target).into_owned();
        let authority = head
            .authority
            .map(String::from_utf8_lossy)
            .unwrap_or_default();
        match path.as_str() {
            "/hello" => answer(stream, b"hello"),
            "/early" => answer(stream, b"early"),
            "/stream" => {
                start(stream, 200, None, b"a", false);
                stream.send(Piece::Copied(b"b"), false);
                stream.send(Piece::Copied(b"c"), true);
            }
            "/raw" => {
                assert!(head.websocket);
                start(stream, 101, None, b"", false);
            }
            "/hold" | "/pause" => {}
            "/large" => {
                start(stream, 200, Some(LARGE), b"", false);
                let piece = bytes::Bytes::from(vec![b'x'; LARGE]);
                stream.send(Piece::Kept(piece), true);
            }
            "/echo" if head.length != Some(0) => {}
            _ => answer(stream, format!("{path} at {authority}").as_bytes()),
        }
        Rc::new(Echo {
            stream: stream.clone(),
            counts: self.0.clone(),
            body: RefCell::default(),
            path,
        })
    }

    fn refused(&self, _: &Ends, _: Refusal) {}

    fn drains(&self) -> bool {
        false
    }

    fn turn(&self) {}

    fn wrote(&self) {}

    fn tick(&self, _: Instant) {}
}

struct Echo {
    stream: Stream,
    counts: Arc<Counts>,
    body: RefCell<Vec<u8>>,
    path: String,
}

impl Exchange for Echo {
    fn on_body(&self, piece: Cow<'_, [u8]>, end: bool) -> Flow {
        match self.path.as_str() {
            "/raw" => self.stream.send(Piece::Copied(&piece), false),
            "/echo" => {
                self.body.borrow_mut().extend_from_slice(&piece);
                if end {
                    answer(&self.stream, &self.body.take());
                }
            }
            "/pause" => return Flow::Pause,
            _ => {}
        }
        Flow::Go
    }

    fn on_writable(&self) {}

    fn on_file(&self, _: std::io::Result<usize>, _: bool) {}

    fn on_gone(&self) {
        self.counts.gone.fetch_add(1, Ordering::SeqCst);
    }
}

fn answer(stream: &Stream, body: &[u8]) {
    start(stream, 200, Some(body.len()), body, true);
}

fn start(stream: &Stream, status: u16, length: Option<usize>, body: &[u8], end: bool) {
    let text = length.map(|length| length.to_string());
    let mut fields = text
        .iter()
        .map(|text| (&b"content-length"[..], text.as_bytes()));
    let head = ResponseHead {
        status,
        fields: &mut fields,
        length: length.map(|length| length as u64),
        close: false,
    };
    stream.start(head, Piece::Copied(body), end);
}

pub(crate) struct Client(TcpStream);

impl Client {
    pub(crate) fn connect(server: &Server) -> Self {
        let socket = TcpStream::connect(server.address).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket.set_nodelay(true).expect("set");
        Self(socket)
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.write_bytes(text.as_bytes());
    }

    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) {
        // A server that has closed meanwhile has answered.
        let _ = self.0.write_all(bytes);
    }

    pub(crate) fn read_bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("so much comes");
        bytes
    }

    pub(crate) fn read(&mut self, length: usize) -> String {
        String::from_utf8(self.read_bytes(length)).expect("text")
    }

    /// Status and fields of a response.
    pub(crate) fn head(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push_str(&self.read(1));
        }
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), head)
    }

    /// Status and body of a response that has its length.
    pub(crate) fn response(&mut self) -> (u16, String) {
        let (status, head) = self.head();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.expect("a length").parse().expect("a number");
        (status, self.read(length))
    }

    /// All until the end.
    pub(crate) fn all(&mut self) -> String {
        let mut all = String::new();
        self.0.read_to_string(&mut all).expect("it ends");
        all
    }

    /// The same connection.
    pub(crate) fn again(&self) -> Self {
        Self(self.0.try_clone().expect("a descriptor"))
    }

    /// Nothing more is written.
    pub(crate) fn end(&self) {
        // A server that has closed meanwhile needs no end.
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    /// Goes without a word to the server's application.
    pub(crate) fn leave(self, reset: bool) {
        if reset {
            let socket = socket2::SockRef::from(&self.0);
            socket.set_linger(Some(Duration::ZERO)).expect("set");
        }
    }

    /// Writes until the server has closed.
    pub(crate) fn write_until_closed(&mut self, bytes: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        while self.0.write_all(bytes).is_ok() {
            assert!(Instant::now() < deadline, "it does not close");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All bytes until the end, which may be a reset.
    pub(crate) fn all_bytes(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return all,
                Ok(length) => all.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("it does not end: {error}"),
            }
        }
    }

    /// Whether nothing comes any more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.0.read(&mut [0]).is_ok_and(|length| length == 0)
    }
}

//! Runs on: network thread; any thread says to it what to do.
//!
//! The thread of a network.

use std::fs::OpenOptions;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use rustix::net::{AddressFamily, sockopt};
use tokio::runtime::{self, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use upstream::server::{Listener, Network, Running, Settings};

use super::access_log::AccessLog;
use super::front::Front;
use super::log_writer::LogWriter;
use crate::config::{AccessLogConfig, Config, NetworkConfig};
use crate::exchange::{Process, Waker};
use crate::websocket::WebSockets;

/// The thread of a network, seen from others.
pub(crate) struct NetworkThread {
    orders: mpsc::UnboundedSender<Order>,
    /// Until somebody waits for it.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What it is to do.
enum Order {
    Open(Vec<OwnedFd>),
    Pause(bool),
    Close,
    Tell(oneshot::Sender<Load>),
}

/// What is known of its connections.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) accepts: bool,
    pub(crate) connections: usize,
    /// There is something of responses that clients have not taken yet.
    pub(crate) is_unwritten: bool,
}

impl NetworkThread {
    /// Starts the thread of the only worker of `process`.
    pub(crate) fn start(process: Arc<Process>, config: NetworkConfig) -> io::Result<Self> {
        let (orders, received) = mpsc::unbounded_channel();
        let log = config.access_log.as_ref().map(open_log).transpose()?;
        let thread = Builder::new()
            .name("aiovoy-net-0".into())
            .spawn(move || serve(process, &config, log, received))?;
        Ok(Self {
            orders,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Lets clients in who come to these sockets.
    pub(crate) fn open(&self, listeners: Vec<OwnedFd>) {
        self.order(Order::Open(listeners));
    }

    /// Leaves who comes to others on the same sockets, or not any more.
    pub(crate) fn pause(&self, wanted: bool) {
        self.order(Order::Pause(wanted));
    }

    /// Lets nobody in any more, and closes the sockets.
    pub(crate) fn close(&self) {
        self.order(Order::Close);
    }

    /// How it stands; nothing if it has ended.
    pub(crate) async fn load(&self) -> Load {
        let (sender, load) = oneshot::channel();
        self.order(Order::Tell(sender));
        load.await.unwrap_or_default()
    }

    /// Ends the thread, and all connections that there are.
    pub(crate) fn end(self) {
        drop(self.orders);
        if let Some(thread) = self.thread.lock().take() {
            // One that has panicked has ended.
            let _ = thread.join();
        }
    }

    fn order(&self, order: Order) {
        // One that has ended does nothing any more.
        let _ = self.orders.send(order);
    }
}

/// Wakes a network thread for a turn.
#[derive(Debug)]
struct TurnWaker(Arc<AtomicWaker>);

impl Waker for TurnWaker {
    fn wake(&self) {
        self.0.wake();
    }
}

fn open_log(config: &AccessLogConfig) -> io::Result<AccessLog> {
    let output = match &config.file {
        Some(path) => OpenOptions::new().append(true).open(path)?,
        None => io::stdout().as_fd().try_clone_to_owned()?.into(),
    };
    Ok(AccessLog::new(config.form, LogWriter::start(output)?))
}

fn serve(
    process: Arc<Process>,
    config: &NetworkConfig,
    log: Option<AccessLog>,
    orders: mpsc::UnboundedReceiver<Order>,
) {
    let runtime: io::Result<LocalRuntime> = runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => {
            runtime.block_on(obey(process, config, log, orders));
            // A file that is being sent may be on a disk that does not answer.
            runtime.shutdown_background();
        }
        Err(error) => log::error!("no runtime for the network: {error}"),
    }
}

async fn obey(
    process: Arc<Process>,
    config: &NetworkConfig,
    log: Option<AccessLog>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let worker = process.workers()[0].clone();
    let settings = settings(&process.config, config);
    let front = Front::new(process, worker.clone(), config.request_id, log);
    let network = Network::new(settings, front.clone());
    front.know(&network);
    let waker = Arc::new(AtomicWaker::new());
    let _turns = network.start(waker.clone());
    worker.outbox.set_waker(Some(Arc::new(TurnWaker(waker))));
    let mut sockets = Vec::new();
    let mut accepting = None;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Open(opened) => {
                sockets = opened;
                accepting = accept(&network, &sockets);
            }
            Order::Pause(true) => accepting = None,
            Order::Pause(false) if accepting.is_none() => accepting = accept(&network, &sockets),
            Order::Pause(false) => {}
            Order::Close => {
                accepting = None;
                sockets.clear();
            }
            // Nobody hears it if it has taken too long.
            Order::Tell(load) => drop(load.send(Load {
                accepts: accepting.is_some(),
                connections: network.connections(),
                is_unwritten: network.is_unwritten(),
            })),
        }
    }
    worker.outbox.set_waker(None);
}

/// Lets in who comes to any of `sockets`, as long as the result is kept.
fn accept(network: &Rc<Network>, sockets: &[OwnedFd]) -> Option<Running> {
    let listeners: io::Result<Vec<_>> = sockets.iter().map(listener).collect();
    match listeners {
        Ok(listeners) => Some(network.accept(listeners)),
        Err(error) => {
            log::error!("a socket can't be listened on: {error}");
            None
        }
    }
}

/// Of silence before the first probe, and between probes.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(20);

fn listener(socket: &OwnedFd) -> io::Result<Listener> {
    let socket = socket.try_clone()?;
    let family = rustix::net::getsockname(&socket)?.address_family();
    rustix::io::ioctl_fionbio(&socket, true)?;
    if family == AddressFamily::UNIX {
        let listener = tokio::net::UnixListener::from_std(UnixListener::from(socket))?;
        return Ok(Listener::Unix(listener));
    }
    // Connections have it from here. So a client that has vanished from the network is noticed.
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, KEEP_ALIVE_EVERY)?;
    let listener = tokio::net::TcpListener::from_std(TcpListener::from(socket))?;
    Ok(Listener::Tcp(listener))
}

/// A head above its limit is answered by the bridge, and by the connection only if it is above it by so much.
const HEAD_ABOVE: usize = 32 * 1024;
/// Bytes of a request's body that are on their way and not read yet, on HTTP/2.
const STREAM_WINDOW: u32 = 256 * 1024;

fn settings(config: &Config, network: &NetworkConfig) -> Settings {
    let head = config.limit_request_header_bytes.unwrap_or(u64::MAX);
    let streams = network.http2_max_concurrent_streams;
    Settings {
        head_bytes: usize::try_from(head)
            .unwrap_or(usize::MAX)
            .saturating_add(HEAD_ABOVE),
        timeout_head: network.timeout_request_headers,
        timeout_keep_alive: network.timeout_keep_alive,
        timeout_idle: config.timeout_idle,
        tick: tick(config, network),
        websockets: network.websockets,
        streams,
        stream_window: STREAM_WINDOW,
        // Room for all, or some that nobody reads would hold up the rest.
        connection_window: streams.saturating_mul(STREAM_WINDOW).min(i32::MAX as u32),
        connections: network.limit_connections,
    }
}

/// Often enough for all that wait for time.
fn tick(config: &Config, network: &NetworkConfig) -> Duration {
    let limits = [
        network.timeout_request_headers,
        network.timeout_keep_alive,
        config.timeout_idle,
    ];
    let limits = limits.into_iter().filter(|limit| !limit.is_zero());
    let shortest = limits.min().map_or(Duration::MAX, |limit| limit / 4);
    let of_sockets = WebSockets::new(config).tick;
    shortest
        .clamp(Duration::from_millis(20), Duration::from_secs(1))
        .min(of_sockets)
}

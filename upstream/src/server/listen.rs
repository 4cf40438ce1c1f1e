//! Runs on: network thread.
//!
//! Who comes.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::task::spawn_local;

use super::io::{Io, Rewound};
use super::network::Taken;
use super::{End, Ends, Network, http1, http2};

/// How long nobody is let in after the process has run out of something, such as descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of a Unix domain.
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Io, Ends)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, client) = listener.accept().await?;
                // Responses leave in whole writes.
                let _ = socket.set_nodelay(true);
                let ends = Ends {
                    client: end(client),
                    server: socket.local_addr().map(end).unwrap_or_default(),
                };
                Ok((Io::Tcp(socket), ends))
            }
            Self::Unix(listener) => {
                let (socket, client) = listener.accept().await?;
                let ends = Ends {
                    client: path(&client),
                    server: listener
                        .local_addr()
                        .map(|server| path(&server))
                        .unwrap_or_default(),
                };
                Ok((Io::Unix(socket), ends))
            }
        }
    }
}

fn end(address: SocketAddr) -> End {
    End {
        host: address.ip().to_canonical().to_string(),
        port: Some(address.port()),
    }
}

fn path(address: &tokio::net::unix::SocketAddr) -> End {
    let path = address
        .as_pathname()
        .map(|path| path.to_string_lossy().into_owned());
    End {
        host: path.unwrap_or_default(),
        port: None,
    }
}

/// Lets in who comes, as long as there is room.
pub(super) async fn accept(network: Rc<Network>, listener: Listener) {
    loop {
        while network.room.get() == 0 {
            network.has_room.notified().await;
        }
        match listener.accept().await {
            Ok((io, ends)) => {
                let place = network.take_place();
                spawn_local(serve(network.clone(), io, ends, place));
            }
            // It has gone before it was let in.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log::warn!("nobody is let in for {} ms: {error}", PAUSE.as_millis());
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What a connection of HTTP/2 begins with: RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The life of a connection.
async fn serve(network: Rc<Network>, mut io: Io, ends: Ends, _place: Taken) {
    let limit = network.settings.timeout_keep_alive;
    let first = first_bytes(&network, &mut io);
    let first = match limit.is_zero() {
        true => first.await,
        false => tokio::time::timeout(limit, first).await.ok().flatten(),
    };
    match first {
        None => {}
        Some(first) if first.starts_with(PREFACE) => {
            http2::serve(network.clone(), Rewound::new(first, io), ends).await;
        }
        Some(first) => http1::serve(network.clone(), io, ends, &first).await,
    }
}

/// What a client begins with, as much as tells its protocol; `None` if it has gone.
async fn first_bytes(network: &Network, io: &mut Io) -> Option<Vec<u8>> {
    let mut first = Vec::new();
    loop {
        let read = poll_fn(|context| {
            let mut buffer = network.buffer.borrow_mut();
            let read = ready!(io.poll_read(context, &mut buffer))
                .ok()
                .filter(|length| *length > 0);
            Poll::Ready(read.map(|length| first.extend_from_slice(&buffer[..length])))
        });
        read.await?;
        if first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
            return Some(first);
        }
    }
}

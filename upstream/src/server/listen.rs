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
use tokio::time::timeout;

use super::io::Io;
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

/// Lets in who comes; where there is no room, who comes is closed at once, and may go elsewhere.
pub(super) async fn accept(network: Rc<Network>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok(_) if network.room.get() == 0 => {}
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

/// The life of a connection.
async fn serve(network: Rc<Network>, mut io: Io, ends: Ends, _place: Taken) {
    match first_bytes(&network, &mut io).await {
        None => {}
        Some(first) if first.starts_with(http2::PREFACE) => {
            http2::serve(network.clone(), io, ends, &first).await;
        }
        Some(first) => http1::serve(network.clone(), io, ends, &first).await,
    }
}

/// What a client begins with, as much as tells its protocol; `None` if it has gone, or takes too long.
async fn first_bytes(network: &Network, io: &mut Io) -> Option<Vec<u8>> {
    let mut first = Vec::new();
    within(
        network.settings.timeout_keep_alive,
        read_to(network, io, &mut first),
    )
    .await?;
    let preface = async {
        while first.len() < http2::PREFACE.len() && http2::PREFACE.starts_with(&first) {
            read_to(network, io, &mut first).await?;
        }
        Some(())
    };
    within(network.settings.timeout_head, preface).await?;
    Some(first)
}

/// Nothing if it takes too long; zero is for ever.
async fn within<T>(limit: Duration, act: impl Future<Output = Option<T>>) -> Option<T> {
    match limit.is_zero() {
        true => act.await,
        false => timeout(limit, act).await.ok().flatten(),
    }
}

/// Reads on; `None` if nothing more comes.
async fn read_to(network: &Network, io: &mut Io, first: &mut Vec<u8>) -> Option<()> {
    poll_fn(|context| {
        network.read(|buffer| {
            let read = ready!(io.poll_read(context, buffer));
            Poll::Ready(matches!(read, Ok(1..)).then(|| first.extend_from_slice(buffer)))
        })
    })
    .await
}

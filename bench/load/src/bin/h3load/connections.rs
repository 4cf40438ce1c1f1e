//! All connections together, in one thread.

use std::cell::{Cell, RefCell};
use std::future;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use load::{Arguments, Figures};
use quinn::Endpoint;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::runtime;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use crate::case::Case;
use crate::error::Error;

/// How long a connection may take to say that it ends: after that the server finds out by itself.
const FAREWELL: Duration = Duration::from_millis(500);

pub(crate) struct Load {
    pub arguments: Arguments,
    pub case: Case,
    /// How long the server may take for an answer, or for a handshake.
    pub patience: Duration,
}

/// What the connections have seen.
struct Seen {
    begin: Instant,
    times: RefCell<Vec<Duration>>,
    last: Cell<Instant>,
}

impl Load {
    pub(crate) fn run(self) -> Result<Figures, Error> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        LocalSet::new().block_on(&runtime, Rc::new(self).put())
    }

    async fn put(self: Rc<Self>) -> Result<Figures, Error> {
        let mut opening = JoinSet::new();
        for _ in 0..self.arguments.connections {
            let load = Rc::clone(&self);
            opening.spawn_local(async move { load.connect().await });
        }
        let (mut endpoints, mut connections) = (Vec::new(), Vec::new());
        while let Some(opened) = opening.join_next().await {
            let (endpoint, connection) = opened.expect("no task panics")?;
            endpoints.push(endpoint);
            connections.push(connection);
        }
        let begin = Instant::now();
        let seen = Rc::new(Seen {
            begin,
            times: RefCell::default(),
            last: Cell::new(begin),
        });
        let mut asking = JoinSet::new();
        for connection in connections {
            let (load, seen) = (Rc::clone(&self), Rc::clone(&seen));
            asking.spawn_local(async move { load.ask(connection, &seen).await });
        }
        while let Some(ended) = asking.join_next().await {
            ended.expect("no task panics")?;
        }
        for endpoint in endpoints {
            // Else the server would keep the connection for its idle time.
            endpoint.close(0u8.into(), b"");
            let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        }
        Ok(Figures::of(seen.times.take(), seen.last.get() - begin))
    }

    /// A connection with a socket of its own, as clients have.
    async fn connect(&self) -> Result<(Endpoint, SendRequest<OpenStreams, Bytes>), Error> {
        let port = self.arguments.port;
        let failed = |why: String| Error::Connect { port, why };
        let endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let tls = QuicClientConfig::try_from(Arc::clone(&self.case.tls))
            .map_err(|error| failed(error.to_string()))?;
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let connection = endpoint
            .connect_with(quinn::ClientConfig::new(Arc::new(tls)), server, "localhost")
            .map_err(|error| failed(error.to_string()))?;
        let connection = timeout(self.patience, connection)
            .await
            .map_err(|_| Error::Silent(self.patience))?
            .map_err(|error| failed(error.to_string()))?;
        let (mut driver, requests) = h3::client::new(h3_quinn::Connection::new(connection))
            .await
            .map_err(|error| failed(error.to_string()))?;
        // What goes wrong with the connection the requests say as well.
        tokio::task::spawn_local(async move {
            future::poll_fn(|context| driver.poll_close(context)).await
        });
        Ok((endpoint, requests))
    }

    /// One request after the other.
    async fn ask(
        &self,
        mut connection: SendRequest<OpenStreams, Bytes>,
        seen: &Seen,
    ) -> Result<(), Error> {
        while self
            .arguments
            .go_on(seen.begin.elapsed(), seen.times.borrow().len())
        {
            let asked = Instant::now();
            timeout(self.patience, self.exchange(&mut connection))
                .await
                .map_err(|_| Error::Silent(self.patience))??;
            let now = Instant::now();
            seen.times.borrow_mut().push(now - asked);
            seen.last.set(now);
        }
        Ok(())
    }

    /// A request and its answer.
    async fn exchange(
        &self,
        connection: &mut SendRequest<OpenStreams, Bytes>,
    ) -> Result<(), Error> {
        let mut stream = connection.send_request(self.case.request.clone()).await?;
        if let Some(body) = &self.case.body {
            stream.send_data(body.clone()).await?;
        }
        stream.finish().await?;
        let status = stream.recv_response().await?.status();
        if status != http::StatusCode::OK {
            return Err(Error::Status(status));
        }
        let expected = &self.case.answer;
        let (mut got, mut same) = (0, true);
        while let Some(mut data) = stream.recv_data().await? {
            while data.has_remaining() {
                let piece = data.chunk();
                let end = got + piece.len();
                same &= expected.get(got..end) == Some(piece);
                got = end;
                data.advance(piece.len());
            }
        }
        if !same || got != expected.len() {
            return Err(Error::Content {
                expected: expected.len(),
                got,
            });
        }
        Ok(())
    }
}

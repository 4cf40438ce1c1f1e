//! `h3load` with servers that answer as they should, and with others.

#![cfg(feature = "h3")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{self, Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use h3::server::RequestStream;
use h3_quinn::BidiStream;
use http::{Method, Request, Response};
use quinn::Endpoint;
use quinn::crypto::rustls::QuicServerConfig;
use rcgen::CertifiedKey;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::TLS13;
use tokio::runtime::{Builder, Runtime};

/// A server for as long as this is. What it answers to a request is the status and the path, and what was sent.
struct Server {
    _runtime: Runtime,
    port: u16,
    /// With what `h3load` reads.
    folder: PathBuf,
}

impl Server {
    fn start() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("h3load-{}-{number}", process::id()));
        fs::create_dir(&folder).expect("it is new");
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it is a name");
        fs::write(folder.join("authority"), cert.pem()).expect("the folder is there");
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let mut tls =
            rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_protocol_versions(&[&TLS13])
                .expect("ring has it")
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .expect("they belong together");
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let quic = QuicServerConfig::try_from(tls).expect("it is TLS 1.3");
        let config = quinn::ServerConfig::with_crypto(Arc::new(quic));

        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads start");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let guard = runtime.enter();
        let endpoint = Endpoint::server(config, address).expect("a port is free");
        drop(guard);
        let port = endpoint.local_addr().expect("it is bound").port();
        runtime.spawn(serve(endpoint));
        Self {
            _runtime: runtime,
            port,
            folder,
        }
    }

    /// The load of so many requests over two connections.
    fn load(&self, path: &str, body: Option<&str>, answer: &str, requests: usize) -> Output {
        let write = |name, content: &str| {
            fs::write(self.folder.join(name), content).expect("the folder is there");
        };
        write("path", path);
        write("answer", answer);
        if let Some(body) = body {
            write("body", body);
        }
        Command::new(env!("CARGO_BIN_EXE_h3load"))
            .arg(self.port.to_string())
            .arg(&self.folder)
            .args(["2", "0", &requests.to_string()])
            .output()
            .expect("it is built")
    }

    /// Why a load of one request gives no figures.
    fn error(&self, path: &str, answer: &str) -> String {
        let output = self.load(path, None, answer, 1);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("it is text")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).expect("it is ours");
    }
}

async fn serve(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await.expect("the client trusts us");
            let mut connection = h3::server::Connection::new(h3_quinn::Connection::new(connection))
                .await
                .expect("it speaks HTTP/3");
            while let Ok(Some(resolver)) = connection.accept().await {
                tokio::spawn(async move {
                    let (request, stream) = resolver.resolve_request().await.expect("it is whole");
                    answer(request, stream).await;
                });
            }
        });
    }
}

async fn answer(request: Request<()>, mut stream: RequestStream<BidiStream<Bytes>, Bytes>) {
    let path = request.uri().path();
    let mut body = BytesMut::from(path);
    if request.method() == Method::POST {
        while let Some(data) = stream.recv_data().await.expect("the client goes on") {
            body.extend_from_slice(data.chunk());
        }
    }
    let status = path.get(1..4).expect("it begins with a status");
    let response = Response::builder().status(status).body(()).expect(status);
    // The client may have seen enough by now.
    let _ = stream.send_response(response).await;
    for piece in body.chunks(3) {
        let _ = stream.send_data(Bytes::copy_from_slice(piece)).await;
    }
    let _ = stream.finish().await;
}

#[test]
fn answers_are_counted() {
    let server = Server::start();
    for (body, answer) in [(None, "/200/hello"), (Some("world"), "/200/helloworld")] {
        let output = server.load("/200/hello", body, answer, 20);
        let printed = String::from_utf8(output.stdout).expect("it is text");
        assert!(output.status.success());
        // The second connection may have asked before the first one had its last answer.
        let counts = [20, 21].map(|count| format!(r#"{{"requests": {count}, "seconds": "#));
        assert!(
            counts.iter().any(|begin| printed.starts_with(begin)),
            "{printed}"
        );
    }
}

#[test]
fn wrong_answers_are_errors() {
    let server = Server::start();
    let shorter =
        "error: expected a body of 9 bytes, got one of 10 that differs from it\n".to_owned();
    assert_eq!(server.error("/200/hello", "/200/hell"), shorter);
    let other = server.error("/200/hello", "/200/hallo");
    assert_eq!(other, shorter.replace('9', "10"));
    let longer = server.error("/200/hello", "/200/hello!");
    assert_eq!(longer, shorter.replace('9', "11"));
    let status = server.error("/404/hello", "/404/hello");
    assert_eq!(status, "error: expected status 200, got 404 Not Found\n");
}

#[test]
fn a_server_that_is_not_trusted_is_an_error() {
    let (server, other) = (Server::start(), Server::start());
    fs::copy(
        other.folder.join("authority"),
        server.folder.join("authority"),
    )
    .expect("both are there");
    let error = server.error("/200/hello", "/200/hello");
    let begin = format!("error: cannot connect to port {}: ", server.port);
    assert!(error.starts_with(&begin), "{error}");
}

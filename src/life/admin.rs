//! Runs on: tokio.
//!
//! The requests that aiovoy makes to its own Envoy's admin interface, where Envoy has no callback.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Asks the admin interface at `address`, a path or `ip:port`, to close the listening sockets.
pub(crate) async fn stop_listening(address: &str) -> io::Result<()> {
    post(address, "/drain_listeners").await
}

/// Asks it to show what this module logs at level info.
pub(crate) async fn log_info(address: &str) -> io::Result<()> {
    post(address, "/logging?dynamic_modules=info").await
}

async fn post(address: &str, target: &str) -> io::Result<()> {
    if address.starts_with(['/', '.', '@']) {
        request(UnixStream::connect(address).await?, target).await
    } else {
        request(TcpStream::connect(address).await?, target).await
    }
}

async fn request(mut stream: impl AsyncRead + AsyncWrite + Unpin, target: &str) -> io::Result<()> {
    let request = format!(
        "POST {target} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or("nothing");
    if status.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(io::Error::other(format!("answered `{status}`")))
}

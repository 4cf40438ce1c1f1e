//! Runs on: tokio.
//!
//! The one request that aiovoy makes to its own Envoy's admin interface. Envoy has no callback
//! for it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// Asks the admin interface at `address`, a path or `ip:port`, to close the listening sockets.
pub(crate) async fn stop_listening(address: &str) -> io::Result<()> {
    if address.starts_with(['/', '.', '@']) {
        drain_listeners(UnixStream::connect(address).await?).await
    } else {
        drain_listeners(TcpStream::connect(address).await?).await
    }
}

async fn drain_listeners(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let request = b"POST /drain_listeners HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or("nothing");
    if status.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(io::Error::other(format!("answered `{status}`")))
}

//! Accepting connections, whoever opens them.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long accepting pauses when the system has no descriptor or memory for one more connection.
const BACKOFF: Duration = Duration::from_millis(50);

/// A source of connections.
pub trait Listener: Sync {
    /// A connection and its origin.
    type Connection: Send;

    /// Waits for the next one. Cancellation safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listener for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<Self::Connection> {
        TcpListener::accept(self).await
    }
}

/// The next connection; `None` once `stop` is cancelled. A failure is logged as one to accept `what`, and does not end
/// the server: the client is gone already, or the system has no descriptor left, which passes.
pub async fn next<L: Listener>(listener: &L, what: &str, stop: &CancellationToken) -> Option<L::Connection> {
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok(connection) => return Some(connection),
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                warn!("cannot accept {what}: {error}");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

//! Connections of the HTTP server: bound in number, in time and in memory.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::server::acceptor;
use crate::server::admin::Options;
use crate::server::metrics::Requests;

/// Connections at once. One more ends the oldest: a slow client keeps no health check waiting. Each may hold a value on
/// its way.
const CONNECTIONS_MAX: usize = 64;

/// How long a request's head may take to come, from the end of the one before.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How long a client may take nothing of its answer.
const TAKE_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a request's head: room for the longest key with every byte encoded, and for the
/// headers of browsers and proxies.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long requests may still be answered after a stop.
const GRACE: Duration = Duration::from_secs(2);

/// Why the HTTP server does not open; the operator can mend it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for HTTP on {address} (--http-listen): {error}")]
pub struct Error {
    address: String,
    error: io::Error,
}

/// Binds the address. `None` when it is only the default address and cannot be bound: a cache can run without it.
///
/// # Errors
/// The address is taken, is not valid, or is not this machine's.
pub fn bind(options: &Options) -> Result<Option<TcpListener>, Error> {
    let bound = options.listen.to_socket_addrs().and_then(|addresses| {
        let addresses: Vec<SocketAddr> = addresses.collect();
        let listener = TcpListener::bind(&*addresses)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    match bound {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if options.is_default => {
            warn!(
                "no status page and no metrics of this node: cannot listen on {}: {error}; \
                 give it an --http-listen of its own",
                options.listen
            );
            Ok(None)
        }
        Err(error) => Err(Error { address: options.listen.clone(), error }),
    }
}

/// Serves incoming connections until `stop`. Then it serves those that have a request under way for a little longer.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    requests: Arc<Requests>,
    stop: CancellationToken,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!("HTTP is not answered: {error}"),
    };
    if let Ok(address) = listener.local_addr() {
        info!("status page and metrics on http://{address}/");
    }
    let tasks = TaskTracker::new();
    // The oldest first; connections that have already ended are removed on the way.
    let mut open = VecDeque::<CancellationToken>::new();
    while let Some((stream, _)) = acceptor::next(&listener, "an HTTP connection", &stop).await {
        open.retain(|connection| !connection.is_cancelled());
        if open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.cancel();
        }
        let ended = CancellationToken::new();
        open.push_back(ended.clone());
        let conversation = converse(stream, router.clone(), requests.clone(), stop.clone());
        tasks.spawn(async move {
            ended.run_until_cancelled(conversation).await;
            ended.cancel();
        });
    }
    tasks.close();
    _ = tokio::time::timeout(GRACE, tasks.wait()).await;
}

async fn converse(
    stream: tokio::net::TcpStream,
    router: Router,
    requests: Arc<Requests>,
    stop: CancellationToken,
) {
    // Both are improvements only; the connection works without them.
    _ = stream.set_nodelay(true);
    _ = SockRef::from(&stream).set_tcp_user_timeout(Some(TAKE_PATIENCE));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        if error.is_parse() {
            // No handler has seen it.
            requests.count(400);
        }
        debug!("an HTTP connection: {error}");
    }
}

//! Threads: acceptors hand sockets out in turn to workers, each a runtime of one thread, so
//! that a connection never moves and never waits for another thread's lock on a queue.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::cache::Cache;
use crate::cache::clustered::ClusterContext;
use crate::server::connections::{CloseReason, Connection};
use crate::server::guests::Arrival;
use crate::server::listen::{Bound, tcp_name};
use crate::server::memcached::connection::ClientConnection;
use crate::server::peer;
use crate::server::stream::Stream;
use crate::server::{Security, ServerContext, acceptor};
use crate::stats::{Counter, Counters};
use crate::tls::Reloadable as Certificates;
use crate::watchdog::Watchdog;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the end of a thread is checked; the standard library has no event for it.
const ENDED_POLL: Duration = Duration::from_millis(2);

/// The error for a client over the limit (memcached.c, `drive_machine`).
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// Peers' connections that wait for one worker; one more is closed.
const PEERS_WAITING: usize = 64;

/// Sockets that wait for one worker; as many as there may be connections.
type Inbox = mpsc::UnboundedReceiver<Accepted>;

/// A connection on its way from the acceptor to its worker.
pub struct Accepted {
    socket: Socket,
    peer: String,
    listen: Arc<str>,
    /// The connection's place under the limit, which also bounds the workers' inboxes.
    slot: OwnedSemaphorePermit,
}

enum Socket {
    Tcp { stream: std::net::TcpStream, security: Security },
    Unix(std::os::unix::net::UnixStream),
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp { stream, .. } => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

/// The worker threads; dropping it lets them end once their connections are over.
pub struct Workers {
    inboxes: Vec<mpsc::UnboundedSender<Accepted>>,
    peer_inboxes: Vec<mpsc::Sender<Arrival>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts the worker threads.
    ///
    /// # Errors
    /// The system has no thread or no descriptor to give.
    pub fn start(context: &Arc<ServerContext>, cluster: Option<&Arc<Cluster>>) -> io::Result<Self> {
        let mut workers = Self { inboxes: Vec::new(), peer_inboxes: Vec::new(), threads: Vec::new() };
        for number in 0..context.options.threads.max(1) {
            let (inbox, accepted) = mpsc::unbounded_channel();
            let (peer_inbox, peers) = mpsc::channel(PEERS_WAITING);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (context, counters) = (context.clone(), context.registry.block());
            let cluster = cluster.map(|cluster| (cluster.clone(), peers));
            let name = format!("worker-{number}");
            let heartbeat = context.watchdog.watch(name.clone());
            if number == 0 {
                // Runs until the last connection is over, which may be one that waits.
                let (requests, replies) = (context.requests.clone(), context.replies.clone());
                runtime.spawn(async move { tokio::join!(requests.watch(), replies.watch()) });
            }
            let thread = std::thread::Builder::new().name(name).spawn(move || {
                runtime.block_on(async move {
                    tokio::spawn(heartbeat.keep());
                    work(context, counters, accepted, cluster).await;
                });
            })?;
            workers.inboxes.push(inbox);
            workers.peer_inboxes.push(peer_inbox);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Where to send peers' connections, in turn.
    pub fn peer_inboxes(&self) -> Vec<mpsc::Sender<Arrival>> {
        self.peer_inboxes.clone()
    }

    /// Where to send connections, in turn.
    pub fn inboxes(&self) -> Vec<mpsc::UnboundedSender<Accepted>> {
        self.inboxes.clone()
    }

    /// Waits until every connection is over, or has outlived the grace period; does not wait for a thread that stands
    /// still. Whether all threads have ended.
    pub async fn join(self, until: Instant) -> bool {
        drop(self.inboxes);
        drop(self.peer_inboxes);
        let mut all_ended = true;
        for thread in self.threads {
            all_ended &= ended(thread, until).await;
        }
        all_ended
    }
}

/// Waits for the end of a thread, but not for one that does not end; whether it has ended.
pub async fn ended(thread: JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= until {
            let name = thread.thread().name().unwrap_or_default();
            warn!("the thread {name} stands still: it ends with the process");
            return false;
        }
        tokio::time::sleep(ENDED_POLL).await;
    }
    // A panic was logged when it happened.
    _ = thread.join();
    true
}

/// What a worker needs to be a part of a cluster.
pub struct Cluster {
    /// What the threads of the node share.
    pub shared: Arc<ClusterContext>,
    /// The server for peers.
    pub peers: peer::Service,
}

async fn work(
    context: Arc<ServerContext>,
    counters: Arc<Counters>,
    mut accepted: Inbox,
    cluster: Option<(Arc<Cluster>, mpsc::Receiver<Arrival>)>,
) {
    let tracker = TaskTracker::new();
    // Outlives the clients: their commands may still be on their way.
    let links = CancellationToken::new();
    let shared = cluster.as_ref().map(|(cluster, _)| cluster.shared.clone());
    let cache = Cache::start(&context.store, &context.loads, shared, counters.clone(), links.clone());
    if let (Some(clustered), Some((cluster, peers))) = (cache.cluster(), cluster) {
        tracker.spawn(cluster.peers.clone().serve(clustered.clone(), peers, context.stop.clone()));
        if cfg!(debug_assertions) {
            tokio::spawn(hold_in_a_batch(context.watchdog.clone(), cache.clone()));
        }
    }
    loop {
        let next = tokio::select! {
            next = accepted.recv() => next,
            () = context.stop.cancelled() => None,
        };
        let Some(accepted) = next else { break };
        tracker.spawn(serve(context.clone(), counters.clone(), accepted, cache.clone()));
    }
    tracker.close();
    if tokio::time::timeout(context.options.grace, tracker.wait()).await.is_err() {
        debug!("{} connections did not take their replies in time", tracker.len());
    }
    links.cancel();
}

/// Stands still in the middle of a batch, with its lock, while a test wants that.
async fn hold_in_a_batch(watchdog: Arc<Watchdog>, cache: Cache) {
    let name = format!("{}.batch", std::thread::current().name().unwrap_or_default());
    loop {
        tokio::time::sleep(watchdog.interval()).await;
        let _turn = cache.begin(0, 0);
        watchdog.hold(&name);
    }
}

/// A connection's place in the list and under the limit, given back however it ends.
struct Place {
    context: Arc<ServerContext>,
    connection: Arc<Connection>,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.context.connections.leave(&self.connection);
    }
}

/// One connection from its first byte to its last.
async fn serve(context: Arc<ServerContext>, counters: Arc<Counters>, accepted: Accepted, cache: Cache) {
    let Accepted { socket, peer, listen, slot } = accepted;
    let id = u64::from(socket.as_raw_fd().unsigned_abs());
    let connection = context.connections.enter(id, peer, listen, context.store.clock().now());
    let _place = Place { context: context.clone(), connection: connection.clone(), _slot: slot };
    connection.tell(&context.events, None);
    let ended = match open(&context, socket).await {
        Ok(stream) => {
            ClientConnection::new(stream, context.clone(), counters, connection.clone(), cache).await
        }
        Err(error) => {
            if is_plain(&error) {
                let now = context.store.clock().now();
                context.strangers.tell(now, &connection.peer, "plain text to a listener with TLS");
            }
            if error.kind() != io::ErrorKind::Interrupted {
                counters.bump(Counter::TlsFailures);
            }
            debug!("{}: {error}", connection.peer);
            CloseReason::Error
        }
    };
    connection.tell(&context.events, Some(ended));
}

async fn open(context: &ServerContext, socket: Socket) -> io::Result<Stream> {
    match socket {
        Socket::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
        Socket::Tcp { stream, security } => {
            let stream = TcpStream::from_std(stream)?;
            let certificates = context.certificates.as_ref();
            let acceptor = match security {
                Security::Plain => None,
                Security::Tls => Some(certificates.map(Certificates::acceptor)),
                Security::MutualTls => Some(certificates.and_then(Certificates::mutual_acceptor)),
            };
            let Some(acceptor) = acceptor else { return Ok(Stream::Tcp(stream)) };
            // Only a listener with certificates requires TLS; it never falls back to plain text.
            let acceptor = acceptor.ok_or(io::ErrorKind::PermissionDenied)?;
            let handshake = acceptor.accept(stream);
            let stream = tokio::select! {
                shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => shaken??,
                // Nothing is begun yet that a stop would have to wait for.
                () = context.stop.cancelled() => return Err(io::ErrorKind::Interrupted.into()),
            };
            Ok(Stream::Tls(Box::new(stream)))
        }
    }
}

/// Whether a handshake failed because its client does not speak TLS.
fn is_plain(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// Accepts until the node stops. Runs on the node's own thread.
///
/// # Errors
/// The listener cannot be watched for connections.
pub async fn accept(
    context: Arc<ServerContext>,
    counters: Arc<Counters>,
    bound: Bound,
    inboxes: Vec<mpsc::UnboundedSender<Accepted>>,
    cluster: Option<Arc<Cluster>>,
) -> io::Result<()> {
    let listen = bound.name();
    context.connections.listen(bound.id(), listen.clone());
    let listener = Listener::new(bound)?;
    let what = format!("on {listen}");
    for inbox in inboxes.iter().cycle() {
        let slot =
            if context.options.reject_over_limit { None } else { Some(slot(&context, &counters).await) };
        let accepted = acceptor::next(&listener, &what, &context.stop).await;
        let Some((socket, peer)) = accepted else { break };
        let Some(slot) = slot.or_else(|| context.connections.slots().clone().try_acquire_owned().ok()) else {
            counters.bump(Counter::RejectedConnections);
            refuse(socket);
            continue;
        };
        counters.bump(Counter::TotalConnections);
        if let Some(cluster) = &cluster {
            // Before the worker asks.
            cluster.shared.pauses.ended();
        }
        // A worker's inbox closes only when the node stops.
        _ = inbox.send(Accepted { socket, peer, listen: listen.clone(), slot });
    }
    Ok(())
}

/// Waits for a free place under the limit; meanwhile clients queue in the backlog.
async fn slot(context: &ServerContext, counters: &Counters) -> OwnedSemaphorePermit {
    let slots = context.connections.slots();
    loop {
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return slot;
        }
        counters.bump(Counter::ListenDisabled);
        context.connections.accepting.store(false, Ordering::Relaxed);
        let since = tokio::time::Instant::now();
        // The semaphore is never closed.
        let slot = slots.clone().acquire_owned().await;
        context.connections.accepting.store(true, Ordering::Relaxed);
        counters.add(Counter::ListenDisabledMicros, since.elapsed().as_micros() as u64);
        if let Ok(slot) = slot {
            return slot;
        }
    }
}

/// Tells a client that there are too many, and closes. The few bytes fit in the empty socket.
fn refuse(socket: Socket) {
    use std::io::Write;

    _ = match socket {
        Socket::Tcp { mut stream, security: Security::Plain } => stream.write_all(TOO_MANY),
        Socket::Tcp { .. } => Ok(()),
        Socket::Unix(mut stream) => stream.write_all(TOO_MANY),
    };
}

enum Listener {
    Tcp { listener: tokio::net::TcpListener, security: Security },
    Unix(tokio::net::UnixListener),
}

impl Listener {
    fn new(bound: Bound) -> io::Result<Self> {
        Ok(match bound {
            Bound::Tcp { listener, security } => {
                Self::Tcp { listener: tokio::net::TcpListener::from_std(listener)?, security }
            }
            Bound::Unix { listener, .. } => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }
}

impl acceptor::Listener for Listener {
    type Connection = (Socket, String);

    async fn accept(&self) -> io::Result<Self::Connection> {
        Ok(match self {
            Self::Tcp { listener, security } => {
                let (stream, peer) = listener.accept().await?;
                (Socket::Tcp { stream: stream.into_std()?, security: *security }, tcp_name(peer))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                (Socket::Unix(stream.into_std()?), "unix:".into())
            }
        })
    }
}

//! The door for other nodes: gRPC on connections that are handed to this thread.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming, async_trait};
use tracing::{debug, error};

use crate::cluster::Membership;
use crate::item::Exptime;
use crate::pb;
use crate::pb::peer_server::PeerServer;
use crate::peer::grpc::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, KEEP_ALIVE, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::peer::options::Tls;
use crate::peer::pings::Pings;
use crate::peer::receive::{Executor, serve_stream};
use crate::peer::tls;
use crate::server::{Door, report};
use crate::stats::Counters;
use crate::store::Caller;

/// How long a node may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// Handshakes at the same time.
const HANDSHAKES_MAX: usize = 64;

/// Connections that have agreed on TLS and wait to be served.
const SHAKEN_QUEUE: usize = 16;

/// Calls at the same time on one connection. A peer has one stream of operations on each, or a
/// ping and what goes with it.
const CALLS_MAX: u32 = 64;

/// What other nodes ask of this one besides operations.
pub trait Node: Send + Sync + 'static {
    /// Its statistics, as names and values.
    fn stats(&self) -> Vec<(String, String)>;

    /// Forgets everything that is stored before so many seconds have passed.
    fn flush(&self, delay_seconds: u32);
}

/// What answers other nodes; cheap to clone.
#[derive(Clone)]
pub struct Service {
    node: Arc<dyn Node>,
    membership: Membership,
    pings: Arc<Pings>,
}

impl Service {
    /// Answers for the node behind that door.
    pub fn new(door: Arc<Door>, membership: &Membership, pings: &Arc<Pings>) -> Self {
        let counters = Mutex::new(door.registry.block());
        Self::of(Arc::new(Behind { door, counters }), membership, pings)
    }

    /// Answers for a node.
    pub fn of(node: Arc<dyn Node>, membership: &Membership, pings: &Arc<Pings>) -> Self {
        Self { node, membership: membership.clone(), pings: pings.clone() }
    }

    /// Serves the connections that come in, until `stop` is cancelled or nobody hands any out, and
    /// returns when the last one has been answered what it had sent; bound that in time. What
    /// comes on a connection is executed by the runtime that this is called in.
    pub async fn serve<E: Executor>(
        self,
        executor: Arc<E>,
        sockets: mpsc::Receiver<std::net::TcpStream>,
        stop: CancellationToken,
    ) {
        let tls = self.pings.grpc().options().tls.clone();
        let door = PeerDoor { executor, service: self, stop: stop.clone() };
        let sockets = ReceiverStream::new(sockets).map(|socket| {
            let socket = TcpStream::from_std(socket)?;
            socket.set_nodelay(true)?;
            Ok(socket)
        });
        let Some(tls) = tls else { return run(door, sockets, stop).await };
        let (shaken, ready) = mpsc::channel(SHAKEN_QUEUE);
        let handshakes = stop.clone().run_until_cancelled_owned(shake_hands(sockets, tls, shaken));
        tokio::join!(handshakes, run(door, ReceiverStream::new(ready), stop));
    }
}

/// The node behind a door.
struct Behind {
    door: Arc<Door>,
    /// Of whoever has the lock.
    counters: Mutex<Arc<Counters>>,
}

impl Node for Behind {
    fn stats(&self) -> Vec<(String, String)> {
        report::general_stats(&self.door)
    }

    fn flush(&self, delay_seconds: u32) {
        let counters = self.counters.lock();
        let caller = Caller::new(self.door.store.clock().now(), &counters, 0);
        self.door.store.flush_all(&caller, Exptime::In(delay_seconds));
    }
}

/// One thread's end of the calls of other nodes.
struct PeerDoor<E> {
    executor: Arc<E>,
    service: Service,
    stop: CancellationToken,
}

async fn run<E: Executor, S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static>(
    door: PeerDoor<E>,
    sockets: impl Stream<Item = io::Result<S>>,
    stop: CancellationToken,
) {
    let server = PeerServer::new(door)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .serve_with_incoming_shutdown(server, sockets, stop.cancelled_owned());
    if let Err(error) = served.await {
        error!("peers are not served any more: {error}");
    }
}

/// Agrees on TLS with each, without that one waits for another.
async fn shake_hands(
    sockets: impl Stream<Item = io::Result<TcpStream>>,
    options: Tls,
    shaken: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    let mut sockets = pin!(sockets);
    let mut handshakes = JoinSet::new();
    loop {
        let socket = tokio::select! {
            socket = sockets.next(), if handshakes.len() < HANDSHAKES_MAX => socket,
            Some(_) = handshakes.join_next() => continue,
        };
        let Some(socket) = socket else { break };
        let config = match tls::server(&options) {
            Ok(config) => config,
            Err(error) => {
                error!("peers are refused: {error}");
                continue;
            }
        };
        let shaken = shaken.clone();
        handshakes.spawn(async move {
            let handshake = async { TlsAcceptor::from(Arc::new(config)).accept(socket?).await };
            match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                // When nobody takes it, the node stops.
                Ok(Ok(stream)) => _ = shaken.send(Ok(stream)).await,
                Ok(Err(error)) => debug!("a peer's handshake: {error}"),
                Err(_) => debug!("a peer's handshake took too long"),
            }
        });
    }
}

#[async_trait]
impl<E: Executor> pb::peer_server::Peer for PeerDoor<E> {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<pb::Outcomes, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<pb::Operations>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let (executor, stop) = (self.executor.clone(), self.stop.clone());
        let me = self.service.pings.me().clone();
        Ok(Response::new(Box::pin(serve_stream(executor, me, stop, request.into_inner()))))
    }

    async fn ping(&self, request: Request<pb::PingRequest>) -> Result<Response<pb::PingReply>, Status> {
        let request = request.into_inner();
        let Service { membership, pings, .. } = &self.service;
        let caller = pings.me().caller(request.call)?;
        let lease_millis = pings.lease_millis();
        // In this order (`Membership::may_vouch_for`).
        let reaches_caller = request.lease_millis == lease_millis
            && pings.reaches(&caller)
            && membership.may_vouch_for(&caller);
        let state = membership.state();
        Ok(Response::new(pb::PingReply {
            incarnation: state.incarnation,
            epoch: state.epoch,
            reaches_caller,
            lease_millis,
        }))
    }

    async fn view(&self, request: Request<pb::ViewRequest>) -> Result<Response<pb::ViewReply>, Status> {
        self.service.pings.me().caller(request.into_inner().call)?;
        let state = self.service.membership.state();
        let view_json =
            serde_json::to_vec(&*state.view).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::ViewReply { epoch: state.epoch, view_json: view_json.into() }))
    }

    async fn stats(&self, request: Request<pb::StatsRequest>) -> Result<Response<pb::StatsReply>, Status> {
        self.service.pings.me().caller(request.into_inner().call)?;
        let stats =
            self.service.node.stats().into_iter().map(|(name, value)| pb::Stat { name, value }).collect();
        Ok(Response::new(pb::StatsReply { stats }))
    }

    async fn flush(&self, request: Request<pb::FlushRequest>) -> Result<Response<pb::FlushReply>, Status> {
        let request = request.into_inner();
        self.service.pings.me().caller(request.call)?;
        self.service.node.flush(request.delay_seconds);
        Ok(Response::new(pb::FlushReply {}))
    }
}

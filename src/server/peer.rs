//! The door for other nodes: gRPC on connections that are handed to this thread.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming, async_trait};
use tracing::debug;

use crate::cluster::Membership;
use crate::pb;
use crate::pb::peer_server::PeerServer;
use crate::peer::grpc::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, KEEP_ALIVE, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::peer::identity::Identity;
use crate::peer::options::Tls;
use crate::peer::pings::Pings;
use crate::peer::receive::{Executor, serve_stream};
use crate::peer::tls;

/// How long a node may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

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

/// What answers other nodes.
pub struct Service<E> {
    /// Executes operations.
    pub executor: Arc<E>,
    /// Answers for the whole node.
    pub node: Arc<dyn Node>,
    /// Who is called.
    pub me: Arc<Identity>,
    /// The view.
    pub membership: Membership,
    /// Whom this node reaches itself.
    pub pings: Arc<Pings>,
    /// Ends streams when what has come on them is answered.
    pub stop: CancellationToken,
}

/// Serves the connections that come in until the service's `stop` is cancelled, and returns when
/// the last one has been answered what it had sent; bound that in time. With `tls`, everyone must
/// show a certificate. Must be called within a runtime, which then does all the work.
///
/// # Errors
/// None that a single connection could cause.
pub async fn serve<E: Executor>(
    incoming: impl Stream<Item = io::Result<TcpStream>> + Send + 'static,
    service: Arc<Service<E>>,
    tls: Option<Tls>,
) -> Result<(), tonic::transport::Error> {
    let incoming = incoming.map(|socket| {
        socket.and_then(|socket| {
            socket.set_nodelay(true)?;
            Ok(socket)
        })
    });
    match tls {
        None => run(incoming, service).await,
        Some(tls) => {
            let handshakes = TaskTracker::new();
            let (shaken, ready) = mpsc::channel(SHAKEN_QUEUE);
            let stop = service.stop.clone();
            let all = shake_hands(incoming, tls, handshakes.clone(), shaken);
            handshakes.spawn(stop.run_until_cancelled_owned(all));
            let served = run(ReceiverStream::new(ready), service).await;
            handshakes.close();
            handshakes.wait().await;
            served
        }
    }
}

async fn run<E: Executor, S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static>(
    incoming: impl Stream<Item = io::Result<S>>,
    service: Arc<Service<E>>,
) -> Result<(), tonic::transport::Error> {
    let stop = service.stop.clone();
    let service = PeerServer::from_arc(service)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(CALLS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .serve_with_incoming_shutdown(service, incoming, stop.cancelled_owned())
        .await
}

/// Agrees on TLS with each, without that one waits for another.
async fn shake_hands(
    incoming: impl Stream<Item = io::Result<TcpStream>>,
    options: Tls,
    handshakes: TaskTracker,
    shaken: mpsc::Sender<io::Result<tokio_rustls::server::TlsStream<TcpStream>>>,
) {
    let mut incoming = std::pin::pin!(incoming);
    while let Some(socket) = incoming.next().await {
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                debug!("a peer's connection: {error}");
                continue;
            }
        };
        let config = match tls::server(&options) {
            Ok(config) => config,
            Err(error) => {
                tracing::warn!("peers are refused: {error}");
                continue;
            }
        };
        let shaken = shaken.clone();
        handshakes.spawn(async move {
            let handshake = TlsAcceptor::from(Arc::new(config)).accept(socket);
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
impl<E: Executor> pb::peer_server::Peer for Service<E> {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<pb::Outcomes, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<pb::Operations>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let (executor, me, stop) = (self.executor.clone(), self.me.clone(), self.stop.clone());
        Ok(Response::new(Box::pin(serve_stream(executor, me, stop, request.into_inner()))))
    }

    async fn ping(&self, request: Request<pb::PingRequest>) -> Result<Response<pb::PingReply>, Status> {
        let caller = self.me.caller(request.into_inner().call)?;
        let state = self.membership.state();
        Ok(Response::new(pb::PingReply {
            incarnation: state.incarnation,
            epoch: state.epoch,
            reaches_caller: self.pings.reaches(&caller),
        }))
    }

    async fn view(&self, request: Request<pb::ViewRequest>) -> Result<Response<pb::ViewReply>, Status> {
        self.me.caller(request.into_inner().call)?;
        let state = self.membership.state();
        let view_json =
            serde_json::to_vec(&*state.view).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::ViewReply { epoch: state.epoch, view_json: view_json.into() }))
    }

    async fn stats(&self, request: Request<pb::StatsRequest>) -> Result<Response<pb::StatsReply>, Status> {
        self.me.caller(request.into_inner().call)?;
        let stats = self.node.stats().into_iter().map(|(name, value)| pb::Stat { name, value }).collect();
        Ok(Response::new(pb::StatsReply { stats }))
    }

    async fn flush(&self, request: Request<pb::FlushRequest>) -> Result<Response<pb::FlushReply>, Status> {
        let request = request.into_inner();
        self.me.caller(request.call)?;
        self.node.flush(request.delay_seconds);
        Ok(Response::new(pb::FlushReply {}))
    }
}

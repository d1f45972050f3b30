//! The server for other nodes: gRPC on connections that are handed to this thread.

mod handshakes;

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TlsConnectInfo};
use tonic::{Extensions, Request, Response, Status, Streaming, async_trait};
use tracing::{error, warn};

use crate::cluster::Membership;
use crate::cluster::failure_detector::FailureDetector as _;
use crate::item::Exptime;
use crate::pb;
use crate::pb::peer_server::PeerServer;
use crate::peer::giving::serve_moves;
use crate::peer::grpc::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, KEEP_ALIVE, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES,
};
use crate::peer::pings::Pings;
use crate::peer::receive::{Executor, serve_stream};
use crate::server::guests::hosts::{Claim, Hosts};
use crate::server::guests::{Arrival, Guest, GuestStream, Guests, OpenCall};
use crate::server::history::Told;
use crate::server::peer::handshakes::shake_hands;
use crate::server::{ServerContext, statistics};
use crate::stats::Counters;
use crate::store::{Caller, TooManyFlushes};

/// Connections that have completed the TLS handshake and wait to be served.
const SHAKEN_QUEUE: usize = 16;

/// Calls at the same time on one connection. A peer has one stream of operations on each, or a
/// ping and what goes with it, or the reads that wait for loads.
const CALLS_MAX: u32 = 1_024;

/// What other nodes ask of this one, apart from operations.
pub trait PeerHandler: Send + Sync + 'static {
    /// Its statistics, as names and values.
    fn stats(&self) -> Vec<(String, String)>;

    /// Its activity in each of the last seconds, as JSON; empty for a node that does not remember.
    fn history(&self, seconds: u32) -> Vec<u8> {
        _ = seconds;
        Vec::new()
    }

    /// Drops everything that was stored before the given number of seconds passed.
    fn flush(&self, delay_seconds: u32);

    /// Looks for dead items now.
    fn sweep(&self) {}
}

/// What answers other nodes; cheap to clone.
#[derive(Clone)]
pub struct Service {
    node: Arc<dyn PeerHandler>,
    membership: Membership,
    pings: Arc<Pings>,
    guests: Arc<Guests>,
    hosts: Arc<Hosts>,
}

impl Service {
    /// Answers for that node. `files` are those that the process may open for
    /// connections between nodes.
    pub fn new(context: Arc<ServerContext>, membership: &Membership, pings: &Arc<Pings>, files: u64) -> Self {
        let counters = Mutex::new(context.registry.block());
        Self::of(Arc::new(Behind { context, counters }), membership, pings, files)
    }

    /// Answers for a node.
    pub fn of(node: Arc<dyn PeerHandler>, membership: &Membership, pings: &Arc<Pings>, files: u64) -> Self {
        let guests = Guests::new(files, membership.timing().lease_ttl(), pings.grpc().options());
        let hosts = Arc::new(Hosts::new(membership));
        Self { node, membership: membership.clone(), pings: pings.clone(), guests, hosts }
    }

    /// Who has connected.
    pub fn guests(&self) -> &Arc<Guests> {
        &self.guests
    }

    /// Keeps up with where members are reached, until the membership ends.
    pub async fn follow(self) {
        self.hosts.follow(self.guests).await;
    }

    /// Serves incoming connections until `stop` is cancelled or no more can come. Returns when the last connection has
    /// been answered; the caller must bound that in time. The runtime that calls this executes the commands of a
    /// connection.
    pub async fn serve<E: Executor>(
        self,
        executor: Arc<E>,
        arrivals: mpsc::Receiver<Arrival>,
        stop: CancellationToken,
    ) {
        let tls = self.pings.grpc().options().tls.clone();
        let context = PeerDoor { executor, service: self, stop: stop.clone() };
        let Some(tls) = tls else {
            return run(context, ReceiverStream::new(arrivals).map(GuestStream::open), stop).await;
        };
        let (shaken, ready) = mpsc::channel(SHAKEN_QUEUE);
        let handshakes = stop.clone().run_until_cancelled_owned(shake_hands(arrivals, tls, shaken));
        tokio::join!(handshakes, run(context, ReceiverStream::new(ready), stop));
    }

    /// The id of the caller, when the call is for this node, and the caller's certificate is that of
    /// the node of this id.
    fn caller(&self, visit: &Visit, call: Option<pb::Call>) -> Result<String, Status> {
        let id = self.pings.me().caller(call)?;
        match self.claim(visit, &id)? {
            Claim::Proven => Ok(id),
            _ => Err(Status::permission_denied(format!("{id:?} is not known here"))),
        }
    }

    /// The evidence that the caller is the node of this id.
    fn claim(&self, visit: &Visit, id: &str) -> Result<Claim, Status> {
        let claim = match (&visit.certificate, &self.pings.grpc().options().tls) {
            (_, None) => Claim::Proven,
            (Some(certificate), Some(_)) => self.hosts.check(id, certificate),
            (None, Some(_)) => return Err(Status::unauthenticated("no certificate")),
        };
        if let Claim::Foreign(hosts) = &claim {
            let hosts = hosts.join(" or ");
            warn!(peer = id, "refused: its certificate is not for {hosts}, where it is reached");
            return Err(Status::permission_denied(format!(
                "the certificate of {id:?} is not for {hosts}, where it is reached"
            )));
        }
        if let (Claim::Proven, Some(guest)) = (&claim, &visit.guest) {
            self.guests.recognize(guest, id);
        }
        Ok(claim)
    }
}

/// The caller, as far as the connection tells. The call is under way until this is dropped.
struct Visit {
    guest: Option<Arc<Guest>>,
    certificate: Option<CertificateDer<'static>>,
    _call: Option<OpenCall>,
}

impl Visit {
    fn of(extensions: &Extensions) -> Self {
        let tls = extensions.get::<TlsConnectInfo<Arc<Guest>>>();
        let guest = tls.map(TlsConnectInfo::get_ref).or_else(|| extensions.get()).cloned();
        let certificate = tls.and_then(|tls| tls.peer_certs()?.first().cloned());
        let _call = guest.as_ref().map(Guest::call);
        Self { guest, certificate, _call }
    }
}

/// What a node answers for.
struct Behind {
    context: Arc<ServerContext>,
    /// Of whoever has the lock.
    counters: Mutex<Arc<Counters>>,
}

impl PeerHandler for Behind {
    fn stats(&self) -> Vec<(String, String)> {
        let mut stats = statistics::general_stats(&self.context);
        if !self.context.http_addr.is_empty() {
            stats.push(("http_addr".to_owned(), self.context.http_addr.clone()));
        }
        stats
    }

    fn history(&self, seconds: u32) -> Vec<u8> {
        let told = Told::of(&self.context.history, seconds as usize);
        // Numbers alone.
        serde_json::to_vec(&told).unwrap_or_default()
    }

    fn flush(&self, delay_seconds: u32) {
        let counters = self.counters.lock();
        let caller = Caller::new(self.context.store.clock().now(), &counters, 0);
        self.context.store.flush_all(&caller, Exptime::In(delay_seconds));
    }

    fn sweep(&self) {
        self.context.sweep_now();
    }
}

/// One thread's end of the calls of other nodes.
struct PeerDoor<E> {
    executor: Arc<E>,
    service: Service,
    stop: CancellationToken,
}

async fn run<E: Executor, S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static>(
    context: PeerDoor<E>,
    sockets: impl Stream<Item = io::Result<S>>,
    stop: CancellationToken,
) {
    let server = PeerServer::new(context)
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

impl<E> PeerDoor<E> {
    /// The messages of a stream, of which the first one says who calls.
    fn checked<T: Send + 'static>(
        &self,
        request: Request<Streaming<T>>,
        call: impl Fn(&T) -> Option<pb::Call> + Send + 'static,
    ) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
        let (service, visit) = (self.service.clone(), Visit::of(request.extensions()));
        let mut is_first = true;
        request.into_inner().map(move |message| {
            let message = message?;
            if std::mem::take(&mut is_first) {
                service.caller(&visit, call(&message))?;
            }
            Ok(message)
        })
    }
}

#[async_trait]
impl<E: Executor> pb::peer_server::Peer for PeerDoor<E> {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<pb::Outcomes, Status>> + Send>>;

    async fn forward(
        &self,
        request: Request<Streaming<pb::Operations>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let me = self.service.pings.me().clone();
        let incoming = self.checked(request, |message| message.call.clone());
        let outcomes = serve_stream(self.executor.clone(), me, self.stop.clone(), incoming);
        Ok(Response::new(Box::pin(outcomes)))
    }

    type MoveItemsStream = Pin<Box<dyn Stream<Item = Result<pb::MoveReply, Status>> + Send>>;

    async fn move_items(
        &self,
        request: Request<Streaming<pb::MoveRequest>>,
    ) -> Result<Response<Self::MoveItemsStream>, Status> {
        let me = self.service.pings.me().clone();
        let incoming = self.checked(request, |message| message.call.clone());
        let moves = serve_moves(self.executor.clone(), me, self.stop.clone(), incoming);
        Ok(Response::new(Box::pin(moves)))
    }

    async fn ping(&self, request: Request<pb::PingRequest>) -> Result<Response<pb::PingReply>, Status> {
        let visit = Visit::of(request.extensions());
        let request = request.into_inner();
        let Service { membership, pings, .. } = &self.service;
        let caller = pings.me().caller(request.call)?;
        // A node that was put out long ago may be unknown here, and pings before it registers again. It learns only
        // that this node exists.
        self.service.claim(&visit, &caller)?;
        if let Some(stuck) = pings.stuck() {
            return Err(Status::unavailable(stuck.to_string()));
        }
        let lease_millis = pings.lease_millis();
        // In this order (`Membership::may_grant`).
        let reaches_caller =
            request.lease_millis == lease_millis && pings.reaches(&caller) && membership.may_grant(&caller);
        // In this order: a move of a later view than that is not missed.
        let state = membership.state();
        let is_moving = pings.is_moving();
        Ok(Response::new(pb::PingReply {
            is_moving,
            incarnation: state.incarnation,
            epoch: state.epoch,
            reaches_caller,
            lease_millis,
            groups_digest: pings.groups_digest(),
        }))
    }

    async fn view(&self, request: Request<pb::ViewRequest>) -> Result<Response<pb::ViewReply>, Status> {
        let visit = Visit::of(request.extensions());
        self.service.caller(&visit, request.into_inner().call)?;
        let state = self.service.membership.state();
        let view_json =
            serde_json::to_vec(&*state.view).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(pb::ViewReply { epoch: state.epoch, view_json: view_json.into() }))
    }

    async fn stats(&self, request: Request<pb::StatsRequest>) -> Result<Response<pb::StatsReply>, Status> {
        let visit = Visit::of(request.extensions());
        self.service.caller(&visit, request.into_inner().call)?;
        let stats =
            self.service.node.stats().into_iter().map(|(name, value)| pb::Stat { name, value }).collect();
        Ok(Response::new(pb::StatsReply { stats }))
    }

    async fn history(
        &self,
        request: Request<pb::HistoryRequest>,
    ) -> Result<Response<pb::HistoryReply>, Status> {
        let visit = Visit::of(request.extensions());
        let request = request.into_inner();
        self.service.caller(&visit, request.call)?;
        let told_json = self.service.node.history(request.seconds).into();
        Ok(Response::new(pb::HistoryReply { told_json }))
    }

    async fn flush_prefix(
        &self,
        request: Request<pb::FlushPrefixRequest>,
    ) -> Result<Response<pb::FlushPrefixReply>, Status> {
        let visit = Visit::of(request.extensions());
        let request = request.into_inner();
        self.service.caller(&visit, request.call)?;
        let flushed = self.executor.flush_prefix(&request.prefix);
        let epoch = flushed
            .map_err(|TooManyFlushes| Status::resource_exhausted("too many prefixes are being flushed"))?;
        self.service.node.sweep();
        Ok(Response::new(pb::FlushPrefixReply { epoch }))
    }

    async fn load(&self, request: Request<pb::LoadRequest>) -> Result<Response<pb::LoadReply>, Status> {
        let visit = Visit::of(request.extensions());
        let request = request.into_inner();
        self.service.caller(&visit, request.call.clone())?;
        let outcome = self.executor.load(request).await;
        let outcome = outcome.map_err(|broken| Status::invalid_argument(broken.to_string()))?;
        Ok(Response::new(pb::LoadReply { outcome: Some(outcome) }))
    }

    async fn flush(&self, request: Request<pb::FlushRequest>) -> Result<Response<pb::FlushReply>, Status> {
        let visit = Visit::of(request.extensions());
        let request = request.into_inner();
        self.service.caller(&visit, request.call)?;
        self.service.node.flush(request.delay_seconds);
        Ok(Response::new(pb::FlushReply {}))
    }
}

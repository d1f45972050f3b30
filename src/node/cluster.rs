//! A node's part in a cluster: taken up at the start, given up at the end.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::cache::clustered::ClusterContext;
use crate::cache::handovers::Handovers;
use crate::cache::moves::Moves;
use crate::cache::ownership::Ownership;
use crate::cache::pauses::{self, PauseDetector};
use crate::cache::routing::Routing;
use crate::cluster::{Membership, etcd};
use crate::node::mover;
use crate::node::options::{ClusterOptions, Error};
use crate::peer::grpc::Grpc;
use crate::peer::identity::Identity;
use crate::peer::pings::Pings;
use crate::server::ServerContext;
use crate::server::acceptor;
use crate::server::guests::Arrival;
use crate::server::listen::Bound as Listening;
use crate::server::peer::Service;
use crate::server::worker::{Cluster, ended};

/// How often a node that leaves looks whether it may.
const LOOK: Duration = Duration::from_millis(20);

/// How long the others may take to hear that this node has left.
const PARTING: Duration = Duration::from_secs(1);

/// Listens for peers, and fills in the addresses that were not known before.
///
/// # Errors
/// The address is taken or is none.
pub(super) fn bind(options: &mut ClusterOptions, listening: &[Listening]) -> Result<TcpListener, Error> {
    let ClusterOptions { membership, peer, .. } = options;
    let failed = |error: io::Error| Error::Peers(peer.listen.clone(), error);
    let addrs: Vec<_> = peer.listen.to_socket_addrs().map_err(failed)?.collect();
    let listener = TcpListener::bind(&*addrs).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let host = |addr: &str| addr.rsplit_once(':').map_or(addr, |(host, _)| host).to_owned();
    if membership.peer_addr.is_empty() {
        membership.peer_addr = peer.listen.clone();
    }
    // Port 0 picked a free one.
    if membership.peer_addr.ends_with(":0") {
        membership.peer_addr = format!("{}:{port}", host(&membership.peer_addr));
    }
    if membership.memcached_addr.is_empty() || membership.memcached_addr.ends_with(":0") {
        let bound = listening.iter().find_map(Listening::tcp_addr);
        let (addr, port) = bound.map_or((None, 0), |addr| (Some(addr.ip()), addr.port()));
        let known = addr.filter(|addr| !addr.is_unspecified() && membership.memcached_addr.is_empty());
        membership.memcached_addr = match known {
            Some(addr) => SocketAddr::new(addr, port).to_string(),
            None if membership.memcached_addr.is_empty() => format!("{}:{port}", host(&membership.peer_addr)),
            None => format!("{}:{port}", host(&membership.memcached_addr)),
        };
    }
    if membership.node_id.is_empty() {
        membership.node_id = etcd::default_node_id(port);
    }
    Ok(listener)
}

/// A node that takes part.
pub(super) struct Member {
    pub(super) cluster: Arc<Cluster>,
    membership: Membership,
    tracker: TaskTracker,
    mover: JoinHandle<()>,
    drain_timeout: Duration,
    stop: CancellationToken,
}

impl Member {
    /// Begins to take part; returns at once.
    ///
    /// # Errors
    /// An error that no retry could mend.
    pub(super) fn join(
        options: ClusterOptions,
        context: &ServerContext,
        service: impl FnOnce(&Membership, &Arc<Pings>) -> Service,
    ) -> Result<Self, Error> {
        let ClusterOptions { membership: options, peer, moves: move_options } = options;
        let (store, loads) = (context.store.clone(), context.loads.clone());
        if peer.is_exposed() {
            warn!(
                "peers' calls are taken on {} without TLS: whoever reaches it can read and write every key; \
                 give --peer-cert, --peer-key and --peer-ca",
                peer.listen
            );
        }
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let ownership = Ownership::new(store.clone());
        let (moves, waiting) = Moves::new();
        let pings = Pings::new(&options, &peer);
        pings.set_groups_digest(loads.groups().digest());
        pings.watch_moves({
            let ownership = ownership.clone();
            move || ownership.is_moving()
        });
        let peer = Arc::new(peer);
        let transport = Arc::new(Grpc::new(peer.clone()));
        let me = Arc::new(Identity { cluster: options.cluster.clone(), id: options.node_id.clone() });
        let membership = etcd::join(options, ownership.clone(), pings.clone(), &tracker, stop.clone())?;
        pings.start(membership.clone(), &tracker, stop.clone());
        tracker
            .spawn(stop.clone().run_until_cancelled_owned(open_slots(ownership.clone(), membership.clone())));
        let peers = service(&membership, &pings);
        tracker.spawn(stop.clone().run_until_cancelled_owned(peers.clone().follow()));
        let shared = ClusterContext {
            links: Arc::default(),
            store,
            loads,
            membership: membership.clone(),
            ownership,
            pauses: PauseDetector::default(),
            me,
            transport,
            pings,
            options: peer,
            moves,
        };
        let shared = Arc::new(shared);
        let mover =
            mover::start(context, shared.clone(), waiting, move_options.bytes_per_second, stop.clone())?;
        let watched = shared.clone();
        let watch = pauses::watch(move || _ = watched.pauses.ended());
        tracker.spawn(stop.clone().run_until_cancelled_owned(watch));
        let cluster = Arc::new(Cluster { shared, peers });
        Ok(Self { cluster, membership, tracker, mover, drain_timeout: move_options.drain_timeout, stop })
    }

    /// Takes peers' connections for as long as the node takes part.
    pub(super) fn accept(
        &self,
        listener: TcpListener,
        inboxes: Vec<mpsc::Sender<Arrival>>,
    ) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let guests = self.cluster.peers.guests().clone();
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            for inbox in inboxes.iter().cycle() {
                let Some((stream, from)) = acceptor::next(&listener, "a peer", &stop).await else { break };
                // A stream that cannot leave this thread's runtime is closed.
                let Ok(stream) = stream.into_std() else { continue };
                if let Some(arrival) = guests.admit(stream, from.ip()) {
                    // A connection that its worker does not take in time is closed. The peer connects again, and
                    // reaches another worker.
                    _ = inbox.try_send(arrival);
                }
            }
        });
        Ok(())
    }

    /// Takes this node out of the cluster while it still answers, so that nobody sees an error: from here on other
    /// nodes own its keys. Then lets them take over its items, for as long as the options allow, unless it is to stop
    /// `at_once`.
    pub(super) async fn drain(&self, grace: Duration, at_once: &CancellationToken) {
        let began = tokio::time::Instant::now();
        let until = began + self.drain_timeout;
        if self.drain_timeout > Duration::ZERO {
            self.wait_for_others(began + self.drain_timeout / 2, at_once).await;
        }
        self.leave(grace).await;
        let routing_watch = self.cluster.shared.ownership.routing_watch();
        let slots = |routing: &Routing| routing.handovers().map_or(0, Handovers::outgoing_slots);
        let waits = slots(&routing_watch.present());
        if waits == 0 || self.drain_timeout.is_zero() {
            return;
        }
        info!(slots = waits, "waits until other nodes have taken over what it holds");
        let taken_over = routing_watch.wait_for(|routing| slots(routing) == 0);
        match at_once.run_until_cancelled(tokio::time::timeout_at(until, taken_over)).await {
            Some(Ok(_)) => info!("other nodes have taken over what it held"),
            Some(Err(_)) => warn!("not everything was taken over within {:?}", self.drain_timeout),
            None => warn!("stops before everything was taken over"),
        }
    }

    /// Lets a change come to its end that is under way: what moves on from a node before it is there is lost.
    async fn wait_for_others(&self, until: tokio::time::Instant, at_once: &CancellationToken) {
        let is_moving = || self.cluster.shared.pings.may_move(self.membership.state().epoch);
        if !is_moving() {
            return;
        }
        info!("waits until what moves to other nodes is there");
        while is_moving() && tokio::time::Instant::now() < until && !at_once.is_cancelled() {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn leave(&self, grace: Duration) {
        match self.membership.leave(grace / 2).await {
            Ok(()) => {
                let mut membership = self.membership.clone();
                let parted = membership.wait_for(|state| !state.is_member() && state.is_converged());
                if tokio::time::timeout(PARTING, parted).await.is_err() {
                    warn!("not every member has said that it knows of this node's leaving");
                }
            }
            Err(error) => warn!("left without being taken out of the cluster: {error}"),
        }
    }

    /// Ends everything that is left.
    pub(super) async fn end(self, until: Instant) -> bool {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        ended(self.mover, until).await
    }
}

/// Opens slots when nobody acts on an older view.
async fn open_slots(ownership: Arc<Ownership>, mut membership: Membership) {
    while let Some(state) = membership.changed().await {
        ownership.open_slots(&state);
    }
}

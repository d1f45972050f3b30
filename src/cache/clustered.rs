//! One thread's part in a cluster.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::links::Links;
use crate::cache::loads::Loads;
use crate::cache::moves::Moves;
use crate::cache::moves::stats::Report;
use crate::cache::ownership::Ownership;
use crate::cache::pauses::PauseDetector;
use crate::cache::routing::{Place, Routing, RoutingHandle};
use crate::cache::routing_watch::RoutingWatch;
use crate::clock::Seconds;
use crate::cluster::Membership;
use crate::command::{Command, Unavailable};
use crate::pb;
use crate::pb::{EncodedOp, Projection};
use crate::peer::completions::ReplyTo;
use crate::peer::identity::Identity;
use crate::peer::link::stats::AllStats;
use crate::peer::link::{Dialer, Redirected};
use crate::peer::options::Options;
use crate::peer::transport::Transport;
use crate::peer::{Answer, PendingOp, pings};
use crate::stats::Counters;
use crate::store::Store;

/// The buffer of a thread is replaced when there is less room left in it: seldom enough for what
/// travels to be of one piece, in pieces that the allocator does not give back to the system.
const BUFFER_ROOM: usize = 512;

/// See [`BUFFER_ROOM`].
const BUFFER_BYTES: usize = 8 << 10;

/// Commands that may wait for a routing in one thread.
pub(super) const PARKED_MAX: usize = 1 << 14;

/// How many times as long as for a command (`--peer-timeout`) every member may take for what all are asked: a second by
/// default.
const ALL_MEMBERS: u32 = 4;

/// The state that the threads of a clustered node share.
pub struct ClusterContext {
    /// This node's memory.
    pub store: Arc<Store>,
    /// What is loaded from origins.
    pub loads: Arc<Loads>,
    /// The cluster's members.
    pub membership: Membership,
    /// Which slots are this node's.
    pub ownership: Arc<Ownership>,
    /// Whether the thread that accepts connections stood still.
    pub pauses: PauseDetector,
    /// This node's identity for its peers.
    pub me: Arc<Identity>,
    /// How peers are reached.
    pub transport: Arc<dyn Transport>,
    /// Calls to peers that are not about one key.
    pub pings: Arc<pings::Pings>,
    /// How long calls wait for them.
    pub options: Arc<Options>,
    /// Counts of the links to them.
    pub links: Arc<AllStats>,
    /// Items that come to this node with its slots.
    pub moves: Arc<Moves>,
}

impl ClusterContext {
    /// Whether there is a view, everybody acts on the present one, and this node answers for all of its slots.
    pub fn is_converged(&self) -> bool {
        let (state, routing) = (self.membership.state(), self.ownership.routing_watch().present());
        state.epoch > 0 && routing.epoch == state.epoch && state.is_converged() && routing.is_open()
    }

    /// What moves here and from here, and has moved since the start.
    pub fn moving(&self) -> Report {
        self.moves.stats().report(self.ownership.routing_watch().present().handovers())
    }
}

/// One thread's part in the cluster: executes what peers send, and sends what peers own.
pub struct Clustered {
    context: Arc<ClusterContext>,
    counters: Arc<Counters>,
    /// Whether this thread stood still.
    pauses: PauseDetector,
    routing_handle: Arc<RoutingHandle>,
    pub(super) routing_watch: Arc<RoutingWatch>,
    links: Mutex<Links>,
    /// The buffer for commands that travel; commands on their way keep their part.
    buffer: Mutex<BytesMut>,
    /// Where outcomes are written.
    pub(super) outcomes: Mutex<BytesMut>,
    dialer: Dialer,
}

impl Clustered {
    /// A thread's part, and the queue of commands that wait until it is sure where they belong: for [`parked::run`].
    ///
    /// [`parked::run`]: crate::cache::parked::run
    pub(super) fn new(
        context: Arc<ClusterContext>,
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<Redirected>) {
        let (redirected, queue) = mpsc::channel(PARKED_MAX);
        let dialer = Dialer {
            transport: context.transport.clone(),
            me: context.me.clone(),
            options: context.options.clone(),
            redirected,
            stats: context.links.clone(),
            tasks: TaskTracker::new(),
            stop,
        };
        let clustered = Self {
            routing_handle: context.ownership.routing_handle(),
            routing_watch: context.ownership.routing_watch(),
            context,
            counters,
            pauses: PauseDetector::default(),
            links: Mutex::default(),
            buffer: Mutex::default(),
            outcomes: Mutex::default(),
            dialer,
        };
        (clustered, queue)
    }

    /// What the threads of the node share.
    pub fn context(&self) -> &ClusterContext {
        &self.context
    }

    /// Whether this thread stood still.
    pub fn pauses(&self) -> &PauseDetector {
        &self.pauses
    }

    /// This thread's window on the routing.
    pub fn routing_handle(&self) -> &RoutingHandle {
        &self.routing_handle
    }

    /// When a command that sets out at this moment is given up.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.context.options.operation_timeout
    }

    /// How long every member may take to confirm something, or to send its statistics.
    pub fn patience_with_all(&self) -> Duration {
        self.context.options.operation_timeout * ALL_MEMBERS
    }

    /// Runs something until the thread stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.dialer.tasks.spawn(self.dialer.stop.clone().run_until_cancelled_owned(task));
    }

    /// A command as it travels; `now` is the time of this node.
    pub fn encode(&self, command: &Command<'_>, now: Seconds, wanted: Projection) -> EncodedOp {
        let at = pb::Clocked { clock: self.context.store.clock(), now };
        let mut buffer = self.buffer.lock();
        if buffer.capacity() < BUFFER_ROOM || buffer.capacity() > BUFFER_BYTES {
            *buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
        pb::pack(command, at, wanted, &mut buffer)
    }

    /// Sends a command on its way to where `routing` says.
    pub fn send(&self, routing: &Routing, place: Place, op: PendingOp) {
        match place {
            Place::Member(index) => match self.links.lock().at(index, routing, &self.dialer) {
                Some(link) => link.send(op),
                None => op.answer(Err(Unavailable::Moved)),
            },
            Place::Here { .. } | Place::Pending => {
                let epoch = op.epoch;
                if let Err(error) = self.dialer.redirected.try_send(Redirected { op, epoch, loads: false }) {
                    let (mpsc::error::TrySendError::Full(redirected)
                    | mpsc::error::TrySendError::Closed(redirected)) = error;
                    redirected.op.answer(Err(Unavailable::Overloaded));
                }
            }
            Place::Warming { .. } => self.context.moves.take_over(op),
            Place::Nowhere => op.answer(Err(Unavailable::NoOwner)),
        }
    }

    /// Has the owner execute one command, wherever that is. Cancellation safe; a command is executed even if nobody
    /// waits for it.
    pub async fn call(&self, command: &Command<'_>) -> Answer {
        let operation = self.encode(command, self.context.store.clock().now(), Projection::Value);
        let (sender, answer) = tokio::sync::oneshot::channel();
        let routing = self.routing_handle.hold().clone();
        let op = PendingOp::new(operation.clone(), routing.epoch, self.deadline(), ReplyTo::Call(sender));
        self.send(&routing, routing.place(command.key), op);
        // A command is always answered.
        answer.await.unwrap_or(Answer { operation, result: Err(Unavailable::Unanswered) })
    }

    /// Where this thread counts.
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }
}

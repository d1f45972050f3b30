//! The decisions: whose key is it, and may this node answer for it now?
//!
//! [`routing`] is what a thread looks a key up in, [`ownership`] makes a new one whenever the
//! cluster changes and sees to it that nobody acts on an older one. A [`Cache`] is one worker
//! thread's part in it: it executes what peers send, and sends what peers own. What must wait
//! for a routing waits in a `parked`, in order.

pub mod ownership;
mod parked;
pub mod pauses;
pub mod routing;
pub mod routing_watch;
mod serve;

use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::ownership::Ownership;
use crate::cache::pauses::PauseDetector;
use crate::cache::routing::{Place, Routing, RoutingHandle};
use crate::cache::routing_watch::RoutingWatch;
use crate::clock::Seconds;
use crate::cluster::Membership;
use crate::cluster::view::Member;
use crate::command::{Command, Unavailable};
use crate::pb;
use crate::pb::{EncodedOp, Projection};
use crate::peer::completions::ReplyTo;
use crate::peer::identity::Identity;
use crate::peer::link::stats::AllStats;
use crate::peer::link::{Dialer, Link, Redirected};
use crate::peer::options::Options;
use crate::peer::transport::Transport;
use crate::peer::{Answer, PendingOp, pings};
use crate::stats::Counters;
use crate::store::{Caller, Store};

/// The buffer of a thread is replaced when there is less room left in it: seldom enough for what
/// travels to be of one piece, in pieces that the allocator does not give back to the system.
const BUFFER_ROOM: usize = 512;

/// See [`BUFFER_ROOM`].
const BUFFER_BYTES: usize = 8 << 10;

/// Commands that may wait for a routing in one thread.
const PARKED_MAX: usize = 1 << 14;

/// What the threads of a node share.
pub struct Shared {
    /// This node's memory.
    pub store: Arc<Store>,
    /// Who is in the cluster.
    pub membership: Membership,
    /// Which slots are this node's.
    pub ownership: Arc<Ownership>,
    /// Whether the thread that accepts connections stood still.
    pub pauses: PauseDetector,
    /// Who this node is to its peers.
    pub me: Arc<Identity>,
    /// How peers are reached.
    pub transport: Arc<dyn Transport>,
    /// Calls to peers that are not about one key.
    pub pings: Arc<pings::Pings>,
    /// How long they are waited for.
    pub options: Arc<Options>,
    /// What the links to them have done.
    pub links: Arc<AllStats>,
}

impl Shared {
    /// Whether everybody acts on the present view, and this node answers for all that is its own.
    pub fn is_settled(&self) -> bool {
        let (state, routing) = (self.membership.state(), self.ownership.routing_watch().present());
        routing.epoch == state.epoch && state.is_settled() && routing.is_open()
    }
}

/// One worker thread's part in the cluster.
pub struct Cache {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    /// Whether this thread stood still.
    pauses: PauseDetector,
    routing_handle: Arc<RoutingHandle>,
    routing_watch: Arc<RoutingWatch>,
    links: Mutex<Links>,
    /// Where commands are written that travel; what is on its way keeps its part.
    buffer: Mutex<BytesMut>,
    /// Where outcomes are written.
    outcomes: Mutex<BytesMut>,
    dialer: Dialer,
}

/// The links of one thread, by a member's place under one routing.
#[derive(Default)]
struct Links {
    version: u64,
    by_place: Vec<(Member, Option<Link>)>,
}

impl Cache {
    /// A thread's part, whose tasks run in the thread's own runtime until `stop`.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(shared: Arc<Shared>, counters: Arc<Counters>, stop: CancellationToken) -> Arc<Self> {
        let (redirected, queue) = mpsc::channel(PARKED_MAX);
        let dialer = Dialer {
            transport: shared.transport.clone(),
            me: shared.me.clone(),
            options: shared.options.clone(),
            redirected,
            stats: shared.links.clone(),
            tasks: TaskTracker::new(),
            stop,
        };
        let cache = Arc::new(Self {
            routing_handle: shared.ownership.routing_handle(),
            routing_watch: shared.ownership.routing_watch(),
            shared,
            counters,
            pauses: PauseDetector::default(),
            links: Mutex::default(),
            buffer: Mutex::default(),
            outcomes: Mutex::default(),
            dialer,
        });
        cache.spawn(parked::run(Arc::downgrade(&cache), cache.routing_watch.clone(), queue));
        cache
    }

    /// What the threads of the node share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether this thread stood still.
    pub fn pauses(&self) -> &PauseDetector {
        &self.pauses
    }

    /// This thread's window on the routing.
    pub fn routing_handle(&self) -> &RoutingHandle {
        &self.routing_handle
    }

    /// The version of the present routing.
    pub fn version(&self) -> u64 {
        self.routing_handle.hold().version
    }

    /// Whether this node may answer for what it owns at this moment. Costs a look at the clock.
    #[inline]
    pub fn serves(&self) -> bool {
        self.shared.membership.serves()
    }

    /// Until when it may, as far as it is known now; see [`Membership::serves_until`].
    #[inline]
    pub fn serves_until(&self) -> std::time::Instant {
        self.shared.membership.serves_until()
    }

    /// When a command that sets out now is given up.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.shared.options.operation_timeout
    }

    /// Runs something until the thread stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.dialer.stop.clone();
        self.dialer.tasks.spawn(async move { _ = stop.run_until_cancelled(task).await });
    }

    /// A command as it travels; `now` is the time of this node.
    pub fn pack(&self, command: &Command<'_>, now: Seconds, wanted: Projection) -> EncodedOp {
        let at = pb::Clocked { clock: self.shared.store.clock(), now };
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
            Place::Here { .. } | Place::Soon => {
                let epoch = op.epoch;
                if let Err(error) = self.dialer.redirected.try_send(Redirected { op, epoch }) {
                    let (mpsc::error::TrySendError::Full(redirected)
                    | mpsc::error::TrySendError::Closed(redirected)) = error;
                    redirected.op.answer(Err(Unavailable::Overloaded));
                }
            }
            Place::Nowhere => op.answer(Err(Unavailable::NoOwner)),
        }
    }

    /// Has one command executed by its owner, wherever that is. Cancellation safe; a command that
    /// is not waited for is executed all the same.
    pub async fn call(&self, command: &Command<'_>) -> Answer {
        let operation = self.pack(command, self.shared.store.clock().now(), Projection::Value);
        let (sender, answer) = tokio::sync::oneshot::channel();
        let routing = self.routing_handle.hold().clone();
        let op = PendingOp::new(operation.clone(), routing.epoch, self.deadline(), ReplyTo::Call(sender));
        self.send(&routing, routing.place(command.key), op);
        // An operation is always answered.
        answer.await.unwrap_or(Answer { operation, result: Err(Unavailable::Unanswered) })
    }

    /// Executes a command here, if this is still where it belongs; gives it back when not.
    fn execute_here(&self, op: PendingOp) -> Option<PendingOp> {
        let guard = self.routing_handle.hold();
        let Place::Here { since } = guard.place(op.operation().key()) else { return Some(op) };
        let until = self.serves_until();
        let result = match Membership::lasts(until).then(|| self.execute(since, &op)) {
            None => Err(Unavailable::Fenced),
            // It may have been executed by who was not the owner any more.
            Some(_) if !Membership::lasts(until) => Err(Unavailable::Unanswered),
            Some(result) => result,
        };
        op.answer(result);
        drop(guard);
        None
    }

    fn execute(&self, since: u32, op: &PendingOp) -> Result<pb::Outcome, Unavailable> {
        let opened = op.operation().open();
        let command = opened.and_then(|operation| pb::command(&operation)).map_err(|_| Unavailable::Moved)?;
        let caller = Caller { since: Some(since), ..self.caller() };
        Ok(self.shared.store.execute(&caller, &command, |outcome| pb::outcome(0, &outcome)))
    }

    fn caller(&self) -> Caller<'_> {
        Caller::new(self.shared.store.clock().now(), &self.counters, 0)
    }
}

impl Links {
    /// The link to a member by its place under a routing; `None` when that is an older one, and
    /// the member has gone since. There is never more than one to a member: on two, commands
    /// could overtake each other.
    fn at(&mut self, place: u16, routing: &Routing, dialer: &Dialer) -> Option<&Link> {
        if self.version < routing.version {
            self.follow(routing);
        }
        let (member, link) = if self.version == routing.version {
            &mut self.by_place[usize::from(place)]
        } else {
            let member = &routing.members()[usize::from(place)];
            self.by_place.iter_mut().find(|(other, _)| other == member)?
        };
        Some(link.get_or_insert_with(|| Link::open(dialer, member.clone())))
    }

    /// Keeps the links to those who are still there, at their new places.
    fn follow(&mut self, routing: &Routing) {
        let mut known = std::mem::take(&mut self.by_place);
        self.version = routing.version;
        self.by_place = routing
            .members()
            .iter()
            .map(|member| {
                let link =
                    known.iter_mut().find(|(other, _)| other == member).and_then(|(_, link)| link.take());
                (member.clone(), link)
            })
            .collect();
    }
}

//! Which nodes are alive, and which owns what.
//!
//! The members agree on one [`View`] after another; the owner of each key is a pure function of
//! it ([`view`]). [`etcd`] is how they agree, and hands out a [`Membership`], made of a [`local_member`]. What
//! may follow a view is decided in [`propose`], without any IO. What nodes know of each other
//! without etcd are told by their [`failure_detector`].

pub mod etcd;
pub mod failure_detector;
pub mod local_member;
mod moment;
pub mod propose;
mod serving_deadline;
mod state;
pub mod view;

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cluster::etcd::health::Health;
use crate::cluster::failure_detector::Timing;
use crate::cluster::local_member::LocalMember;
use crate::cluster::serving_deadline::ServingDeadline;
pub use crate::cluster::state::{Candidate, Error, Hooks, MemberStatus, State};
use crate::cluster::view::View;

/// A node's window on its cluster; cheap to clone.
#[derive(Debug, Clone)]
pub struct Membership {
    states: watch::Receiver<Arc<State>>,
    deadline: Arc<ServingDeadline>,
    timing: Timing,
    control: Arc<dyn Control>,
}

/// Does what a [`Membership`] is asked for: the task that talks to etcd, or what a test has put in its place.
pub(crate) trait Control: fmt::Debug + Send + Sync {
    /// See [`Membership::etcd_health`].
    fn etcd_health(&self) -> Option<etcd::health::Report>;
    /// See [`Membership::heard`].
    fn heard(&self);
    /// See [`Membership::learn`].
    fn learn(&self, epoch: u64, view: View);
    /// See [`Membership::leave`].
    fn leave(&self, deadline: Duration) -> Asked<'_, ()>;
    /// See [`Membership::raise_flush_generation`].
    fn raise_flush_generation(&self) -> Asked<'_, u64>;
}

/// What a [`Control`] was asked for, which takes a while.
pub(crate) type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// How the task that talks to etcd is asked for something.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// How it gets on with etcd.
    pub health: Arc<Health>,
    /// Requests for the next flush generation.
    pub flushes: mpsc::Sender<oneshot::Sender<Result<u64, Error>>>,
    /// Views that peers told this node about.
    pub learned: mpsc::Sender<(u64, View)>,
    /// Rung when a node has answered for the first time, or no longer does.
    pub heard: Arc<Notify>,
    /// How long a request to etcd may take.
    pub patience: Duration,
    /// Cancelled to make the node leave.
    pub leaving: CancellationToken,
    /// Cancelled by the task when it has left.
    pub left: CancellationToken,
}

impl Membership {
    pub(crate) fn new(local: &LocalMember, timing: Timing, control: Arc<dyn Control>) -> Self {
        Self { states: local.states(), deadline: local.deadline(), timing, control }
    }

    /// What this node believes now. Costs a short lock and a reference count.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.states.borrow())
    }

    /// How long the nodes of this cluster go by what they heard of each other.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// How this node gets on with etcd; `None` in a test without one.
    pub fn etcd_health(&self) -> Option<etcd::health::Report> {
        self.control.etcd_health()
    }

    /// Whether this node may answer at this very moment for what it owns in the view it acts on.
    /// [`State::standing`] says what was so when it was published; a process that was stopped for
    /// a minute believes it until its tasks run again, and this looks at the clock besides. True
    /// of a node that leaves, too, which owns its keys until it has acknowledged the view without it.
    /// Costs two loads and a look at the clock.
    pub fn serves(&self) -> bool {
        Self::lasts(self.serves_until())
    }

    /// The moment from which on this node must not answer as an owner, as far as it is known now.
    /// Ask before an operation is executed, and look at the clock before its answer leaves: a
    /// node that was stopped in between, was removed and has come back has a new such moment,
    /// which must not count for what it executed before. Costs two loads.
    pub fn serves_until(&self) -> Instant {
        self.deadline.ends()
    }

    /// Whether this node may tell `id` that its pings reach it, which is the other's reason to
    /// serve on without a lease. Ask after it was found to be reached: in that order, a suspicion that
    /// is being said to the others is not missed.
    ///
    /// Not of one that is no member, or whom this node has said to suspect, though it is reached
    /// again: until the suspicion is withdrawn, the others may remove it for it. And not while this
    /// node leaves, after which it has no say.
    pub fn may_grant(&self, id: &str) -> bool {
        let state = self.states.borrow();
        state.is_member()
            && state.standing != MemberStatus::Leaving
            && state.view.members.contains_key(id)
            && !state.suspected.contains(id)
    }

    /// To be called when a node has answered for the first time, or no longer answers. What
    /// follows from it is written in etcd at once, so that nobody who joins waits for the clock.
    pub fn heard(&self) {
        self.control.heard();
    }

    /// Waits for a state that this handle has not seen, and returns it; states in between may be
    /// skipped. `None` when the membership has ended. Cancellation safe.
    pub async fn changed(&mut self) -> Option<Arc<State>> {
        self.states.changed().await.ok()?;
        Some(Arc::clone(&self.states.borrow_and_update()))
    }

    /// Waits for a state such as `wanted`, the present one included. `None` when the membership
    /// has ended. Cancellation safe.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&State) -> bool) -> Option<Arc<State>> {
        self.states.wait_for(|state| wanted(state)).await.ok().map(|state| Arc::clone(&state))
    }

    /// Takes over a view that a peer is ahead with, so that a node without etcd does not act on an
    /// older one. Only an agreed view may be told, as it stands in a peer's [`State`]. It is taken
    /// over a moment later; one that comes in a flood is dropped, because the sender will tell
    /// it again.
    pub fn learn(&self, epoch: u64, view: View) {
        self.control.learn(epoch, view);
    }

    /// Whether a moment of [`Membership::serves_until`] is still to come.
    pub fn lasts(until: Instant) -> bool {
        moment::now() < until
    }

    /// Takes this node out of the view. Views keep coming afterwards, so that what is in flight
    /// can be forwarded. Asking twice is harmless.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`] after the deadline: the others then remove this node as if it had
    /// failed.
    pub async fn leave(&self, deadline: Duration) -> Result<(), Error> {
        self.control.leave(deadline).await
    }

    /// Raises the flush generation of the view and returns it; [`Membership::flushed`] waits until
    /// all have flushed.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`] when etcd does not answer, [`Error::NotJoined`] without a view.
    pub async fn raise_flush_generation(&self) -> Result<u64, Error> {
        self.control.raise_flush_generation().await
    }

    /// Waits until every node has flushed as this generation asks: until nobody acts on a view of
    /// a lower one. Cancellation safe.
    ///
    /// # Errors
    /// The ids of those who have not confirmed it within `patience`, sorted.
    pub async fn flushed(&self, generation: u64, patience: Duration) -> Result<(), Vec<String>> {
        let mut states = self.states.clone();
        let flushed = |state: &Arc<State>| state.view.flush_generation >= generation && state.is_converged();
        if let Ok(Ok(_)) = timeout(patience, states.wait_for(flushed)).await {
            return Ok(());
        }
        let state = self.state();
        let mut ids: BTreeSet<_> = state.unconfirmed().chain(state.ahead()).map(str::to_owned).collect();
        if state.view.flush_generation < generation {
            // Not even this node has heard of it, and it cannot know who has.
            ids.extend(state.view.members.keys().cloned());
        } else if state.acks_as_of < state.epoch {
            // A peer told it, and only etcd knows who else there is.
            ids.insert(state.me.clone());
        }
        if ids.is_empty() { Ok(()) } else { Err(ids.into_iter().collect()) }
    }
}

impl Control for Task {
    fn etcd_health(&self) -> Option<etcd::health::Report> {
        Some(self.health.report())
    }

    fn heard(&self) {
        self.heard.notify_one();
    }

    fn learn(&self, epoch: u64, view: View) {
        // When the queue is full, the sender will tell it again.
        _ = self.learned.try_send((epoch, view));
    }

    fn leave(&self, deadline: Duration) -> Asked<'_, ()> {
        Box::pin(async move {
            self.leaving.cancel();
            timeout(deadline, self.left.cancelled()).await.map_err(|_| Error::Unconfirmed(deadline))
        })
    }

    fn raise_flush_generation(&self) -> Asked<'_, u64> {
        Box::pin(async {
            let (reply, answer) = oneshot::channel();
            let asked = async {
                self.flushes.send(reply).await.map_err(|_| Error::Ended)?;
                answer.await.unwrap_or(Err(Error::Unconfirmed(self.patience)))
            };
            timeout(self.patience, asked).await.unwrap_or(Err(Error::Unconfirmed(self.patience)))
        })
    }
}

//! Who is alive, and who owns what.
//!
//! The members agree on one [`View`] after another; the owner of each key is a pure function of
//! it ([`view`]). [`etcd`] is how they agree in production, [`fixed`] how tests tell them what
//! to believe; both hand out the same [`Membership`], made of a [`seat`]. What may follow a view
//! is decided in [`propose`], without any IO.

pub mod etcd;
pub mod fixed;
pub mod propose;
pub mod seat;
pub mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cluster::seat::Seat;
use crate::cluster::view::{Owners, View};

/// What a node believes about its cluster at one moment.
#[derive(Debug, Clone)]
pub struct State {
    /// Counts the views: a higher one is newer, on every node. 0 before the first.
    pub epoch: u64,
    /// The agreed members.
    pub view: Arc<View>,
    /// The owner of every slot under this view.
    pub owners: Arc<Owners>,
    /// This node's id.
    pub me: String,
    /// This node's present incarnation. Another one than before means that everything held was
    /// forgotten in between.
    pub incarnation: u64,
    /// What this node may do.
    pub standing: Standing,
    /// The epoch that each node with a lease says it has come to, this one included.
    pub acknowledged: Arc<BTreeMap<String, u64>>,
}

impl State {
    /// Whether this node is in the view, as it is now.
    pub fn is_member(&self) -> bool {
        self.view.members.get(&self.me).is_some_and(|member| member.incarnation == self.incarnation)
    }

    /// The nodes that may not have heard of this epoch yet and act on an older one: members that
    /// have not confirmed it, and those that were just removed though they have a lease. A
    /// `flush_all` must name them.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &str> {
        let confirmed = |id: &String| self.acknowledged.get(id).is_some_and(|&epoch| epoch >= self.epoch);
        let members = self.view.members.keys().filter(move |id| !confirmed(id));
        let removed = self.view.previous.iter().filter(move |id| {
            // Without a lease nobody is removed who is not fenced already.
            !self.view.members.contains_key(*id) && self.acknowledged.contains_key(*id) && !confirmed(id)
        });
        members.chain(removed).map(String::as_str)
    }

    /// Whether nobody acts on an older view any more. Until then, the previous owner of a slot may
    /// still answer for it: who has gained one must not.
    pub fn is_settled(&self) -> bool {
        self.unconfirmed().next().is_none()
    }
}

/// What a node may do in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not yet a member: owns nothing, forwards when there is a view.
    Joining,
    /// A member that may answer for what it owns.
    Serving,
    /// Must not answer as an owner: it was removed, or cannot know that it was not.
    Fenced,
    /// Has asked to be taken out of the view: forwards, and answers what is in flight.
    Leaving,
}

/// Which other nodes answer; the room that calls them knows.
pub trait Reachability: Send + Sync + 'static {
    /// Whether the node has answered lately. "Lately" must be measured against the present time,
    /// not kept from the last event: a process that was stopped and goes on must not believe in
    /// answers from before. A node that was never called counts as reachable until a call fails,
    /// or two nodes that never met could remove each other.
    fn reachable(&self, id: &str) -> bool;
}

/// What must happen between one state and the next, told in order and without a gap; a
/// [`Membership`] alone may skip states.
///
/// Called by the membership's task before the state is published. Must be quick: nobody hears of
/// the new view before it returns.
pub trait Hooks: Send + Sync + 'static {
    /// Drop every item: others may have changed what this node holds. It does not answer as an
    /// owner again before this returns.
    fn forget(&self);

    /// The view changes. A slot that `after` gives to another owner may come back later with its
    /// values changed: what is held in it must not be served again.
    fn change(&self, before: &State, after: &State) {
        let _ = (before, after);
    }
}

/// Why the cluster could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used; it names the option.
    #[error("{0}")]
    Options(String),
    /// etcd did not answer in time; whether the change happened is not known.
    #[error("etcd did not confirm it within {0:?}")]
    Unconfirmed(Duration),
    /// There is no view that could be changed.
    #[error("this node has not joined a cluster yet")]
    NotJoined,
    /// The membership has ended.
    #[error("this node has left its cluster")]
    Ended,
}

/// A node's window on its cluster; cheap to clone.
#[derive(Debug, Clone)]
pub struct Membership {
    states: watch::Receiver<Arc<State>>,
    lease: Arc<Horizon>,
    control: Control,
}

#[derive(Debug, Clone)]
enum Control {
    Task(Task),
    Script(Arc<Mutex<Seat>>),
}

/// How the task that talks to etcd is asked for something.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Requests for the next flush generation.
    pub flushes: mpsc::Sender<oneshot::Sender<Result<u64, Error>>>,
    /// Views that peers told this node about.
    pub learned: mpsc::Sender<(u64, View)>,
    /// How long a request to etcd may take.
    pub patience: Duration,
    /// Cancelled to make the node leave.
    pub leaving: CancellationToken,
    /// Cancelled by the task when it has left.
    pub left: CancellationToken,
}

impl Membership {
    pub(crate) fn of_task(seat: &Seat, task: Task) -> Self {
        Self { states: seat.states(), lease: seat.horizon(), control: Control::Task(task) }
    }

    pub(crate) fn of_script(seat: Arc<Mutex<Seat>>) -> Self {
        let (states, lease) = {
            let seat = seat.lock();
            (seat.states(), seat.horizon())
        };
        Self { states, lease, control: Control::Script(seat) }
    }

    /// What this node believes now. Costs a short lock and a reference count.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.states.borrow())
    }

    /// Whether this node may answer as an owner at this very moment. [`State::standing`] says what
    /// was so when it was published; a process that was stopped for a minute believes it until its
    /// tasks run again, and this looks at the clock besides. Ask after an operation was executed
    /// and before its answer leaves.
    pub fn serves(&self) -> bool {
        self.states.borrow().standing == Standing::Serving && Instant::now() < self.lease.get()
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
        match &self.control {
            Control::Script(seat) => _ = seat.lock().take(epoch, view),
            Control::Task(task) => _ = task.learned.try_send((epoch, view)),
        }
    }

    /// Takes this node out of the view. Views keep coming afterwards, so that what is in flight
    /// can be forwarded. Asking twice is harmless.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`] after the deadline: the others then remove this node as if it had
    /// failed.
    pub async fn leave(&self, deadline: Duration) -> Result<(), Error> {
        match &self.control {
            Control::Script(seat) => {
                seat.lock().leave();
                Ok(())
            }
            Control::Task(task) => {
                task.leaving.cancel();
                timeout(deadline, task.left.cancelled()).await.map_err(|_| Error::Unconfirmed(deadline))
            }
        }
    }

    /// Waits until every member has flushed: nobody acts any more on a view of a lower flush
    /// generation.
    ///
    /// # Errors
    /// The ids of those who have not confirmed it at the deadline.
    pub async fn flushed(&self, generation: u64, deadline: Duration) -> Result<(), Vec<String>> {
        let done = |state: &State| state.view.flush_generation >= generation && state.is_settled();
        match timeout(deadline, self.clone().wait_for(done)).await {
            Ok(Some(_)) => Ok(()),
            _ => Err(self.state().unconfirmed().map(str::to_owned).collect()),
        }
    }

    /// Raises the flush generation of the view and returns it. The members have flushed when
    /// [`State::is_settled`] holds in a state with this generation or a higher one.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`] when etcd does not answer, [`Error::NotJoined`] without a view.
    pub async fn raise_flush_generation(&self) -> Result<u64, Error> {
        match &self.control {
            Control::Script(seat) => seat.lock().flush(),
            Control::Task(task) => {
                let (reply, answer) = oneshot::channel();
                let asked = async {
                    task.flushes.send(reply).await.map_err(|_| Error::Ended)?;
                    answer.await.unwrap_or(Err(Error::Unconfirmed(task.patience)))
                };
                timeout(task.patience, asked).await.unwrap_or(Err(Error::Unconfirmed(task.patience)))
            }
        }
    }
}

/// A moment that moves: until when this node may answer as an owner.
#[derive(Debug)]
pub(crate) struct Horizon {
    base: Instant,
    nanos: AtomicU64,
}

impl Horizon {
    /// A horizon that is already past.
    pub(crate) fn past() -> Self {
        Self { base: Instant::now(), nanos: AtomicU64::new(0) }
    }

    pub(crate) fn get(&self) -> Instant {
        self.base + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// Never moves back.
    pub(crate) fn extend_to(&self, until: Instant) {
        let nanos = until.saturating_duration_since(self.base).as_nanos();
        self.nanos.fetch_max(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

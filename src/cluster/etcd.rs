//! Membership through etcd.
//!
//! What stands there, all under `/filbert/<cluster>/`:
//!
//! - `view`: the agreed view with its epoch; replaced by compare-and-swap, without a lease.
//! - `members/<id>`: a node that is there, with the lease it keeps alive.
//! - `doubts/<id>`: whom that node has not reached for long; same lease.
//! - `reached/<id>`: whom that node has reached of those who would enter the view, or who are to
//!   let it in; same lease.
//! - `acks/<id>`: the epoch that node has acknowledged; same lease.
//!
//! One task holds a session with one endpoint after another; another looks at the clock, so
//! that the standing is right while etcd keeps silent. What both know is the state.

mod admission;
pub mod calls;
mod check;
pub mod client;
mod confirmation;
mod endpoint;
pub mod health;
mod lease;
mod membership_state;
mod options;
mod own_id;
mod peers;
mod records;
mod rejoining;
mod session;
mod txns;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::etcd::calls::Connect;
use crate::cluster::etcd::health::Health;
use crate::cluster::etcd::membership_state::MembershipState;
use crate::cluster::etcd::session::EtcdTask;
use crate::cluster::failure_detector::FailureDetector;
use crate::cluster::local_member::LocalMember;
use crate::cluster::moment::now;
use crate::cluster::{Error, Hooks, Membership, Task};
pub use options::{Options, Password, default_node_id};

/// Requests for a flush generation that wait; each is bounded in time, too.
const FLUSH_QUEUE: usize = 16;

/// Views from peers that wait to be looked at.
const LEARNED_QUEUE: usize = 4;

/// Starts to take part in a cluster, and returns at once: joining goes on in tasks of `tracker`
/// until `stop` is cancelled, and the standing is `Joining` until it has succeeded. To be gone
/// without a word to the others, cancel `stop`; to part properly, [`Membership::leave`] first.
///
/// # Errors
/// [`Error::Options`] for what no retry could mend. An etcd that is not there is logged and tried
/// again.
pub fn join(
    options: Options,
    hooks: Arc<dyn Hooks>,
    failure_detector: Arc<dyn FailureDetector>,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> Result<Membership, Error> {
    options.check()?;
    let Part { membership, session, watch } = part(options.clone(), options, hooks, failure_detector);
    tracker.spawn(stop.clone().run_until_cancelled_owned(session));
    tracker.spawn(stop.run_until_cancelled_owned(watch));
    Ok(membership)
}

/// A node's part in a cluster: a membership that comes true while both tasks run.
#[derive(Debug)]
pub struct Part<S, W> {
    /// The node's window on its cluster.
    pub membership: Membership,
    /// Talks to etcd for ever.
    pub session: S,
    /// Looks at the clock and the pings for ever.
    pub watch: W,
}

/// As [`join`], with any way to etcd, and with nothing that runs yet.
pub fn part(
    connect: impl Connect + Sync,
    options: Options,
    hooks: Arc<dyn Hooks>,
    failure_detector: Arc<dyn FailureDetector>,
) -> Part<impl Future<Output = ()> + Send + 'static, impl Future<Output = ()> + Send + 'static> {
    let local = LocalMember::new(options.member(), hooks);
    let (flushes, requests) = mpsc::channel(FLUSH_QUEUE);
    let (learned, mut views) = mpsc::channel(LEARNED_QUEUE);
    let health = Arc::new(Health::new(options.timing().lives_in_etcd()));
    let task = Task {
        health: health.clone(),
        flushes,
        learned,
        heard: Arc::new(Notify::new()),
        patience: options.call_timeout * 3,
        leaving: CancellationToken::new(),
        left: CancellationToken::new(),
    };
    let membership = Membership::new(&local, options.timing(), Arc::new(task.clone()));
    let (tick, watchdog) = (options.tick(), options.watchdog.clone());
    let state = Arc::new(Mutex::new(MembershipState::new(local, failure_detector, &options)));
    let leaving = task.leaving.clone();
    let node = EtcdTask::new(options, connect, Arc::clone(&state), health, requests, &task);
    let (talking, looking) = (watchdog.watch("etcd"), watchdog.watch("membership"));
    let watch = looking.along(async move {
        let mut ticks = interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let learned = tokio::select! {
                _ = ticks.tick() => None,
                Some(view) = views.recv() => Some(view),
            };
            let mut state = state.lock();
            if let Some((epoch, view)) = learned {
                state.take(epoch, view);
            }
            if leaving.is_cancelled() && !state.local.is_leaving() {
                state.local.leave();
            }
            state.tick(now());
        }
    });
    Part { membership, session: talking.along(node.run()), watch }
}

//! What a process holds, and what is executed through it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use filbert::cache::clustered::{ClusterContext, Clustered};
use filbert::cache::loads::{Loads, runner};
use filbert::cache::moves::stats::Stats;
use filbert::cache::moves::{Moves, mover};
use filbert::cache::ownership::Ownership;
use filbert::cache::pauses::PauseDetector;
use filbert::cache::routing::Place;
use filbert::cache::turn::NotHere;
use filbert::cache::{self, Cache};
use filbert::clock::Clock;
use filbert::cluster::{Membership, etcd};
use filbert::command::{Command, Unavailable};
use filbert::events::Events;
use filbert::groups::{Group, Groups};
use filbert::pb::{self, Projection};
use filbert::peer::PendingOp;
use filbert::peer::completions::{Answer, ReplyTo};
use filbert::peer::identity::Identity;
use filbert::peer::options::Options;
use filbert::peer::pings::Pings;
use filbert::stats::{Counters, Registry};
use filbert::store::{self, Caller, Store};
use filbert::testkit::network::Network;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a command is waited for.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// The time of the cluster's start, in seconds since 1970.
const BEGINNING: u64 = 1_700_000_000;

/// The memory of a process, and its threads' part in the cluster.
pub struct Memory {
    store: Arc<Store>,
    loads: Arc<Loads>,
    shared: Arc<ClusterContext>,
    /// One of each thread.
    caches: Vec<Arc<Clustered>>,
    dead: CancellationToken,
}

/// Where a command was executed, or why it was not.
pub enum Executed {
    Here(pb::Outcome),
    Refused(Unavailable),
    Elsewhere,
    /// It waits for a load.
    Loads(oneshot::Receiver<Answer>),
}

/// A store that holds nothing, and what decides which of its slots count. Items lie there as the seed says.
pub fn empty(seed: u64) -> (Arc<Store>, Arc<Ownership>) {
    let hash_seed = Some(seed);
    let options = store::Options { budget_bytes: 8 << 20, hash_seed, ..store::Options::default() };
    let store = Arc::new(Store::new(&options, Clock::manual(BEGINNING), Events::default()));
    let ownership = Ownership::new(store.clone());
    (store, ownership)
}

impl Memory {
    /// Starts the threads of a node and listens to the others, until it is dead. It takes items over at so many bytes
    /// a second.
    pub fn start(
        threads: usize,
        bytes_per_second: u64,
        (store, ownership): (Arc<Store>, Arc<Ownership>),
        membership: Membership,
        groups: Option<Groups>,
        network: &Network,
        dead: CancellationToken,
    ) -> Self {
        let id = membership.state().me.clone();
        let identity = Identity { cluster: "simulation".to_owned(), id: id.clone() };
        let peer = Options { operation_timeout: PATIENCE, ..Options::default() };
        let (loads, started) = match groups {
            Some(groups) => {
                let (loads, started) = Loads::new(groups);
                (loads, Some(started))
            }
            None => (Loads::none(), None),
        };
        let (moves, moving) = Moves::new();
        let shared = ClusterContext {
            loads: loads.clone(),
            links: Arc::default(),
            store: store.clone(),
            membership,
            ownership,
            pauses: PauseDetector::default(),
            me: Arc::new(identity.clone()),
            transport: network.transport(&id),
            moves,
            pings: Pings::new(&etcd::Options::default(), &peer),
            options: Arc::new(peer),
        };
        let (shared, counters) = (Arc::new(shared), Registry::default().block());
        let cache = || cache::join(shared.clone(), counters.clone(), dead.clone());
        let caches: Vec<_> = std::iter::repeat_with(cache).take(threads).collect();
        if let Some(started) = started {
            tokio::spawn(runner::run(loads.clone(), Cache::Clustered(cache()), started, dead.clone()));
        }
        tokio::spawn(dead.clone().run_until_cancelled_owned(mover::run(cache(), moving, bytes_per_second)));
        network.start(identity, caches[0].clone());
        Self { store, loads, shared, caches, dead }
    }

    /// Moves its clock.
    pub fn tick(&self) {
        self.store.clock().advance(1);
        // Now nothing is left of what was flushed.
        let counters = Counters::default();
        let caller = Caller::new(self.store.clock().now(), &counters, 0);
        self.store.sweep(&caller, |_| ControlFlow::Continue(()));
    }

    /// Reads that wait for a load, and loads that run.
    pub fn loading(&self) -> u64 {
        let groups = self.loads.groups();
        let count = |group: &Arc<Group>| {
            group.stats.waiting.load(Ordering::Relaxed) + group.stats.inflight.load(Ordering::Relaxed)
        };
        groups.iter().map(count).sum()
    }

    /// Whether a load of a key may still be joined.
    pub fn is_loading(&self, key: &str) -> bool {
        self.store.is_loading(key.as_bytes())
    }

    /// What it has taken over.
    pub fn moved(&self) -> &Stats {
        self.shared.moves.stats()
    }

    /// How many of its slots are on their way, here or from here.
    pub fn moving_slots(&self) -> (usize, usize) {
        let routing = self.shared.ownership.routing_watch().present();
        routing.handovers().map_or((0, 0), |all| (all.incoming_slots(), all.outgoing_slots()))
    }

    /// Of the routing that a thread goes by.
    pub fn version(&self, thread: usize) -> u64 {
        self.caches[thread % self.caches.len()].routing_handle().hold().version
    }

    /// Has every member flush the keys with a prefix; whether all have.
    pub async fn flush_prefix(&self, prefix: &str) -> bool {
        let flushed = self.caches[0].flush_prefix(prefix.as_bytes());
        self.dead.run_until_cancelled(flushed).await.is_some_and(|flushed| flushed.is_ok())
    }

    /// Executes a command as a client's connection does, wherever it belongs; `None` when the process dies meanwhile.
    pub async fn serve(
        &self,
        thread: usize,
        command: &Command<'_>,
    ) -> Option<Result<pb::Outcome, Unavailable>> {
        match self.execute_here(thread, command) {
            Executed::Here(outcome) => Some(Ok(outcome)),
            Executed::Refused(why) => Some(Err(why)),
            Executed::Elsewhere => self.execute(thread, command).await,
            Executed::Loads(answer) => {
                let answer = self.dead.run_until_cancelled(answer).await?;
                Some(answer.expect("a command is always answered").result)
            }
        }
    }

    /// Executes a command in a thread as a client's connection does, when it belongs here.
    pub fn execute_here(&self, thread: usize, command: &Command<'_>) -> Executed {
        let cache = &self.caches[thread % self.caches.len()];
        let mut turn = cache.begin(self.store.clock().now(), 0);
        match turn.execute(command, |outcome| pb::outcome(0, &outcome)) {
            Err(NotHere::At(_) | NotHere::Unavailable(Unavailable::NoOwner)) => Executed::Elsewhere,
            Err(NotHere::Unavailable(why)) => Executed::Refused(why),
            Err(NotHere::Load(replaces)) => {
                let (sender, answer) = oneshot::channel();
                let operation = turn.encode(command, Projection::Value);
                let op = PendingOp::new(operation, 0, Instant::now(), ReplyTo::Call(sender));
                if let Some((op, outcome)) = turn.load(op, replaces) {
                    op.answer(Ok(outcome));
                }
                turn.finish().expect("no time passes here");
                Executed::Loads(answer)
            }
            Ok(outcome) => {
                turn.finish().expect("no time passes here");
                Executed::Here(outcome)
            }
        }
    }

    /// Executes a command when the routing says that it belongs here, without a look at the clock. No node does that.
    pub fn execute_without_clock(&self, command: &Command<'_>) -> Option<pb::Outcome> {
        let turn = self.caches[0].begin(self.store.clock().now(), 0);
        let Place::Here { min_generation } = turn.routing()?.place(command.key) else { return None };
        let caller = Caller { min_generation: Some(min_generation), ..turn.caller() };
        Some(self.store.execute(&caller, command, |outcome| pb::outcome(0, &outcome)))
    }

    /// Has a command executed wherever it belongs; `None` when the process dies meanwhile.
    pub async fn execute(
        &self,
        thread: usize,
        command: &Command<'_>,
    ) -> Option<Result<pb::Outcome, Unavailable>> {
        let cache = &self.caches[thread % self.caches.len()];
        tokio::select! {
            biased;
            () = self.dead.cancelled() => None,
            answer = cache.call(command) => Some(answer.result),
        }
    }
}

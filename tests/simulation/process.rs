//! One process of a node: its memory, its part in the cluster, and what is executed through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use filbert::cache::ownership::Ownership;
use filbert::cache::routing::Place;
use filbert::cache::stall::Stall;
use filbert::cache::{self, Cache};
use filbert::clock::Clock;
use filbert::cluster::fixed::Script;
use filbert::cluster::seat::Effect;
use filbert::cluster::view::Member;
use filbert::cluster::{Membership, etcd};
use filbert::command::{Command, Unavailable};
use filbert::events::Events;
use filbert::pb;
use filbert::peer::identity::Identity;
use filbert::peer::memory::Network;
use filbert::peer::options::Options;
use filbert::peer::pings::Pings;
use filbert::stats::{Counters, Registry};
use filbert::store::{self, Caller, Store};
use tokio_util::sync::CancellationToken;

use crate::simulation::etcd::Revision;

/// How long a command is waited for.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// The time of the cluster's start, in seconds since 1970.
const BEGINNING: u64 = 1_700_000_000;

/// A running process.
pub struct Process {
    pub node: usize,
    pub id: String,
    /// Counts the processes of all nodes.
    pub number: u64,
    /// Cancelled when it is killed.
    pub dead: CancellationToken,
    pub membership: Membership,
    /// The revision of etcd that it has seen last.
    seen: AtomicUsize,
    /// Whether it writes nothing to etcd: it has no lease and must not have one, for now.
    silent: AtomicBool,
    script: Script,
    ownership: Arc<Ownership>,
    store: Arc<Store>,
    /// One of each thread.
    caches: Vec<Arc<Cache>>,
    counters: Arc<Counters>,
}

/// Where a command was executed, or why it was not.
pub enum Executed {
    Here(pb::Outcome),
    Refused(Unavailable),
    Elsewhere,
}

impl Process {
    /// Starts a process of a node; one that the node had is killed.
    pub fn start(node: usize, number: u64, network: &Network) -> Arc<Self> {
        let id = format!("node-{}", node + 1);
        let options = store::Options { budget_bytes: 8 << 20, ..store::Options::default() };
        let store = Arc::new(Store::new(&options, Clock::manual(BEGINNING), Events::default()));
        let ownership = Ownership::new(store.clone());
        let me = Member {
            id: id.clone(),
            incarnation: 0,
            peer_addr: format!("{id}:11212"),
            memcached_addr: format!("{id}:11211"),
            weight: 100,
            zone: String::new(),
        };
        let (script, membership) = Script::new(me, ownership.clone());
        let identity = Identity { cluster: "simulation".to_owned(), id: id.clone() };
        let peer = Options { operation_timeout: PATIENCE, ..Options::default() };
        let shared = cache::Shared {
            links: Arc::default(),
            store: store.clone(),
            membership: membership.clone(),
            ownership: ownership.clone(),
            stall: Stall::default(),
            me: Arc::new(identity.clone()),
            transport: network.transport(&id),
            pings: Pings::new(&etcd::Options::default(), &peer),
            options: Arc::new(peer),
        };
        let (counters, dead) = (Registry::default().block(), CancellationToken::new());
        let (shared, threads) = (Arc::new(shared), 1 + number as usize % 2);
        let cache = || Cache::start(shared.clone(), counters.clone(), dead.clone());
        let caches: Vec<_> = std::iter::repeat_with(cache).take(threads).collect();
        network.start(identity, caches[0].clone());
        let (seen, silent) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self {
            node,
            id,
            number,
            dead,
            membership,
            seen,
            silent,
            script,
            ownership,
            store,
            caches,
            counters,
        })
    }

    /// Ends the process at once.
    pub fn kill(&self, network: &Network) {
        network.kill(&self.id);
        self.dead.cancel();
    }

    /// The node as it registers.
    pub fn me(&self) -> Member {
        self.script.me()
    }

    pub fn epoch(&self) -> u64 {
        self.membership.state().epoch
    }

    /// The revision of etcd that it has seen last.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }

    /// Whether it writes nothing to etcd.
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Lets it write nothing to etcd, or write again.
    pub fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Tells it what stood in etcd: the view, and which epochs were acknowledged. As it is read from etcd, the latter
    /// is known when the view is, and never goes back.
    pub fn learn(&self, revision: &Revision) -> Effect {
        if revision.number >= self.seen() {
            self.seen.store(revision.number, Ordering::Relaxed);
            self.script.acknowledge(revision.acknowledged.as_ref().clone());
        }
        let state = self.membership.state();
        if revision.epoch == state.epoch && revision.epoch <= state.witnessed {
            self.settle();
            return Effect::None;
        }
        let (view, owners) = (revision.view.as_ref().clone(), revision.owners.clone());
        let effect = self.script.push_known(revision.epoch, view, owners);
        self.settle();
        effect
    }

    /// Tells it the view of another process, as a ping does.
    pub fn hear(&self, other: &Self) -> Effect {
        let state = other.membership.state();
        let (view, owners) = (state.view.as_ref().clone(), state.owners.clone());
        let effect = self.script.hear_known(state.epoch, view, owners);
        self.settle();
        effect
    }

    /// Fences it, as it does itself when its lease runs out, or lets it serve again.
    pub fn fence(&self, fenced: bool) {
        self.script.fence(fenced);
        self.settle();
    }

    /// It wants to be taken out of the view.
    pub async fn leave(&self) {
        self.membership.leave(Duration::ZERO).await.expect("a script always confirms it");
        self.settle();
    }

    fn settle(&self) {
        self.ownership.settle(&self.membership.state());
    }

    /// Moves its clock.
    pub fn tick(&self) {
        self.store.clock().advance(1);
    }

    /// Executes a command in a thread as its door does, when it belongs here.
    pub fn execute_here(&self, thread: usize, command: &Command<'_>) -> Executed {
        let cache = &self.caches[thread % self.caches.len()];
        let routing = cache.pane().hold();
        let Place::Here { since } = routing.place(command.key) else { return Executed::Elsewhere };
        if !cache.serves() {
            return Executed::Refused(Unavailable::Fenced);
        }
        let clock = self.store.clock();
        let caller = Caller { since: Some(since), ..Caller::new(clock.now(), &self.counters, 0) };
        let outcome = self.store.execute(&caller, command, |outcome| pb::outcome(0, &outcome));
        Executed::Here(outcome)
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

/// Numbers processes.
#[derive(Default)]
pub struct Numbers(AtomicU64);

impl Numbers {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

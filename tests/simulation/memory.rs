//! What a process holds, and what is executed through it.

use std::sync::Arc;
use std::time::Duration;

use filbert::cache;
use filbert::cache::clustered::{ClusterContext, Clustered};
use filbert::cache::ownership::Ownership;
use filbert::cache::pauses::PauseDetector;
use filbert::cache::routing::Place;
use filbert::cache::turn::NotHere;
use filbert::clock::Clock;
use filbert::cluster::{Membership, etcd};
use filbert::command::{Command, Unavailable};
use filbert::events::Events;
use filbert::pb;
use filbert::peer::identity::Identity;
use filbert::peer::options::Options;
use filbert::peer::pings::Pings;
use filbert::stats::Registry;
use filbert::store::{self, Caller, Store};
use filbert::testkit::network::Network;
use tokio_util::sync::CancellationToken;

/// How long a command is waited for.
pub const PATIENCE: Duration = Duration::from_millis(250);

/// The time of the cluster's start, in seconds since 1970.
const BEGINNING: u64 = 1_700_000_000;

/// The memory of a process, and its threads' part in the cluster.
pub struct Memory {
    store: Arc<Store>,
    /// One of each thread.
    caches: Vec<Arc<Clustered>>,
    dead: CancellationToken,
}

/// Where a command was executed, or why it was not.
pub enum Executed {
    Here(pb::Outcome),
    Refused(Unavailable),
    Elsewhere,
}

/// A store that holds nothing, and what decides which of its slots count.
pub fn empty() -> (Arc<Store>, Arc<Ownership>) {
    let options = store::Options { budget_bytes: 8 << 20, ..store::Options::default() };
    let store = Arc::new(Store::new(&options, Clock::manual(BEGINNING), Events::default()));
    let ownership = Ownership::new(store.clone());
    (store, ownership)
}

impl Memory {
    /// Starts the threads of a node and listens to the others, until it is dead.
    pub fn start(
        id: &str,
        threads: usize,
        store: Arc<Store>,
        ownership: Arc<Ownership>,
        membership: Membership,
        network: &Network,
        dead: CancellationToken,
    ) -> Self {
        let identity = Identity { cluster: "simulation".to_owned(), id: id.to_owned() };
        let peer = Options { operation_timeout: PATIENCE, ..Options::default() };
        let shared = ClusterContext {
            loads: filbert::cache::loads::Loads::none(),
            links: Arc::default(),
            store: store.clone(),
            membership,
            ownership,
            pauses: PauseDetector::default(),
            me: Arc::new(identity.clone()),
            transport: network.transport(id),
            pings: Pings::new(&etcd::Options::default(), &peer),
            options: Arc::new(peer),
        };
        let (shared, counters) = (Arc::new(shared), Registry::default().block());
        let cache = || cache::join(shared.clone(), counters.clone(), dead.clone());
        let caches: Vec<_> = std::iter::repeat_with(cache).take(threads).collect();
        network.start(identity, caches[0].clone());
        Self { store, caches, dead }
    }

    /// Moves its clock.
    pub fn tick(&self) {
        self.store.clock().advance(1);
    }

    /// Executes a command in a thread as a client's connection does, when it belongs here.
    pub fn execute_here(&self, thread: usize, command: &Command<'_>) -> Executed {
        let cache = &self.caches[thread % self.caches.len()];
        let mut turn = cache.begin(self.store.clock().now(), 0);
        match turn.execute(command, |outcome| pb::outcome(0, &outcome)) {
            Err(NotHere::At(_) | NotHere::Unavailable(Unavailable::NoOwner)) => Executed::Elsewhere,
            Err(NotHere::Unavailable(why)) => Executed::Refused(why),
            Err(NotHere::Load(_)) => unreachable!("there are no groups here"),
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

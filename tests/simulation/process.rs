//! One process of a node: its memory and its part in the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use filbert::cache::ownership::Ownership;
use filbert::cluster::Membership;
use filbert::cluster::local_member::Effect;
use filbert::cluster::view::Member;
use filbert::groups::Groups;
use filbert::testkit::membership::Script;
use filbert::testkit::network::Network;
use tokio_util::sync::CancellationToken;

use crate::simulation::etcd::Revision;
use crate::simulation::memory::{self, Memory};

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
    memory: Memory,
}

impl Process {
    /// Starts a process of a node; one that the node had is killed. It takes items over at so many bytes a second.
    pub fn start(
        node: usize,
        number: u64,
        bytes_per_second: u64,
        groups: Option<Groups>,
        network: &Network,
    ) -> Arc<Self> {
        let id = name(node);
        let (store, ownership) = memory::empty(number);
        let me = Member {
            id: id.clone(),
            incarnation: 0,
            peer_addr: format!("{id}:11212"),
            memcached_addr: format!("{id}:11211"),
            weight: 100,
            zone: String::new(),
        };
        let (script, membership) = Script::new(me, ownership.clone());
        let (dead, threads) = (CancellationToken::new(), 1 + number as usize % 2);
        let memory = Memory::start(
            threads,
            bytes_per_second,
            (store, ownership.clone()),
            membership.clone(),
            groups,
            network,
            dead.clone(),
        );
        let (seen, silent) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { node, id, number, dead, membership, seen, silent, script, ownership, memory })
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
        if revision.epoch == state.epoch && revision.epoch <= state.acks_as_of {
            self.open_slots();
            return Effect::None;
        }
        let (view, owners) = (revision.view.as_ref().clone(), revision.owners.clone());
        let effect = self.script.push_known(revision.epoch, view, owners);
        self.open_slots();
        effect
    }

    /// Tells it the view of another process, as a ping does.
    pub fn hear(&self, other: &Self) -> Effect {
        let state = other.membership.state();
        let (view, owners) = (state.view.as_ref().clone(), state.owners.clone());
        let effect = self.script.hear_known(state.epoch, view, owners);
        self.open_slots();
        effect
    }

    /// Fences it, as it does itself when its lease runs out, or lets it serve again.
    pub fn fence(&self, fenced: bool) {
        self.script.fence(fenced);
        self.open_slots();
    }

    /// It wants to be taken out of the view.
    pub async fn leave(&self) {
        self.membership.leave(Duration::ZERO).await.expect("a script always confirms it");
        self.open_slots();
    }

    fn open_slots(&self) {
        self.ownership.open_slots(&self.membership.state());
    }

    /// Moves its clock.
    pub fn tick(&self) {
        self.memory.tick();
    }

    /// What executes its commands.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

/// The id of a node.
pub fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

/// Numbers processes.
#[derive(Default)]
pub struct Numbers(AtomicU64);

impl Numbers {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

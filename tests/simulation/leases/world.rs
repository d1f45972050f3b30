//! One cluster, and what is known of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use filbert::command::{Command, Get, Verb};
use filbert::testkit::network::{Cut, Delay, Network};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::simulation::leases::endpoint::Etcd;
use crate::simulation::leases::fault::Fault;
use crate::simulation::leases::found;
use crate::simulation::leases::member::{Process, name};
use crate::simulation::memory::Executed;
use crate::support::history::{Moment, Read, Span};

const MS: Duration = Duration::from_millis(1);

pub struct World {
    pub network: Network,
    pub etcd: Etcd,
    /// The keys that clients ask for.
    pub keys: Vec<String>,
    fault: Option<Fault>,
    start: Instant,
    /// How often somebody has asked for the time.
    asked: AtomicU64,
    rng: Mutex<Rng>,
    nodes: Mutex<Vec<Node>>,
    /// Whether no further fault may come to a node.
    is_quiet: AtomicBool,
    /// The pairs that do not reach each other.
    cut: Mutex<BTreeSet<(usize, usize)>>,
    /// What was read of each key by commands that had waited for a node that stood still.
    late_reads: Mutex<Vec<(usize, Read)>>,
    events: Mutex<Vec<(Moment, String)>>,
    violations: Mutex<BTreeSet<String>>,
}

#[derive(Clone, Default)]
struct Node {
    process: Option<Arc<Process>>,
    /// Whether a fault is at work on it; another one waits.
    busy: bool,
    woke: Option<Moment>,
}

impl World {
    pub fn new(seed: u64, nodes: usize, keys: Vec<String>, fault: Option<Fault>) -> Arc<Self> {
        let network = Network::new(seed);
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                network.delay(&name(from), &name(to), Delay::Between(MS, MS * 4));
            }
        }
        Arc::new(Self {
            network,
            etcd: Etcd::new(seed, fault),
            keys,
            fault,
            start: Instant::now(),
            asked: AtomicU64::new(0),
            rng: Mutex::new(Rng::with_seed(seed)),
            nodes: Mutex::new(vec![Node::default(); nodes]),
            is_quiet: AtomicBool::new(false),
            cut: Mutex::default(),
            late_reads: Mutex::default(),
            events: Mutex::default(),
            violations: Mutex::default(),
        })
    }

    /// Whether this rule is broken on purpose.
    pub fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Since the beginning; a nanosecond later each time, so that what happens in one millisecond has its order.
    pub fn now(&self) -> Moment {
        self.start.elapsed() + Duration::from_nanos(self.asked.fetch_add(1, Ordering::Relaxed))
    }

    pub fn nodes(&self) -> usize {
        self.nodes.lock().len()
    }

    /// All that run.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.nodes.lock().iter().filter_map(|node| node.process.clone()).collect()
    }

    /// The process of an id.
    pub fn process(&self, id: &str) -> Option<Arc<Process>> {
        self.processes().into_iter().find(|process| process.id == id)
    }

    /// A process for clients to ask; most often one that has just woken up.
    pub fn any(&self, rng: &mut Rng) -> Option<Arc<Process>> {
        let now = self.now();
        let nodes = self.nodes.lock();
        let runs = |node: &&Node| node.process.as_ref().is_some_and(|process| !process.freezer.is_frozen());
        let fresh = |node: &&Node| node.woke.is_some_and(|at| now < at + Duration::from_millis(600));
        let mut choice: Vec<_> = nodes.iter().filter(runs).collect();
        if rng.bool() && choice.iter().any(fresh) {
            choice.retain(fresh);
        }
        rng.choice(choice)?.process.clone()
    }

    /// Whether a node has just woken up.
    pub fn is_waking(&self) -> bool {
        let now = self.now();
        self.nodes.lock().iter().any(|node| node.woke.is_some_and(|at| now < at + Duration::from_millis(600)))
    }

    /// A node for a fault that nothing else may happen to meanwhile.
    pub fn engage(&self, rng: &mut Rng) -> Option<usize> {
        if self.is_quiet.load(Ordering::Relaxed) {
            return None;
        }
        let mut nodes = self.nodes.lock();
        let free: Vec<_> = (0..nodes.len()).filter(|node| !nodes[*node].busy).collect();
        let node = rng.choice(free)?;
        nodes[node].busy = true;
        Some(node)
    }

    pub fn let_go(&self, node: usize) {
        self.nodes.lock()[node].busy = false;
    }

    /// Waits until no fault is at work on a node, and keeps others away until [`World::end_quiet`]. `false` when that is
    /// so already.
    pub async fn quiet(&self) -> bool {
        if self.is_quiet.swap(true, Ordering::Relaxed) {
            return false;
        }
        while self.nodes.lock().iter().any(|node| node.busy) {
            sleep(MS * 10).await;
        }
        true
    }

    pub fn end_quiet(&self) {
        self.is_quiet.store(false, Ordering::Relaxed);
    }

    pub fn start(self: &Arc<Self>, node: usize) {
        self.tell(format!("{} starts", name(node)));
        let process = Process::start(self, node);
        self.nodes.lock()[node].process = Some(process);
        self.connect();
    }

    pub fn of(&self, node: usize) -> Option<Arc<Process>> {
        self.nodes.lock()[node].process.clone()
    }

    pub fn kill(&self, node: usize) {
        let process = self.nodes.lock()[node].process.take();
        if let Some(process) = process {
            process.dead.cancel();
            self.network.kill(&process.id);
            self.tell(format!("{} is killed", process.id));
        }
    }

    pub fn freeze(&self, node: usize) {
        let Some(process) = self.of(node) else { return };
        process.freezer.freeze();
        self.connect();
        self.tell(format!("{} stands still", process.id));
    }

    pub fn thaw(&self, node: usize) {
        let now = self.now();
        let Some(process) = self.of(node) else { return };
        self.nodes.lock()[node].woke = Some(now);
        process.freezer.thaw();
        self.connect();
        self.tell(format!("{} goes on", process.id));
        self.read_late(&process);
    }

    /// Commands that were sent to a node while it stood still are executed before any of its tasks goes on.
    fn read_late(&self, process: &Process) {
        for (key, name) in self.keys.iter().enumerate() {
            let began = self.now();
            let command = Command { key: name.as_bytes(), key_binary: false, verb: Verb::Get(Get::PLAIN) };
            if let Executed::Here(outcome) = process.execute_here(&command) {
                let span = Span { began, ended: self.now(), node: process.node };
                self.late_reads.lock().push((key, Read { found: found(name, &outcome), span }));
            }
        }
    }

    /// What was read of each key by commands that had waited for a node that stood still.
    pub fn late_reads(&self) -> Vec<(usize, Read)> {
        std::mem::take(&mut self.late_reads.lock())
    }

    /// Cuts two nodes off from each other, or lets them reach each other again.
    pub fn cut(&self, one: usize, other: usize, cut: bool) {
        let pair = (one.min(other), one.max(other));
        if cut {
            self.cut.lock().insert(pair);
        } else {
            self.cut.lock().remove(&pair);
        }
        self.connect();
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut.lock().contains(&(one.min(other), one.max(other)))
    }

    /// Lets through what is neither cut nor on its way to a node that stands still.
    fn connect(&self) {
        let nodes = self.nodes();
        let frozen = |node: usize| self.of(node).is_some_and(|process| process.freezer.is_frozen());
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                let (sender, receiver) = (name(from), name(to));
                if self.is_cut(from, to) {
                    self.network.cut(&sender, &receiver, Cut::Lost);
                } else if frozen(from) || frozen(to) {
                    self.network.cut(&sender, &receiver, Cut::Held);
                } else {
                    self.network.heal(&sender, &receiver);
                }
            }
        }
    }

    /// Returns when a ping gets through.
    pub async fn passes(&self, from: &str, to: &str) {
        let number = |id: &str| (0..self.nodes()).find(|node| name(*node) == id);
        let (Some(from), Some(to)) = (number(from), number(to)) else { return };
        while self.is_cut(from, to) {
            sleep(MS * 5).await;
        }
    }

    /// How long a ping takes.
    pub fn latency(&self) -> Duration {
        Duration::from_micros(self.rng.lock().u64(300..4_000))
    }

    /// Checks again and again that no node serves under an older view than one that some node takes for converged.
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(if self.is_waking() { MS } else { MS * 10 }).await;
            let processes = self.processes();
            let states: Vec<_> = processes.iter().map(|process| process.membership.state()).collect();
            let converged = states.iter().filter(|state| state.is_converged()).map(|state| state.epoch).max();
            for (process, state) in processes.iter().zip(&states) {
                let serves = process.membership.serves() && !process.freezer.is_frozen();
                if serves && state.is_member() && converged.is_some_and(|epoch| state.epoch < epoch) {
                    let what = format!(
                        "{} serves in epoch {}, and {converged:?} is converged",
                        process.id, state.epoch
                    );
                    if self.violations.lock().insert(what.clone()) {
                        self.tell(format!("WRONG: {what}"));
                    }
                }
            }
        }
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().iter().cloned().collect()
    }

    pub fn tell(&self, what: String) {
        self.events.lock().push((self.now(), what));
    }

    pub fn events(&self) -> Vec<(Moment, String)> {
        self.events.lock().clone()
    }
}

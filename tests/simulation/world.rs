//! One cluster and everything that is known of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use filbert::cache::moves::stats::Stats;
use filbert::cluster::local_member::Effect;
use filbert::cluster::view::{Member, slot};
use filbert::cluster::{MemberStatus, State, view};
use filbert::testkit::network::Network;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::simulation::database::Database;
use crate::simulation::etcd::{Etcd, Revision};
use crate::simulation::process::{Numbers, Process, name};
use crate::simulation::session;
use crate::support::history::Moment;

/// A cluster.
pub struct World {
    pub network: Network,
    pub etcd: Etcd,
    /// The keys that clients ask for.
    pub keys: Vec<String>,
    /// Where some of them have their values, if any do.
    pub database: Option<Arc<Database>>,
    /// How fast each process takes items over, in bytes a second; 0 is without a limit.
    bytes_per_second: u64,
    seed: u64,
    start: Instant,
    /// How often somebody has asked for the time.
    asked: AtomicU64,
    numbers: Numbers,
    nodes: Mutex<Vec<Node>>,
    log: Mutex<Log>,
    moved: Moved,
}

/// What all processes together have taken over.
#[derive(Default)]
pub struct Moved {
    items: AtomicU64,
    found: AtomicU64,
    absent: AtomicU64,
    failed: AtomicU64,
}

/// One node, whether it has a process or not.
#[derive(Clone)]
pub struct Node {
    pub process: Option<Arc<Process>>,
    /// Whether a fault is at work on it; another one waits.
    pub busy: bool,
    /// Whether it stands still.
    pub frozen: bool,
    /// Whether it hears nothing of etcd.
    pub off_etcd: bool,
    /// Whether it hears nothing of other nodes' views.
    pub off_gossip: bool,
}

/// What happened.
#[derive(Default)]
struct Log {
    events: Vec<(Moment, String)>,
    violations: Vec<String>,
    /// For each key, when its value may have been lost rightly.
    touched: Vec<Vec<Moment>>,
    flushes: Vec<Flush>,
    /// Prefixes that somebody began to flush, and when.
    prefixes: Vec<(String, Moment)>,
    /// The values that were read under a key with a CAS token.
    tokens: BTreeMap<(usize, u64), Vec<u8>>,
}

/// A flush that was confirmed.
#[derive(Clone, Debug)]
pub struct Flush {
    /// What its keys begin with.
    pub prefix: String,
    pub began: Moment,
    pub confirmed: Moment,
}

impl World {
    /// A cluster of this number of nodes, none of which runs yet.
    pub fn new(
        seed: u64,
        nodes: usize,
        bytes_per_second: u64,
        keys: Vec<String>,
        network: Network,
        database: Option<Arc<Database>>,
    ) -> Arc<Self> {
        let node = Node { process: None, busy: false, frozen: false, off_etcd: false, off_gossip: false };
        let log = Log { touched: vec![Vec::new(); keys.len()], ..Log::default() };
        Arc::new(Self {
            network,
            etcd: Etcd::new(),
            keys,
            database,
            bytes_per_second,
            seed,
            start: Instant::now(),
            asked: AtomicU64::new(0),
            numbers: Numbers::default(),
            nodes: Mutex::new(vec![node; nodes]),
            log: Mutex::new(log),
            moved: Moved::default(),
        })
    }

    /// Since the beginning; a nanosecond later each time, so that what happens in one millisecond has its order.
    pub fn now(&self) -> Moment {
        self.start.elapsed() + Duration::from_nanos(self.asked.fetch_add(1, Ordering::Relaxed))
    }

    /// Random numbers for one actor alone, so that no actor changes those of another.
    pub fn rng(&self, actor: u64) -> Rng {
        Rng::with_seed(
            self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ actor.wrapping_mul(0xbf58_476d_1ce4_e5b9),
        )
    }

    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.lock().clone()
    }

    pub fn node(&self, node: usize) -> Node {
        self.nodes.lock()[node].clone()
    }

    pub fn change(&self, node: usize, change: impl FnOnce(&mut Node)) {
        change(&mut self.nodes.lock()[node]);
    }

    /// All that run.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.nodes.lock().iter().filter_map(|node| node.process.clone()).collect()
    }

    /// Takes a node for something that nothing else may happen to meanwhile.
    pub fn engage(&self, node: usize) -> bool {
        !std::mem::replace(&mut self.nodes.lock()[node].busy, true)
    }

    /// Starts a process of a node that has none.
    pub fn start(self: &Arc<Self>, node: usize) -> Arc<Process> {
        let number = self.numbers.next();
        let groups = self.database.as_ref();
        let groups = groups.map(|database| database.groups(&name(node), self.rng(3_000_000 + number)));
        let process = Process::start(node, number, self.bytes_per_second, groups, &self.network);
        self.change(node, |node| node.process = Some(process.clone()));
        self.tell(format!("{} starts", process.id));
        let session = session::run(self.clone(), process.clone(), self.rng(1_000_000 + number));
        tokio::spawn(process.dead.clone().run_until_cancelled_owned(session));
        let gossip = session::gossip(self.clone(), process.clone(), self.rng(2_000_000 + number));
        tokio::spawn(process.dead.clone().run_until_cancelled_owned(gossip));
        tokio::spawn(process.dead.clone().run_until_cancelled_owned(tick(process.clone(), number)));
        process
    }

    /// Kills a process.
    pub fn kill(&self, process: &Process) {
        let state = process.membership.state();
        self.touch(|slot| owner(&state, slot).is_some_and(|owner| owner.id == process.id));
        process.kill(&self.network);
        self.moved.add(process.memory().moved());
        self.change(process.node, |node| node.process = None);
        self.tell(format!("{} is killed", process.id));
    }

    /// Fences a process. It may own what it has not heard that it lost: another one answers for that from now on.
    pub fn fence(&self, process: &Process) {
        let (state, present) = (process.membership.state(), self.etcd.present());
        self.touch(|slot| {
            let is = |member: Option<&Member>| member.is_some_and(|member| member.id == process.id);
            is(owner(&state, slot)) && !is(present.owners.owner(slot))
        });
        process.fence(true);
        self.tell(format!("{} is fenced", process.id));
    }

    /// Tells a process what stood in etcd.
    pub fn inform(&self, process: &Process, revision: &Revision) {
        self.note_change(process, || process.learn(revision));
    }

    /// Tells a process the view of another one.
    pub fn gossip(&self, process: &Process, other: &Process) {
        self.note_change(process, || process.hear(other));
    }

    fn note_change(&self, process: &Process, change: impl FnOnce() -> Effect) {
        let before = process.membership.state();
        let effect = change();
        let after = process.membership.state();
        if after.epoch == before.epoch {
            return;
        }
        let has_left = before.standing == MemberStatus::Leaving;
        let forgets = effect != Effect::None && !has_left || after.epoch > before.epoch + 1;
        let flushes = after.view.flush_generation > before.view.flush_generation;
        self.touch(|slot| {
            let (was, is) = (owner(&before, slot), owner(&after, slot));
            let here = |member: Option<&Member>| member.is_some_and(|member| member.id == process.id);
            was != is || (forgets || flushes) && (here(was) || here(is))
        });
        let members: Vec<_> = after.view.members.values().map(shown).collect();
        self.tell(format!(
            "{} comes to epoch {} of [{}]{}",
            process.id,
            after.epoch,
            members.join(" "),
            if forgets { " and forgets" } else { "" },
        ));
    }

    fn touch(&self, touched: impl Fn(u16) -> bool) {
        let now = self.now();
        let mut log = self.log.lock();
        for (key, moments) in self.keys.iter().zip(&mut log.touched) {
            if touched(slot(key.as_bytes())) {
                moments.push(now);
            }
        }
    }

    /// Whether a key may have been lost in this time.
    pub fn is_touched(&self, key: usize, from: Moment, to: Moment) -> bool {
        let log = self.log.lock();
        // What was not confirmed may happen later.
        let is_flushed =
            |(prefix, began): &(String, Moment)| *began <= to && self.keys[key].starts_with(prefix);
        let moments = &log.touched[key];
        moments.get(moments.partition_point(|moment| *moment < from)).is_some_and(|moment| *moment <= to)
            || log.prefixes.iter().any(is_flushed)
    }

    /// Flushes a prefix through a process.
    pub async fn flush_prefix(&self, process: &Process, prefix: &str) {
        self.tell(format!("{prefix} is to be flushed through {}", process.id));
        let began = self.now();
        self.log.lock().prefixes.push((prefix.to_owned(), began));
        if process.memory().flush_prefix(prefix).await {
            self.flushed(prefix.to_owned(), began);
        }
    }

    /// Notes that a flush which began then is confirmed now.
    pub fn flushed(&self, prefix: String, began: Moment) {
        let confirmed = self.now();
        self.tell(format!("the flush of {prefix:?} is confirmed"));
        self.log.lock().flushes.push(Flush { prefix, began, confirmed });
    }

    pub fn flushes(&self) -> Vec<Flush> {
        self.log.lock().flushes.clone()
    }

    /// Notes which value a CAS token was read with; it must always be the same.
    pub fn note_token(&self, key: usize, token: u64, value: &[u8]) {
        let mut log = self.log.lock();
        let known = log.tokens.entry((key, token)).or_insert_with(|| value.to_vec()).clone();
        drop(log);
        if known != value {
            let [known, value] = [&known, value].map(String::from_utf8_lossy);
            self.accuse(format!("{}: the CAS token {token} stands for {known} and {value}", self.keys[key]));
        }
    }

    /// Notes what happened.
    pub fn tell(&self, what: String) {
        self.log.lock().events.push((self.now(), what));
    }

    /// Notes what must not happen.
    pub fn accuse(&self, what: String) {
        let now = self.now();
        let mut log = self.log.lock();
        log.events.push((now, format!("WRONG: {what}")));
        log.violations.push(format!("at {:.3}: {what}", now.as_secs_f64()));
    }

    /// Of all processes that are dead: items that they took over, and commands that waited for an item which came, which
    /// was not there, or for which the source did not answer in time.
    pub fn moved(&self) -> [u64; 4] {
        let Moved { items, found, absent, failed } = &self.moved;
        [items, found, absent, failed].map(|count| count.load(Ordering::Relaxed))
    }

    pub fn events(&self) -> Vec<(Moment, String)> {
        self.log.lock().events.clone()
    }

    pub fn violations(&self) -> Vec<String> {
        self.log.lock().violations.clone()
    }
}

impl Moved {
    fn add(&self, stats: &Stats) {
        let pairs = [
            (&self.items, &stats.items_in),
            (&self.found, &stats.takes_found),
            (&self.absent, &stats.takes_absent),
            (&self.failed, &stats.takes_failed),
        ];
        for (all, one) in pairs {
            all.fetch_add(one.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// The seconds of a process begin when they like.
async fn tick(process: Arc<Process>, number: u64) {
    tokio::time::sleep(Duration::from_millis(number * 377 % 1_000)).await;
    loop {
        process.tick();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn owner(state: &State, slot: u16) -> Option<&view::Member> {
    state.owners.owner(slot)
}

fn shown(member: &Member) -> String {
    format!("{}*{}", member.id, member.weight)
}

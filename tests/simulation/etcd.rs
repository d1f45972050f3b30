//! What stands in etcd: one view after another, and the epoch that each node with a lease has acknowledged. All of it is
//! true at once; when and in which order each node hears of it is another matter (`session`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use filbert::cluster::view::{Member, Owners, View};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// An etcd that always answers.
pub struct Etcd {
    truth: Mutex<Truth>,
    changed: Notify,
}

struct Truth {
    revisions: Vec<Revision>,
    /// Which process of each node has a lease.
    leases: BTreeMap<String, u64>,
    /// Every incarnation that was a member. One that was removed must not come back.
    members: BTreeSet<(String, u64)>,
}

/// What stood there at one time.
#[derive(Clone)]
pub struct Revision {
    /// Counts the revisions.
    pub number: usize,
    pub epoch: u64,
    pub view: Arc<View>,
    pub owners: Arc<Owners>,
    pub acknowledged: Arc<BTreeMap<String, u64>>,
}

impl Etcd {
    pub fn new() -> Self {
        let first = Revision {
            number: 0,
            epoch: 0,
            view: Arc::default(),
            owners: owners(&View::default()),
            acknowledged: Arc::default(),
        };
        let truth = Truth { revisions: vec![first], leases: BTreeMap::new(), members: BTreeSet::new() };
        Self { truth: Mutex::new(truth), changed: Notify::new() }
    }

    /// What stands there now.
    pub fn present(&self) -> Revision {
        self.truth.lock().present().clone()
    }

    /// What has stood there after a revision.
    pub fn since(&self, seen: usize) -> Vec<Revision> {
        self.truth.lock().revisions[seen + 1..].to_vec()
    }

    /// Waits for something after a revision.
    pub async fn news(&self, seen: usize) {
        loop {
            let changed = self.changed.notified();
            if self.truth.lock().present().number > seen {
                return;
            }
            changed.await;
        }
    }

    /// Whether a node has a lease, and which of its processes.
    pub fn lease(&self, id: &str) -> Option<u64> {
        self.truth.lock().leases.get(id).copied()
    }

    /// Whether an incarnation may become a member: it never was one.
    pub fn is_new(&self, member: &Member) -> bool {
        !self.truth.lock().members.contains(&(member.id.clone(), member.incarnation))
    }

    /// Writes the next view; returns its epoch.
    pub fn follow(&self, members: BTreeMap<String, Member>, flush: bool) -> u64 {
        self.write_view(members, flush, None)
    }

    /// Writes the next view, out of which a node takes itself; returns its epoch.
    pub fn leave(&self, id: &str) -> u64 {
        let mut members = self.present().view.members.clone();
        members.remove(id);
        self.write_view(members, false, Some(id.to_owned()))
    }

    fn write_view(&self, members: BTreeMap<String, Member>, flush: bool, departed: Option<String>) -> u64 {
        let mut truth = self.truth.lock();
        let Revision { number, epoch, view, acknowledged, .. } = truth.present().clone();
        truth.members.extend(members.values().map(|member| (member.id.clone(), member.incarnation)));
        let view = View {
            members,
            previous: view.members.keys().cloned().collect(),
            flush_generation: view.flush_generation + u64::from(flush),
            departed,
        };
        let owners = owners(&view);
        let (number, epoch) = (number + 1, epoch + 1);
        truth.revisions.push(Revision { number, epoch, view: Arc::new(view), owners, acknowledged });
        self.changed.notify_waiters();
        epoch
    }

    /// A process writes which epoch it has acknowledged, with its lease; it gets one that has none.
    pub fn acknowledge(&self, id: &str, process: u64, epoch: u64) {
        let mut truth = self.truth.lock();
        truth.leases.insert(id.to_owned(), process);
        if truth.present().acknowledged.get(id) != Some(&epoch) {
            truth.write(|acknowledged| _ = acknowledged.insert(id.to_owned(), epoch));
            self.changed.notify_waiters();
        }
    }

    /// The lease of a process is over, unless another one of its node has one by now.
    pub fn end_lease(&self, id: &str, process: u64) {
        let mut truth = self.truth.lock();
        if truth.leases.get(id) == Some(&process) {
            truth.leases.remove(id);
            truth.write(|acknowledged| _ = acknowledged.remove(id));
            self.changed.notify_waiters();
        }
    }
}

impl Truth {
    fn present(&self) -> &Revision {
        self.revisions.last().expect("there is a first one")
    }

    fn write(&mut self, change: impl FnOnce(&mut BTreeMap<String, u64>)) {
        let mut next = self.present().clone();
        next.number += 1;
        change(Arc::make_mut(&mut next.acknowledged));
        self.revisions.push(next);
    }
}

/// Ids and weights.
type Weights = Vec<(String, u32)>;

/// The owners of all slots by ids and weights, which is most of what a history would have to compute.
static KNOWN: LazyLock<Mutex<BTreeMap<Weights, Owners>>> = LazyLock::new(Mutex::default);

fn owners(view: &View) -> Arc<Owners> {
    let weights = view.members.values().map(|member| (member.id.clone(), member.weight)).collect();
    let mut known = KNOWN.lock();
    let known = known.entry(weights).or_insert_with(|| Owners::of(view));
    Arc::new(known.under(view).expect("ids and weights are the same"))
}

//! What this node has read in etcd and seen of its peers, and what follows from it: whether it
//! may serve, whom it doubts, which view should be next. No IO.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::cluster::Reachability;
use crate::cluster::etcd::Options;
use crate::cluster::etcd::client::{Change, Record};
use crate::cluster::propose::{self, Doubts, Evidence};
use crate::cluster::seat::{Effect, Seat};
use crate::cluster::view::{Member, View};

/// A node that was put out waits a lease before it registers again; doubled this often at most.
const SHUNNED_LIMIT: u32 = 5;

/// How many leases after that a node is put out again for it to count as "again".
const SHUNNED_MEMORY: u32 = 20;

/// The names of the keys.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What all of them start with.
    pub prefix: String,
    /// The view.
    pub view: String,
}

impl Keys {
    fn new(cluster: &str) -> Self {
        let prefix = format!("/filbert/{cluster}/");
        Self { view: format!("{prefix}view"), prefix }
    }

    /// A node's registration.
    pub fn member(&self, id: &str) -> String {
        format!("{}members/{id}", self.prefix)
    }

    /// Whom a node cannot reach.
    pub fn doubts(&self, id: &str) -> String {
        format!("{}doubts/{id}", self.prefix)
    }

    /// The epoch a node has come to.
    pub fn ack(&self, id: &str) -> String {
        format!("{}acks/{id}", self.prefix)
    }
}

/// The view as it stands in etcd.
///
/// It carries its epoch, because etcd's own counters do not always go forward: `version` starts
/// again when the key is deleted, and revisions do when etcd is set up anew or from a backup. A
/// node that knows a higher epoch than it finds lifts the view above it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stored {
    /// The epoch.
    pub epoch: u64,
    /// The view.
    #[serde(flatten)]
    pub view: View,
}

/// What stands under this node's own id.
#[derive(Debug, PartialEq, Eq)]
pub enum Registration {
    /// This incarnation, with this lease.
    Ours,
    /// Something that this node may replace: the revision to compare with, 0 for nothing.
    Replaceable(i64),
    /// Another process with the same id.
    Taken(Member),
}

/// What this node knows.
pub struct Ledger {
    pub seat: Seat,
    pub keys: Keys,
    reachability: Arc<dyn Reachability>,
    lease_ttl: Duration,
    forsake_after: Duration,
    records: BTreeMap<String, Record>,
    lease_until: Option<Instant>,
    unreachable_since: BTreeMap<String, Instant>,
    no_quorum_since: Option<Instant>,
    /// When this node may register again after the others put it out.
    rejoin_at: Option<Instant>,
    /// How often in short succession that has happened, less one.
    shunned: u32,
    registered_before: bool,
    displaced: bool,
}

impl Ledger {
    pub fn new(seat: Seat, reachability: Arc<dyn Reachability>, options: &Options) -> Self {
        Self {
            seat,
            keys: Keys::new(&options.cluster),
            reachability,
            lease_ttl: options.lease_ttl,
            forsake_after: options.forsake_after,
            records: BTreeMap::new(),
            lease_until: None,
            unreachable_since: BTreeMap::new(),
            no_quorum_since: None,
            rejoin_at: None,
            shunned: 0,
            registered_before: false,
            displaced: false,
        }
    }

    /// Replaces everything that was read.
    pub fn load(&mut self, records: BTreeMap<String, Record>) {
        self.records = records;
        self.no_quorum_since = None;
        self.take_stored();
        self.look(Instant::now());
    }

    /// Takes over one change, unless something newer is known.
    pub fn change(&mut self, change: Change) {
        if self.records.get(&change.key).is_some_and(|known| known.revision > change.revision) {
            return;
        }
        let is_view = change.key == self.keys.view;
        match change.record {
            Some(record) => _ = self.records.insert(change.key, record),
            None => _ = self.records.remove(&change.key),
        }
        if is_view {
            self.take_stored();
        }
    }

    /// Whether what was read now is what is known.
    pub fn agrees_with(&self, records: &BTreeMap<String, Record>) -> bool {
        self.records == *records
    }

    /// A view from the past that was missed.
    pub fn take(&mut self, stored: Stored) {
        let live = self.registered().contains_key(&self.seat.me().id);
        if self.seat.take(stored.epoch, stored.view) == Effect::Removed && live {
            // Put out by the others, who cannot reach this node: it may well be put out again, so
            // it waits longer each time.
            let now = Instant::now();
            let again = self.rejoin_at.is_some_and(|last| now < last + self.lease_ttl * SHUNNED_MEMORY);
            self.shunned = if again { self.shunned + 1 } else { 0 };
            self.rejoin_at = Some(now + self.lease_ttl * 2_u32.pow(self.shunned.min(SHUNNED_LIMIT)));
        }
    }

    /// Looks at the clock and the peers.
    pub fn look(&mut self, now: Instant) {
        let state = self.seat.state();
        let me = &self.seat.me().id;
        let peers = || state.view.members.keys().filter(|id| *id != me);
        for id in peers() {
            if self.reachability.reachable(id) {
                self.unreachable_since.remove(id);
            } else {
                self.unreachable_since.entry(id.clone()).or_insert(now);
            }
        }
        self.unreachable_since.retain(|id, _| state.view.members.contains_key(id));

        // Peers vouch from a little before the lease ends, so that there is no gap between.
        if let Some(until) = self.lease_until
            && until <= now + self.lease_ttl / 4
        {
            let reaches = |id: &str| !self.unreachable_since.contains_key(id);
            let long = now >= until + self.forsake_after / 2;
            let vouched =
                if long { peers().all(|id| reaches(id)) } else { propose::vouched(&state.view, me, reaches) };
            if vouched {
                // Shorter than what it takes the others to doubt this node.
                self.seat.serve_until(now + self.lease_ttl / 2);
            }
        }

        if propose::has_quorum(&state.view, &self.registered()) {
            self.no_quorum_since = None;
        } else {
            self.no_quorum_since.get_or_insert(now);
        }
        self.seat.acknowledge(self.acknowledged());
        self.seat.stand(now, self.displaced);
    }

    /// The lease was renewed by a call that began then.
    pub fn renewed(&mut self, began: Instant) {
        let until = began + self.lease_ttl;
        self.lease_until = Some(until);
        self.seat.serve_until(until);
    }

    /// What stands under this node's id, when it holds this lease.
    pub fn registration(&mut self, lease: i64) -> Registration {
        let me = self.seat.me();
        let found = self.records.get(&self.keys.member(&me.id));
        let registration = match found.map(|record| (record, parse::<Member>(record))) {
            None => Registration::Replaceable(0),
            Some((record, Some(member))) if member.incarnation == me.incarnation && record.lease == lease => {
                Registration::Ours
            }
            Some((record, Some(member)))
                if member.incarnation != me.incarnation
                    && record.lease != lease
                    // A process that was killed leaves its key behind. Whoever has its address
                    // now is its successor; but only at its start, or two could take turns.
                    && (self.registered_before
                        || member.peer_addr != me.peer_addr
                        || member.incarnation > me.incarnation) =>
            {
                Registration::Taken(member)
            }
            Some((record, _)) => Registration::Replaceable(record.revision),
        };
        match &registration {
            Registration::Taken(other) => {
                if !self.displaced {
                    error!(
                        id = other.id,
                        peer_addr = other.peer_addr,
                        incarnation = other.incarnation,
                        "another process uses this node's id; this one stays out until that one is gone: \
                         give each its own --node-id"
                    );
                }
                self.displaced = true;
            }
            Registration::Ours => {
                self.registered_before = true;
                self.displaced = false;
            }
            Registration::Replaceable(_) => self.displaced = false,
        }
        registration
    }

    /// Whether this node should wait before it registers again.
    pub fn rests(&self, now: Instant) -> bool {
        self.rejoin_at.is_some_and(|at| now < at)
    }

    /// What this node should have written besides its registration: keys and values.
    pub fn statements(&self, now: Instant, lease: i64) -> Vec<(String, Vec<u8>)> {
        let me = &self.seat.me().id;
        let doubts = self.own_doubts(now);
        let mut statements = vec![(self.keys.ack(me), self.seat.state().epoch.to_string().into_bytes())];
        let key = self.keys.doubts(me);
        if !doubts.is_empty() || self.records.contains_key(&key) {
            statements.push((key, to_json(&doubts)));
        }
        statements.retain(|(key, value)| {
            self.records.get(key).is_none_or(|record| record.lease != lease || record.value != *value)
        });
        statements
    }

    /// The view that should be written next, with the revision to compare with (0: there must be
    /// none yet). `None` when all is well.
    pub fn proposal(&self, now: Instant) -> Option<(Stored, i64)> {
        let (base, revision) = self.base();
        let me = &self.seat.me().id;
        let registered = self.registered();
        if self.displaced || !registered.contains_key(me) {
            return None;
        }
        let mut doubts = self.doubts();
        doubts.insert(me.clone(), self.own_doubts(now));
        let forsaken = self.no_quorum_since.is_some_and(|since| now >= since + self.forsake_after);
        let evidence = Evidence { registered: &registered, doubts: &doubts, forsaken };
        let next = propose::next_view(&base.view, &evidence, |id| self.reachability.reachable(id));
        let epoch = self.seat.state().epoch;
        let next = match next {
            Some(view) => view,
            // Someone deleted the view, or brought back an old one.
            None if epoch > 0 && (revision == 0 || base.epoch < epoch) => base.view.clone(),
            None => return None,
        };
        Some((self.successor(&base, next), revision))
    }

    /// A view that was asked for, made from the present one, with the revision to compare with.
    pub fn derived(&self, next: impl FnOnce(&View) -> View) -> (Stored, i64) {
        let (base, revision) = self.base();
        let next = next(&base.view);
        (self.successor(&base, next), revision)
    }

    /// The view to build on, and its revision.
    fn base(&self) -> (Stored, i64) {
        match self.records.get(&self.keys.view) {
            Some(record) => (parse(record).unwrap_or_default(), record.revision),
            None => (Stored { epoch: 0, view: View::clone(&self.seat.state().view) }, 0),
        }
    }

    fn successor(&self, base: &Stored, view: View) -> Stored {
        Stored { epoch: base.epoch.max(self.seat.state().epoch) + 1, view }
    }

    /// How many nodes come before this one in the order of proposing.
    pub fn rank(&self) -> usize {
        let me = &self.seat.me().id;
        self.registered().keys().take_while(|id| *id != me).count()
    }

    /// The nodes with a living lease.
    pub fn registered(&self) -> BTreeMap<String, Member> {
        self.under::<Member>("members/").filter(|(id, member)| *id == member.id).collect()
    }

    fn doubts(&self) -> Doubts {
        self.under("doubts/").collect()
    }

    fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.under("acks/").collect()
    }

    fn own_doubts(&self, now: Instant) -> BTreeSet<String> {
        let long = |since: &Instant| now >= *since + self.lease_ttl;
        self.unreachable_since.iter().filter(|(_, since)| long(since)).map(|(id, _)| id.clone()).collect()
    }

    fn under<T: DeserializeOwned>(&self, folder: &str) -> impl Iterator<Item = (String, T)> {
        let prefix = format!("{}{folder}", self.keys.prefix);
        self.records
            .range(prefix.clone()..)
            .map_while(move |(key, record)| Some((key.strip_prefix(&prefix)?.to_owned(), record)))
            .filter_map(|(id, record)| Some((id, parse(record)?)))
    }

    fn take_stored(&mut self) {
        let Some(record) = self.records.get(&self.keys.view) else { return };
        match parse::<Stored>(record) {
            Some(stored) => self.take(stored),
            None => warn!(key = self.keys.view, "what stands in etcd is not a view; it will be replaced"),
        }
    }
}

/// What a record holds; `None` when it is not what we would have written.
pub fn parse<T: DeserializeOwned>(record: &Record) -> Option<T> {
    serde_json::from_slice(&record.value).ok()
}

/// The JSON of something that has one.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers by text always have a JSON")
}

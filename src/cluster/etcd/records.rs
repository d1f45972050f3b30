//! What stands in etcd for a cluster: the names of the keys, what is in them, and what of it
//! this node has read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cluster::etcd::calls::{Change, Record};
use crate::cluster::propose::Suspicions;
use crate::cluster::view::{Member, View};

/// The names of the keys.
#[derive(Debug, Clone)]
pub struct Keys {
    /// What all of them start with.
    pub prefix: String,
    /// The view.
    pub view: String,
}

impl Keys {
    pub fn new(cluster: &str) -> Self {
        let prefix = format!("/filbert/{cluster}/");
        Self { view: format!("{prefix}view"), prefix }
    }

    /// A node's registration.
    pub fn member(&self, id: &str) -> String {
        format!("{}members/{id}", self.prefix)
    }

    /// What all suspicions start with.
    pub fn all_suspicions(&self) -> String {
        format!("{}doubts/", self.prefix)
    }

    /// Whom a node cannot reach: ids, each with the incarnation that is meant.
    pub fn suspicions(&self, id: &str) -> String {
        format!("{}doubts/{id}", self.prefix)
    }

    /// Whom a node has reached of those who would enter the view, or who are to let it in.
    pub fn reached(&self, id: &str) -> String {
        format!("{}reached/{id}", self.prefix)
    }

    /// The epoch that a node has acknowledged.
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
    /// Whether enough of those in the view before are known to have come to this one. Written
    /// into it later, for a node that starts and can no longer ask them.
    #[serde(default)]
    pub confirmed: bool,
}

/// What a node says in `reached/ID`. What it says of nodes that no longer need to be reached may
/// be old: it is not worth a write.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reach {
    /// The incarnation that says so.
    pub(super) incarnation: u64,
    /// Whom it has reached: ids, each with the incarnation that has answered.
    pub(super) reached: BTreeMap<String, u64>,
    /// Whom it has not: ids, each with the incarnation that is meant and what came back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) missed: BTreeMap<String, (u64, String)>,
}

impl Reach {
    pub(super) fn is_empty(&self) -> bool {
        self.reached.is_empty() && self.missed.is_empty()
    }

    /// Whether both say the same of a node.
    pub(super) fn agrees_about(&self, other: &Self, id: &str) -> bool {
        self.reached.get(id) == other.reached.get(id) && self.missed.get(id) == other.missed.get(id)
    }

    /// What came back from a node.
    pub(super) fn why(&self, node: &Member) -> Option<&str> {
        let (incarnation, why) = self.missed.get(&node.id)?;
        (*incarnation == node.incarnation).then_some(why)
    }
}

/// What this node has read.
pub struct Records {
    pub keys: Keys,
    records: BTreeMap<String, Record>,
    view: Option<Arc<Stored>>,
    /// Everything that was written up to this revision is in the records. What this node wrote
    /// itself may be there sooner.
    revision: i64,
}

impl Records {
    pub fn new(cluster: &str) -> Self {
        Self { keys: Keys::new(cluster), records: BTreeMap::new(), view: None, revision: 0 }
    }

    /// Replaces everything by what was read at a revision.
    pub fn load(&mut self, revision: i64, records: BTreeMap<String, Record>) {
        self.records = records;
        self.revision = revision;
        self.read_view();
    }

    /// Takes over one change that the watch told, unless something newer is known.
    pub fn follow(&mut self, change: Change) {
        self.revision = self.revision.max(change.revision);
        self.put(change);
    }

    /// Takes over one change that this node has made.
    pub fn put(&mut self, change: Change) {
        if self.records.get(&change.key).is_some_and(|known| known.revision > change.revision) {
            return;
        }
        let is_view = change.key == self.keys.view;
        match change.record {
            Some(record) => _ = self.records.insert(change.key, record),
            None => _ = self.records.remove(&change.key),
        }
        if is_view {
            self.read_view();
        }
    }

    /// Up to which revision nothing is missing here.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether what was read now is what is known.
    pub fn agree_with(&self, records: &BTreeMap<String, Record>) -> bool {
        self.records == *records
    }

    /// What stands under a key.
    pub fn get(&self, key: &str) -> Option<&Record> {
        self.records.get(key)
    }

    /// The revision of a key; 0 when there is none.
    pub fn revision_of(&self, key: &str) -> i64 {
        self.records.get(key).map_or(0, |record| record.revision)
    }

    /// The view; `None` when there is none that can be read.
    pub fn view(&self) -> Option<&Arc<Stored>> {
        self.view.as_ref()
    }

    fn read_view(&mut self) {
        self.view = self.records.get(&self.keys.view).and_then(parse).map(Arc::new);
    }

    /// The nodes with a living lease.
    pub fn registered(&self) -> BTreeMap<String, Member> {
        self.under::<Member>("members/").filter(|(id, member)| *id == member.id).collect()
    }

    /// Whether a node has a living lease.
    pub fn is_registered(&self, id: &str) -> bool {
        self.records.contains_key(&self.keys.member(id))
    }

    /// Who says about whom that it does not answer.
    pub fn suspicions(&self) -> Suspicions {
        self.under("doubts/").collect()
    }

    /// Whom each node says that it reaches.
    pub fn reach(&self) -> BTreeMap<String, Reach> {
        self.under("reached/").collect()
    }

    /// The epochs that the nodes with a lease say they have come to.
    pub fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.under("acks/").collect()
    }

    fn under<T: DeserializeOwned>(&self, folder: &str) -> impl Iterator<Item = (String, T)> {
        let prefix = format!("{}{folder}", self.keys.prefix);
        self.records
            .range(prefix.clone()..)
            .map_while(move |(key, record)| Some((key.strip_prefix(&prefix)?.to_owned(), record)))
            .filter_map(|(id, record)| Some((id, parse(record)?)))
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

//! What is gone by when a view is proposed, all of it read in etcd.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::view::Member;

/// Whom each node has reached lately at its address: ids, each with the incarnation that has
/// answered.
pub type Reached = BTreeMap<String, BTreeMap<String, u64>>;

/// Who says about whom that it does not answer: voter to the ids, each with the incarnation that
/// is meant.
pub type Suspicions = BTreeMap<String, BTreeMap<String, u64>>;

/// What a node knows when it thinks about the next view.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The nodes with a living lease, by id.
    pub registered: &'a BTreeMap<String, Member>,
    /// What the registered nodes say, this one included.
    pub suspicions: &'a Suspicions,
    /// Whom the registered nodes have reached, as they are now.
    pub reached: &'a Reached,
    /// The proposing node, when it has waited for long for somebody to decide who enters.
    pub founder: Option<&'a str>,
    /// Those who have had no lease for so long that they do not serve unless *every* other member
    /// of their view grants them.
    pub gone: &'a BTreeSet<String>,
    /// Whether items are still on their way to where the present view has their slots: then nobody enters whom a death has
    /// not made room for.
    pub is_moving: bool,
    /// Whether the present view is old enough for somebody to be removed from it.
    pub may_remove: bool,
}

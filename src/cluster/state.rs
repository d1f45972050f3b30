//! What a node knows of its cluster, what it may do, and what is told of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::view::{Member, Owners, View};

/// What a node believes about its cluster at one moment.
#[derive(Debug, Clone)]
pub struct State {
    /// Counts the views: a higher one is newer, on every node. 0 before the first.
    pub epoch: u64,
    /// The agreed members.
    pub view: Arc<View>,
    /// The owner of every slot under this view.
    pub owners: Arc<Owners>,
    /// This node's id.
    pub me: String,
    /// This node's present incarnation. Another one than before means that everything held was
    /// forgotten in between.
    pub incarnation: u64,
    /// What this node may do.
    pub standing: MemberStatus,
    /// The epoch that each node is known to have acknowledged: members, and whoever else has a lease.
    pub acknowledged: Arc<BTreeMap<String, u64>>,
    /// The epoch of the view that was read in etcd with the acknowledgements. When a peer told of
    /// the present view, this is lower, and who else acts on an older one is not known yet.
    pub acks_as_of: u64,
    /// The members that this node has told the others it cannot reach, or is about to.
    pub suspected: Arc<BTreeSet<String>>,
    /// The living registrations: of members, and of nodes that would be members.
    pub registered: Arc<BTreeMap<String, Member>>,
    /// The nodes that would enter the view, this node included when it would. The nodes that are to let
    /// them in must reach them.
    pub candidates: Arc<Vec<Candidate>>,
}

/// A node that has registered and is not in the view as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub member: Member,
    /// What is in its way, for people: which node does not reach which, at what address, and why.
    pub troubles: Vec<String>,
}

impl State {
    /// Whether this node is in the view, as it is now.
    pub fn is_member(&self) -> bool {
        self.view.members.get(&self.me).is_some_and(|member| member.incarnation == self.incarnation)
    }

    /// The nodes that may not have heard of this epoch yet and act on an older one: members that
    /// have not confirmed it, and everybody else with a lease who has confirmed an older one only,
    /// however long ago the view was that had it. A `flush_all` must name them.
    ///
    /// This node is not among them: it has acknowledged this epoch. A former member without a lease is
    /// fenced ([`propose`](crate::cluster::propose)).
    pub fn unconfirmed(&self) -> impl Iterator<Item = &str> {
        let behind = |id: &String| self.acknowledged.get(id).is_none_or(|&epoch| epoch < self.epoch);
        let members = self.view.members.keys();
        let others = self.acknowledged.keys().filter(|id| !self.view.members.contains_key(*id));
        members.chain(others).filter(move |id| **id != self.me && behind(id)).map(String::as_str)
    }

    /// Those who are known to have acknowledged a later view than this one.
    pub fn ahead(&self) -> impl Iterator<Item = &str> {
        self.acknowledged.iter().filter(|&(_, &epoch)| epoch > self.epoch).map(|(id, _)| id.as_str())
    }

    /// Whether nobody acts on an older view (S1 of docs/design/membership.md). Until then, the previous owner of a slot may
    /// still answer for it: a node that has gained one must not. Nor while somebody is known to be ahead:
    /// when etcd has lost views, the one that follows here may be older than theirs.
    pub fn is_converged(&self) -> bool {
        self.acks_as_of >= self.epoch && self.unconfirmed().next().is_none() && self.ahead().next().is_none()
    }
}

/// What a node may do in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberStatus {
    /// Not yet a member: owns nothing, forwards when there is a view.
    Joining,
    /// A member that may answer for what it owns.
    Serving,
    /// Must not answer as an owner: it was removed, or cannot know that it was not.
    Fenced,
    /// Has asked to be taken out of the view: forwards, and answers what is in flight.
    Leaving,
}

/// What must happen between one state and the next, told in order and without a gap; a
/// [`Membership`](crate::cluster::Membership) alone may skip states.
///
/// Called by the membership's task before the state is published. Must be quick: nobody hears of
/// the new view before it returns.
pub trait Hooks: Send + Sync + 'static {
    /// Drop every item: others may have changed what this node holds. It does not answer as an
    /// owner again before this returns.
    fn forget(&self);

    /// The view changes. A slot that `after` gives to another owner may come back later with its
    /// values changed: what is held in it must not be served again.
    fn change(&self, before: &State, after: &State) {
        let _ = (before, after);
    }
}

impl MemberStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Joining, Self::Serving, Self::Fenced, Self::Leaving];

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Fenced => "fenced",
            Self::Leaving => "leaving",
        }
    }
}

/// Why the cluster could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting cannot be used.
    #[error("{said}: {why}")]
    Options {
        /// The option, as the command line has it, without dashes.
        option: &'static str,
        /// The option and its value.
        said: String,
        /// What is allowed.
        why: String,
    },
    /// etcd did not answer in time; whether the change happened is not known.
    #[error("etcd did not confirm it within {0:?}")]
    Unconfirmed(Duration),
    /// There is no view that could be changed.
    #[error("this node has not joined a cluster yet")]
    NotJoined,
    /// The membership has ended.
    #[error("this node has left its cluster")]
    Ended,
}

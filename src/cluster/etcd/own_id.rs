//! This node's id: does another process use it?

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tracing::{error, info};

use crate::cluster::view::Member;

/// Incarnations of this process that it knows again: it waits a lease before it takes another one
/// after it was put out, and its own registration ends within that.
const INCARNATIONS_LIMIT: usize = 16;

/// What stands under this node's own id.
#[derive(Debug, PartialEq, Eq)]
pub enum Registration {
    /// This incarnation, with this lease.
    Ours,
    /// Something that this node may replace.
    Replaceable,
    /// Another process with the same id.
    Taken(Member),
}

/// What is known of who uses this node's id.
#[derive(Debug)]
pub(super) struct OwnId {
    /// The last incarnations of this process: what it registered itself is nobody else's.
    incarnations: VecDeque<u64>,
    /// Whether this process was registered before.
    was_ours: bool,
    displaced: bool,
    /// Since when another process has the id.
    taken_since: Option<Instant>,
    is_said_to_be_taken: bool,
}

impl OwnId {
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            incarnations: [incarnation].into(),
            was_ours: false,
            displaced: false,
            taken_since: None,
            is_said_to_be_taken: false,
        }
    }

    /// Whether another process had the id at the last look.
    pub(super) fn is_displaced(&self) -> bool {
        self.displaced
    }

    /// This process has taken this incarnation.
    pub(super) fn reborn(&mut self, incarnation: u64) {
        if self.incarnations.back() != Some(&incarnation) {
            self.incarnations.push_back(incarnation);
            if self.incarnations.len() > INCARNATIONS_LIMIT {
                self.incarnations.pop_front();
            }
        }
    }

    /// Everything was read anew: an etcd that was away may have kept the lease of another process for as long, and
    /// gives it a whole one more.
    pub(super) fn read_anew(&mut self, now: Instant) {
        self.taken_since = self.taken_since.map(|_| now);
    }

    /// Judges what was `found` under the id, a member with its lease, and `ours`, this node with its lease. A process
    /// that was killed leaves its key behind until its lease ends, and its successor waits for that: nobody can tell it
    /// from one that is cut off, and answers its own clients for as long.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        found: Option<(Option<Member>, i64)>,
        ours: (&Member, i64),
        lease_ttl: Duration,
    ) -> Registration {
        let (me, lease) = ours;
        let registration = match found {
            Some((Some(other), other_lease))
                if other_lease == lease && other.incarnation == me.incarnation =>
            {
                Registration::Ours
            }
            Some((Some(other), other_lease))
                if other_lease != lease && !self.incarnations.contains(&other.incarnation) =>
            {
                Registration::Taken(other)
            }
            _ => Registration::Replaceable,
        };
        if let Registration::Taken(other) = &registration {
            self.log_taken(now, other, me, lease_ttl);
        } else {
            (self.taken_since, self.is_said_to_be_taken) = (None, false);
        }
        self.displaced = matches!(registration, Registration::Taken(_));
        self.was_ours |= registration == Registration::Ours;
        registration
    }

    /// A node that was killed and started again finds its own earlier process there, perhaps under
    /// another address. Only one that stays longer than a lease does is another node.
    fn log_taken(&mut self, now: Instant, other: &Member, me: &Member, lease_ttl: Duration) {
        let may_be_earlier = !self.was_ours
            && other.incarnation < me.incarnation
            // etcd may take its time.
            && self.taken_since.is_none_or(|since| now < since + lease_ttl * 2);
        let Member { id, peer_addr, incarnation, .. } = other;
        if may_be_earlier {
            if self.taken_since.is_none() {
                info!(
                    id,
                    peer_addr,
                    incarnation,
                    "waiting for the end of the lease of an earlier process with this node's id"
                );
            }
        } else if !self.is_said_to_be_taken {
            self.is_said_to_be_taken = true;
            error!(
                id,
                peer_addr,
                incarnation,
                "another process uses this node's id; this one stays out until that one is gone: \
                 give each its own --node-id"
            );
        }
        self.taken_since.get_or_insert(now);
    }

    /// Whether nothing is remembered of another process with the id.
    #[cfg(test)]
    pub(super) fn is_undisputed(&self) -> bool {
        self.taken_since.is_none() && !self.is_said_to_be_taken && !self.displaced
    }

    /// Whether it was said that another process uses the id.
    #[cfg(test)]
    pub(super) fn is_said_to_be_taken(&self) -> bool {
        self.is_said_to_be_taken
    }
}

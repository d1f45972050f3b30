//! What a node knows of the others from calling them, and how long it goes by it.

use std::time::{Duration, Instant};

use crate::cluster::view::Member;

/// What this node knows of the others from pinging them. The room that calls them implements it.
pub trait FailureDetector: Send + Sync + 'static {
    /// What is known of a member: of this incarnation, at this address. Called often, and under a
    /// lock: must be quick, and must not call the membership's owner back.
    fn contact(&self, member: &Member) -> Contact;

    /// Why it does not answer, for people: what came back, or that nothing did. `None` when it
    /// answers, or was not asked. Quick, as [`FailureDetector::contact`] is.
    fn trouble(&self, member: &Member) -> Option<String> {
        let _ = member;
        None
    }

    /// Whether this node takes over items of slots that have come to it.
    fn is_moving(&self) -> bool {
        false
    }
}

/// What is known of one member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contact {
    /// When the last ping was sent that this member answered. For one that was never pinged
    /// before, when it was first heard of, so that two nodes that never met do not suspect each
    /// other at once. `None` for one that is not known yet.
    pub answered: Option<Instant>,
    /// Whether it has ever answered.
    pub is_proven: bool,
    /// When the last ping was sent whose answer said that the member's own pings reach this node.
    pub granted: Option<Instant>,
    /// The epoch it said it had acknowledged; 0 before it said so.
    pub epoch: u64,
    /// Whether it takes items over under that view.
    pub is_moving: bool,
}

impl Contact {
    /// Whether the member has answered lately. Measured against the present time, because a
    /// process that was stopped and goes on must not believe in answers from before.
    pub fn is_reachable(&self, now: Instant, timing: Timing) -> bool {
        self.answered.is_some_and(|sent| now < sent + timing.answer_counts())
    }

    /// Whether the member is there, and may take items over under the view of this epoch: one that has not answered yet may.
    /// One that has come to no view yet has no slots that could be on their way.
    pub fn may_move(&self, epoch: u64, now: Instant, timing: Timing) -> bool {
        self.is_reachable(now, timing)
            && (self.is_moving || !self.is_proven || (1..epoch).contains(&self.epoch))
    }

    /// The same, of one that has answered in fact: being heard of is not enough to enter a view.
    pub fn is_reached(&self, now: Instant, timing: Timing) -> bool {
        self.is_proven && self.is_reachable(now, timing)
    }
}

/// How long nodes go by what they heard of each other: parts of the lease.
///
/// S5 of docs/design/membership.md: why a node that serves because others grant it is never one that these others have given
/// up: Y grants X while X is reachable for Y, so at that moment less than
/// [`Timing::answer_counts`] has gone by since X answered Y. Y suspects X when it has not been
/// reachable for [`Timing::suspected_after`] since then, more than half of a lease after that moment
/// at the earliest. X serves on that grant [`Timing::grant_counts`], half of a lease, from when
/// it sent its ping, which was before that moment.
///
/// Why a suspicion outlasts what X serves by its lease, too, even if etcd ends all leases at the moment
/// at which X is cut off from everybody: X last renewed its lease before that moment, and serves by
/// it for [`Timing::serves_for`]. Y's last ping that X answered was sent at most
/// [`Timing::ping_interval`] before that moment, and Y suspects X [`Timing::answer_counts`] and
/// [`Timing::suspected_after`] after that ping. The tenth of a lease that is left is for clocks that
/// do not run alike.
///
/// All of this is so short that the keys of a node that was killed have gone to others within a
/// lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease_ttl: Duration,
}

impl Timing {
    /// The spans for a lease of this length.
    pub fn of(lease_ttl: Duration) -> Self {
        Self { lease_ttl }
    }

    /// The lease: how long a node that is not there keeps its keys at most.
    pub fn lease_ttl(self) -> Duration {
        self.lease_ttl
    }

    /// How long a lease lives in etcd without being renewed, but for being rounded up to seconds
    /// and noticed by etcd half a second later.
    pub fn lives_in_etcd(self) -> Duration {
        self.lease_ttl * 4 / 5
    }

    /// How often a node renews it.
    pub fn renewal_interval(self) -> Duration {
        self.lease_ttl / 4
    }

    /// How long after the call that renewed its lease a node serves by it.
    pub fn serves_for(self) -> Duration {
        self.lease_ttl * 13 / 20
    }

    /// How often every node pings every other one: twice at least while an answer counts.
    pub fn ping_interval(self) -> Duration {
        self.lease_ttl / 10
    }

    /// How long after the ping was sent its answer makes a member reachable.
    pub fn answer_counts(self) -> Duration {
        self.lease_ttl / 4
    }

    /// How long a member must not have been reachable for a node to say that it suspects it.
    pub fn suspected_after(self) -> Duration {
        self.lease_ttl * 3 / 5
    }

    /// How long after the ping was sent its answer lets a node serve whose lease is over.
    pub fn grant_counts(self) -> Duration {
        self.lease_ttl / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_suspected_while_a_grant_counts() {
        for millis in [1_000, 1_001, 5_000, 60_000] {
            let timing = Timing::of(Duration::from_millis(millis));
            assert!(timing.grant_counts() + timing.lease_ttl() / 10 <= timing.suspected_after());
            assert!(timing.ping_interval() * 2 < timing.answer_counts());
        }
    }

    #[test]
    fn nobody_is_suspected_who_may_serve_by_a_lease_that_etcd_has_dropped() {
        for millis in [1_000, 1_001, 5_000, 60_000] {
            let timing = Timing::of(Duration::from_millis(millis));
            let suspected = timing.answer_counts() + timing.suspected_after();
            let slack = timing.lease_ttl() / 10;
            assert!(
                timing.ping_interval() + timing.serves_for() + slack <= suspected + Duration::from_micros(1)
            );
            assert!(timing.serves_for() < timing.lives_in_etcd());
        }
    }

    #[test]
    fn an_answer_counts_for_a_while() {
        let (now, timing) = (Instant::now(), Timing::of(Duration::from_secs(4)));
        let contact = Contact { answered: Some(now), ..Contact::default() };
        assert!(contact.is_reachable(now + Duration::from_millis(999), timing));
        assert!(!contact.is_reachable(now + Duration::from_millis(1_000), timing));
        assert!(!Contact::default().is_reachable(now, timing));
        assert!(!contact.is_reached(now, timing), "it was only heard of");
    }
}

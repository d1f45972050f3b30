//! Confirmation (S4, S7): have enough members of the view before acknowledged this one, and which members are gone?

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::cluster::etcd::records::Stored;
use crate::cluster::propose;
use crate::cluster::view::View;

/// What is known of the confirmation of views.
#[derive(Debug)]
pub(super) struct Confirmation {
    /// The last view that enough members of the one before have acknowledged.
    confirmed: Option<Confirmed>,
    /// Which members of the present view and the one before have no lease, and since when.
    absent_since: BTreeMap<String, Instant>,
    /// How long a member may be without a lease before it counts as gone.
    gone_after: Duration,
}

#[derive(Debug)]
struct Confirmed {
    epoch: u64,
    members: BTreeMap<String, u64>,
    /// Since when that is so of these members: views that only raise the flush generation follow one
    /// another without end, and must not keep everybody from being removed.
    since: Instant,
}

impl Confirmation {
    pub(super) fn new(gone_after: Duration) -> Self {
        Self { confirmed: None, absent_since: BTreeMap::new(), gone_after }
    }

    /// Everything was read anew: a member that has no lease may have had one in between.
    pub(super) fn read_anew(&mut self) {
        self.absent_since.clear();
    }

    /// Looks at the view that the next one builds on, at the leases, and at the acknowledgements of it.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        base: &Stored,
        has_lease: impl Fn(&str) -> bool,
        has_acknowledged: impl Fn(&str) -> bool,
    ) {
        let ids = base.view.members.keys().chain(&base.view.previous);
        let absent: BTreeSet<_> = ids.filter(|id| !has_lease(id)).cloned().collect();
        self.absent_since.retain(|id, _| absent.contains(id));
        absent.into_iter().for_each(|id| _ = self.absent_since.entry(id).or_insert(now));

        if self.is_confirmed(base.epoch) || !self.is_enough(now, base, has_acknowledged) {
            return;
        }
        let members = incarnations(&base.view);
        let before = self.confirmed.as_ref();
        let before = before.filter(|before| before.epoch + 1 == base.epoch && before.members == members);
        let since = before.map_or(now, |before| before.since);
        self.confirmed = Some(Confirmed { epoch: base.epoch, members, since });
    }

    /// Whether enough members of the view before have acknowledged this one, so that no node finds enough
    /// to grant it the right to serve under the older one.
    fn is_enough(&self, now: Instant, base: &Stored, has_acknowledged: impl Fn(&str) -> bool) -> bool {
        let has = |id: &str| base.view.departed.as_deref() == Some(id) || has_acknowledged(id);
        base.confirmed || propose::enough(base.view.previous.iter(), has, &self.gone(now))
    }

    /// Whether enough members of the view before are known to have acknowledged this epoch.
    pub(super) fn is_confirmed(&self, epoch: u64) -> bool {
        self.confirmed.as_ref().is_some_and(|confirmed| confirmed.epoch == epoch)
    }

    /// Since when the members of the last confirmed view are those of a confirmed view.
    pub(super) fn since(&self) -> Option<Instant> {
        self.confirmed.as_ref().map(|confirmed| confirmed.since)
    }

    /// How long a member may be without a lease before it counts as gone.
    pub(super) fn gone_after(&self) -> Duration {
        self.gone_after
    }

    /// The members without a lease for so long that they serve only while all others grant it.
    pub(super) fn gone(&self, now: Instant) -> BTreeSet<String> {
        let long = |since: &Instant| now >= *since + self.gone_after;
        self.absent_since.iter().filter(|(_, since)| long(since)).map(|(id, _)| id.clone()).collect()
    }

    /// Whether the view, or the one before it whose members have not acknowledged this one, has no
    /// member left that could let another node in ([`propose::enough`]).
    pub(super) fn is_orphaned(&self, now: Instant, base: &Stored) -> bool {
        let gone = self.gone(now);
        let members: Vec<_> = base.view.members.keys().cloned().collect();
        let is_lost = |ids: &[String]| !ids.is_empty() && ids.iter().all(|id| gone.contains(id));
        is_lost(&members) || !self.is_confirmed(base.epoch) && is_lost(&base.view.previous)
    }
}

/// The members by id, each with its incarnation.
fn incarnations(view: &View) -> BTreeMap<String, u64> {
    view.members.iter().map(|(id, member)| (id.clone(), member.incarnation)).collect()
}

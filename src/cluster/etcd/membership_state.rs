//! What this node has read in etcd and seen of its peers, and what follows from it for itself:
//! which view it acts on, and until when it may serve. No IO.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::{error, warn};

use crate::cluster::etcd::admission::{Admission, Seen};
use crate::cluster::etcd::calls::{Change, Record};
use crate::cluster::etcd::confirmation::Confirmation;
use crate::cluster::etcd::lease::Lease;
use crate::cluster::etcd::options::Options;
use crate::cluster::etcd::own_id::{OwnId, Registration};
use crate::cluster::etcd::peers::Peers;
use crate::cluster::etcd::records::{Keys, Reach, Records, Stored, parse};
use crate::cluster::etcd::rejoining::Rejoining;
use crate::cluster::failure_detector::{FailureDetector, Timing};
use crate::cluster::local_member::{Effect, LocalMember};
use crate::cluster::moment::now;
use crate::cluster::propose::admit::is_member;
use crate::cluster::propose::{self, Reached};
use crate::cluster::view::{Member, View};

/// What this node knows.
pub struct MembershipState {
    pub local: LocalMember,
    pub peers: Peers,
    pub records: Records,
    pub(super) admission: Admission,
    pub(super) timing: Timing,
    lease: Lease,
    pub(super) confirmation: Confirmation,
    rejoining: Rejoining,
    pub(super) own_id: OwnId,
    /// The epoch that this node had acknowledged when etcd was set back to an earlier time.
    set_back_at: Option<u64>,
    /// Whether it was said that no node is left that could let this one in.
    is_orphaned: bool,
}

impl MembershipState {
    pub fn new(local: LocalMember, failure_detector: Arc<dyn FailureDetector>, options: &Options) -> Self {
        let timing = options.timing();
        Self {
            own_id: OwnId::new(local.me().incarnation),
            local,
            admission: Admission::new(failure_detector.clone()),
            peers: Peers::new(failure_detector, timing),
            records: Records::new(&options.cluster),
            timing,
            lease: Lease::default(),
            confirmation: Confirmation::new(options.gone_after),
            rejoining: Rejoining::default(),
            set_back_at: None,
            is_orphaned: false,
        }
    }

    /// The names of the keys.
    pub fn keys(&self) -> &Keys {
        &self.records.keys
    }

    pub(super) fn me(&self) -> &str {
        &self.local.me().id
    }

    /// Replaces everything by what was read at a revision.
    pub fn load(&mut self, revision: i64, records: BTreeMap<String, Record>) {
        if revision < self.records.revision() {
            // It was emptied, or a backup was restored: views may have come and gone.
            self.set_back_at = Some(self.local.state().epoch);
        }
        self.records.load(revision, records);
        let now = now();
        self.own_id.read_anew(now);
        self.confirmation.read_anew();
        self.take_stored();
        self.tick(now);
    }

    /// Takes over what the watch told.
    pub fn follow(&mut self, changes: Vec<Change>) {
        for change in changes {
            let is_view = change.key == self.keys().view;
            self.records.follow(change);
            if is_view {
                self.take_stored();
            }
        }
        self.tick(now());
    }

    /// Takes over what this node has written, but not a view: that is taken when the watch brings
    /// it, and with it everything that was written before.
    pub fn wrote(&mut self, revision: i64, puts: Vec<(String, Vec<u8>, i64)>) {
        for (key, value, lease) in puts {
            if key != self.keys().view {
                self.records.put(Change { key, revision, record: Some(Record { value, revision, lease }) });
            }
        }
        self.count_lease();
    }

    fn take_stored(&mut self) {
        if self.records.get(&self.keys().view).is_none() {
            return;
        }
        match self.records.view() {
            Some(stored) => {
                let stored = Arc::clone(stored);
                self.acknowledge();
                self.take(stored.epoch, stored.view.clone());
            }
            None => warn!(key = self.keys().view, "what stands in etcd is not a view; it will be replaced"),
        }
    }

    /// Takes over a view that etcd or a peer has told.
    pub fn take(&mut self, epoch: u64, view: View) {
        let live = self.records.is_registered(self.me());
        let effect = self.local.take(epoch, view);
        self.after_view(effect, live);
    }

    /// Takes over a view out of etcd's history.
    pub fn take_past(&mut self, epoch: u64, view: View) {
        let live = self.records.is_registered(self.me());
        let effect = self.local.take_past(epoch, view);
        self.after_view(effect, live);
    }

    fn after_view(&mut self, effect: Effect, live: bool) {
        self.own_id.reborn(self.local.me().incarnation);
        if effect == Effect::Removed && live && !self.local.is_leaving() {
            self.rejoining.put_out(now(), self.timing.lease_ttl());
        }
    }

    /// Looks at the clock and the peers.
    pub fn tick(&mut self, now: Instant) {
        let state = self.local.state();
        self.peers.tick(now, &state.view, &state.me);
        self.local.suspect(self.peers.suspected().clone());
        let (base, _) = self.base();
        self.tick_confirmation(now, &base);
        if let Some(granted) = self.granted(now) {
            self.local.serve_until(granted + self.timing.grant_counts());
        }
        self.acknowledge();
        self.local.stand(now);
        self.tick_admission(now, &base);
        self.log_orphaned(now, &base);
    }

    fn tick_confirmation(&mut self, now: Instant, base: &Stored) {
        // Read only where the view is not confirmed yet.
        let acknowledged = LazyCell::new(|| self.records.acknowledged());
        let own = self.local.state();
        let (records, peers) = (&self.records, &self.peers);
        let has_acknowledged = |id: &str| {
            acknowledged.get(id).is_some_and(|&epoch| epoch >= base.epoch)
                || peers.epoch_of(id) >= base.epoch
                || id == own.me && own.epoch >= base.epoch
        };
        self.confirmation.tick(now, base, |id| records.is_registered(id), has_acknowledged);
    }

    /// Publishes the nodes that would enter, so that they are pinged.
    fn tick_admission(&mut self, now: Instant, base: &Stored) {
        let (state, registered) = (self.local.state(), self.records.registered());
        if registered.values().all(|node| is_member(&state.view, node)) {
            self.admission.clear();
            return self.local.consider(Vec::new());
        }
        let says = self.records.reach();
        let seen = Seen {
            state: &state,
            base,
            registered: &registered,
            suspicions: &self.records.suspicions(),
            reached: &reached(&registered, &says),
            says: &says,
        };
        let candidates = self.admission.tick(now, self.timing, &seen);
        self.local.consider(candidates);
    }

    /// This node, when it has waited for long for a node that could let it in: those that are
    /// there do not reach each other, and nobody can tell which of them has a wrong address.
    pub(super) fn founder(&self, now: Instant) -> Option<&str> {
        let may_found = self.admission.may_found(now, self.base().0.epoch, self.timing.lease_ttl());
        may_found.then(|| self.me())
    }

    /// Says so when this node can do nothing because all nodes that it would have to hear of are gone.
    fn log_orphaned(&mut self, now: Instant, base: &Stored) {
        let is_orphaned = self.is_orphaned(now, base);
        if is_orphaned && !self.is_orphaned {
            let members: Vec<_> = base.view.members.keys().chain(&base.view.previous).collect();
            error!(
                ?members,
                epoch = base.epoch,
                key = self.keys().view,
                "no member of this cluster has been in etcd for long. They may be cut off together and still \
                 serve, so no other node takes their place. Start one of them again under its old id; or, if \
                 none of them runs any more, stop all nodes, delete this key with etcdctl and start again"
            );
        }
        self.is_orphaned = is_orphaned;
    }

    pub(super) fn is_orphaned(&self, now: Instant, base: &Stored) -> bool {
        self.records.is_registered(self.me()) && self.confirmation.is_orphaned(now, base)
    }

    /// When the others had granted this node, if that is what it has to serve by. Not when it
    /// leaves: it may have taken itself out of the view already, without having heard so.
    fn granted(&self, now: Instant) -> Option<Instant> {
        if self.local.is_leaving() {
            return None;
        }
        // From a little before the lease ends, so that there is no gap between.
        let until = self.lease.ends(now, self.timing.lease_ttl() / 4)?;
        let state = self.local.state();
        let all = now >= until + self.confirmation.gone_after() / 2;
        let grant = |member: &Member| self.peers.granted(member, state.epoch);
        state.is_member().then(|| propose::granted(&state.view, &state.me, all, now, grant))?
    }

    fn acknowledge(&mut self) {
        let mut epochs = self.records.acknowledged();
        for (id, epoch) in self.peers.epochs() {
            let known = epochs.entry(id.clone()).or_default();
            *known = epoch.max(*known);
        }
        let state = self.local.state();
        epochs.insert(state.me.clone(), state.epoch);
        let acks_as_of = match self.base() {
            (_, Found::Other) => 0,
            _ => self.records.view().map_or(0, |stored| stored.epoch),
        };
        self.local.acknowledge(epochs, acks_as_of);
        self.local.enlist(self.records.registered());
    }

    /// A lease was granted or renewed by a call that began then.
    pub fn renewed(&mut self, lease: i64, began: Instant) {
        self.lease.renewed(lease, began + self.timing.serves_for());
        self.count_lease();
    }

    /// Serves by the lease, once this incarnation is registered with it and what it has
    /// acknowledged goes with it, too: as long as it lives, the others then wait for this node.
    /// Both are written only when etcd's view is the one that was read: so a node whose lease had
    /// ended, and that was removed meanwhile, gets neither. That holds while etcd has the view that
    /// this node acts on: one that has lost its data may have lost the view that removed this
    /// node, too.
    fn count_lease(&mut self) {
        let written = self.written_lease();
        if let Some(until) = self.lease.serve(written) {
            self.local.serve_until(until);
        }
    }

    /// Whether the others wait for this node to confirm a view for as long as it serves.
    pub(super) fn is_awaited_while_it_serves(&self) -> bool {
        self.lease.until(self.written_lease()).is_some_and(|until| self.local.serves_until() <= until)
    }

    /// The lease with which this incarnation is registered, if what it has acknowledged goes with it, too.
    fn written_lease(&self) -> Option<i64> {
        let (base, found) = self.base();
        if found != Found::Present || base.epoch != self.local.state().epoch {
            return None;
        }
        let me = self.local.me();
        let acknowledged = self.records.get(&self.keys().ack(&me.id))?;
        let registered = self.records.get(&self.keys().member(&me.id))?;
        let is_me = parse::<Member>(registered)?.incarnation == me.incarnation;
        (is_me && acknowledged.lease == registered.lease).then_some(registered.lease)
    }

    /// What stands under this node's id, when it holds this lease.
    pub fn registration(&mut self, lease: i64, now: Instant) -> Registration {
        let me = self.local.me();
        let found = self.records.get(&self.keys().member(&me.id));
        let found = found.map(|record| (parse::<Member>(record), record.lease));
        let before = self.own_id.is_displaced();
        let registration = self.own_id.tick(now, found, (me, lease), self.timing.lease_ttl());
        let displaced = self.own_id.is_displaced();
        if displaced != before {
            self.local.displace(displaced);
        }
        registration
    }

    /// Whether this node, which was put out, should wait before it registers again: for a while, and
    /// until it reaches enough members for most of the view to be able to work with it.
    pub fn rests(&self, now: Instant) -> bool {
        self.rejoining.waits(now, || self.is_member() || self.reaches_most())
    }

    /// Whether this node and those whom it reaches would be more than half of the view. Members
    /// without a lease do not count: they may be dead, and this node is needed all the more.
    fn reaches_most(&self) -> bool {
        let state = self.local.state();
        let others =
            state.view.members.keys().filter(|id| **id != state.me && self.records.is_registered(id));
        let (reached, missed): (Vec<_>, Vec<_>) = others.partition(|id| self.peers.reaches(id));
        reached.len() + 1 > missed.len()
    }

    /// The view to build on, and what was found of it in etcd.
    pub(super) fn base(&self) -> (Arc<Stored>, Found) {
        let state = self.local.state();
        match self.records.view() {
            Some(stored)
                if stored.epoch == state.epoch
                    && (stored.view != *state.view || self.set_back_at == Some(state.epoch)) =>
            {
                (Arc::clone(stored), Found::Other)
            }
            Some(stored) if stored.epoch >= state.epoch => (Arc::clone(stored), Found::Present),
            _ => {
                let view = View::clone(&state.view);
                (Arc::new(Stored { epoch: state.epoch, view, ..Stored::default() }), Found::Older)
            }
        }
    }
}

/// Whom the registered nodes say that they reach.
pub(super) fn reached(registered: &BTreeMap<String, Member>, says: &BTreeMap<String, Reach>) -> Reached {
    let is_present =
        |id: &str, it: &Reach| registered.get(id).is_some_and(|node| node.incarnation == it.incarnation);
    let says = says.iter().filter(|(id, it)| is_present(id, it));
    says.map(|(id, it)| (id.clone(), it.reached.clone())).collect()
}

/// What stands in etcd as the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The one that this node has acknowledged.
    Present,
    /// None, or an older one.
    Older,
    /// Another one of the same epoch, or one that etcd was set back to: it has lost a view, which
    /// some may act on.
    Other,
}

#[cfg(test)]
mod tests;

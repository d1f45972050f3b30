//! What this node has read in etcd and seen of its peers, and what follows from it for itself:
//! which view it acts on, and until when it may serve. No IO.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::cluster::contacts::{Contacts, Timing};
use crate::cluster::etcd::Options;
use crate::cluster::etcd::admission::Admission;
use crate::cluster::etcd::client::{Change, Record};
use crate::cluster::etcd::peers::Peers;
use crate::cluster::etcd::records::{Keys, Records, Stored, parse};
use crate::cluster::moment::now;
use crate::cluster::propose;
use crate::cluster::seat::{Effect, Seat};
use crate::cluster::view::{Member, View};

/// A node that was put out waits a lease before it registers again; doubled this often at most.
const SHUNNED_LIMIT: u32 = 5;

/// How many leases after that a node is put out again for it to count as "again".
const SHUNNED_MEMORY: u32 = 20;

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

/// What this node knows.
pub struct Ledger {
    pub seat: Seat,
    pub peers: Peers,
    pub records: Records,
    pub(super) admission: Admission,
    pub(super) timing: Timing,
    forsake_after: Duration,
    /// The lease, and until when this node serves by it; it lives a little longer.
    lease: Option<(i64, Instant)>,
    /// Until when a lease let this node serve.
    lease_until: Option<Instant>,
    /// Who of the present view and the one before has no lease, and since when.
    absent_since: BTreeMap<String, Instant>,
    /// What enough of those before it are known to have come to.
    pub(super) confirmed: Option<Confirmed>,
    /// When this node may register again after the others put it out.
    rejoin_at: Option<Instant>,
    /// How often in short succession that has happened, less one.
    shunned: u32,
    registered_before: bool,
    pub(super) displaced: bool,
    /// Since when another process has this node's id.
    taken_since: Option<Instant>,
    is_said_to_be_taken: bool,
    /// The last ones of this process: what it registered itself is nobody else's.
    incarnations: VecDeque<u64>,
    /// The epoch that this node had come to when etcd was set back to an earlier time.
    set_back_at: Option<u64>,
    /// Whether it was said that nobody is left whom this node could join.
    has_lamented: bool,
}

/// A view that enough of those before it have come to.
pub(super) struct Confirmed {
    epoch: u64,
    members: BTreeMap<String, u64>,
    /// Since when that is so of these members: views that only raise the flush generation follow one
    /// another without end, and must not keep everybody from being removed.
    pub(super) since: Instant,
}

impl Confirmed {
    fn is_followed_by(&self, epoch: u64, members: &BTreeMap<String, u64>) -> bool {
        self.epoch + 1 == epoch && self.members == *members
    }
}

/// The members by id, each with its incarnation.
fn incarnations(view: &View) -> BTreeMap<String, u64> {
    view.members.iter().map(|(id, member)| (id.clone(), member.incarnation)).collect()
}

impl Ledger {
    pub fn new(seat: Seat, contacts: Arc<dyn Contacts>, options: &Options) -> Self {
        let timing = options.timing();
        let incarnations = [seat.me().incarnation].into();
        Self {
            seat,
            admission: Admission::new(contacts.clone()),
            peers: Peers::new(contacts, timing),
            records: Records::new(&options.cluster),
            timing,
            forsake_after: options.forsake_after,
            lease: None,
            lease_until: None,
            absent_since: BTreeMap::new(),
            confirmed: None,
            rejoin_at: None,
            shunned: 0,
            registered_before: false,
            displaced: false,
            taken_since: None,
            is_said_to_be_taken: false,
            incarnations,
            set_back_at: None,
            has_lamented: false,
        }
    }

    /// The names of the keys.
    pub fn keys(&self) -> &Keys {
        &self.records.keys
    }

    pub(super) fn me(&self) -> &str {
        &self.seat.me().id
    }

    /// Replaces everything by what was read at a revision.
    pub fn load(&mut self, revision: i64, records: BTreeMap<String, Record>) {
        if revision < self.records.revision() {
            // It was emptied, or a backup was restored: views may have come and gone.
            self.set_back_at = Some(self.seat.state().epoch);
        }
        self.records.load(revision, records);
        // An etcd that was away may have kept the lease for as long, and gives it a whole one more.
        self.taken_since = self.taken_since.map(|_| now());
        // Who is not there now may have been in between.
        self.absent_since.clear();
        self.take_stored();
        self.look(now());
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
        self.look(now());
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
        let effect = self.seat.take(epoch, view);
        self.came_to(effect, live);
    }

    /// Takes over a view out of etcd's history.
    pub fn take_past(&mut self, epoch: u64, view: View) {
        let live = self.records.is_registered(self.me());
        let effect = self.seat.take_past(epoch, view);
        self.came_to(effect, live);
    }

    fn came_to(&mut self, effect: Effect, live: bool) {
        let incarnation = self.seat.me().incarnation;
        if self.incarnations.back() != Some(&incarnation) {
            self.incarnations.push_back(incarnation);
            if self.incarnations.len() > INCARNATIONS_LIMIT {
                self.incarnations.pop_front();
            }
        }
        if effect == Effect::Removed && live && !self.seat.is_leaving() {
            // Put out by the others, who cannot reach this node: it may well be put out again, so
            // it waits longer each time.
            let now = now();
            let memory = self.timing.lease_ttl() * SHUNNED_MEMORY;
            let again = self.rejoin_at.is_some_and(|last| now < last + memory);
            self.shunned = if again { self.shunned + 1 } else { 0 };
            let rest = self.timing.lease_ttl() * 2_u32.pow(self.shunned.min(SHUNNED_LIMIT));
            self.rejoin_at = Some(now + rest);
        }
    }

    /// Looks at the clock and the peers.
    pub fn look(&mut self, now: Instant) {
        let state = self.seat.state();
        self.peers.look(now, &state.view, &state.me);
        self.seat.doubt(self.peers.doubted().clone());

        let (base, _) = self.base();
        let absent = |id: &String| !self.records.is_registered(id);
        let ids = base.view.members.keys().chain(&base.view.previous);
        let absent: BTreeSet<_> = ids.filter(|id| absent(id)).cloned().collect();
        self.absent_since.retain(|id, _| absent.contains(id));
        absent.into_iter().for_each(|id| _ = self.absent_since.entry(id).or_insert(now));

        if !self.has_confirmed(base.epoch) && self.is_confirmed(now, &base) {
            let members = incarnations(&base.view);
            let before = self.confirmed.as_ref().filter(|before| before.is_followed_by(base.epoch, &members));
            let since = before.map_or(now, |before| before.since);
            self.confirmed = Some(Confirmed { epoch: base.epoch, members, since });
        }
        if let Some(vouched) = self.vouched(now) {
            self.seat.serve_until(vouched + self.timing.vouch_counts());
        }
        self.acknowledge();
        self.seat.stand(now);
        self.consider(now);
        self.lament(now, &base);
    }

    /// Says so when this node can do nothing because all whom it would have to hear of are gone.
    fn lament(&mut self, now: Instant, base: &Stored) {
        let is_forsaken = self.is_forsaken(now, base);
        if is_forsaken && !self.has_lamented {
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
        self.has_lamented = is_forsaken;
    }

    /// Whether the view, or the one before it whose members have not come to this one, has no
    /// member left that could let another node in ([`propose::enough`]).
    pub(super) fn is_forsaken(&self, now: Instant, base: &Stored) -> bool {
        let gone = self.gone(now);
        let all_gone = |mut ids: std::slice::Iter<'_, String>| ids.all(|id| gone.contains(id));
        let members: Vec<_> = base.view.members.keys().cloned().collect();
        let is_confirmed = self.has_confirmed(base.epoch);
        let previous = &base.view.previous;
        self.records.is_registered(self.me())
            && (!members.is_empty() && all_gone(members.iter())
                || !is_confirmed && !previous.is_empty() && all_gone(previous.iter()))
    }

    /// When the others had vouched for this node, if that is what it has to serve by. Not when it
    /// leaves: it may have taken itself out of the view already, without having heard so.
    fn vouched(&self, now: Instant) -> Option<Instant> {
        let until = self.lease_until.filter(|_| !self.seat.is_leaving())?;
        // From a little before the lease ends, so that there is no gap between.
        if now + self.timing.lease_ttl() / 4 < until {
            return None;
        }
        let state = self.seat.state();
        let all = now >= until + self.forsake_after / 2;
        let vouch = |member: &Member| self.peers.vouched(member, state.epoch);
        state.is_member().then(|| propose::vouched(&state.view, &state.me, all, now, vouch))?
    }

    /// Whether enough of those before it are known to have come to this epoch.
    pub(super) fn has_confirmed(&self, epoch: u64) -> bool {
        self.confirmed.as_ref().is_some_and(|confirmed| confirmed.epoch == epoch)
    }

    /// Whether so many of those in the view before have come to this one that nobody finds enough
    /// to vouch for it under the older one.
    fn is_confirmed(&self, now: Instant, base: &Stored) -> bool {
        let acknowledged = self.records.acknowledged();
        let come = |id: &str| {
            base.departed.as_deref() == Some(id)
                || acknowledged.get(id).is_some_and(|&epoch| epoch >= base.epoch)
                || self.peers.epoch_of(id) >= base.epoch
                || id == self.me() && self.seat.state().epoch >= base.epoch
        };
        base.confirmed || propose::enough(base.view.previous.iter(), come, &self.gone(now))
    }

    /// Who has had no lease for so long that it serves only while everybody vouches for it.
    pub(super) fn gone(&self, now: Instant) -> BTreeSet<String> {
        let long = |since: &Instant| now >= *since + self.forsake_after;
        self.absent_since.iter().filter(|(_, since)| long(since)).map(|(id, _)| id.clone()).collect()
    }

    fn acknowledge(&mut self) {
        let mut epochs = self.records.acknowledged();
        for (id, epoch) in self.peers.epochs() {
            let known = epochs.entry(id.clone()).or_default();
            *known = epoch.max(*known);
        }
        let state = self.seat.state();
        epochs.insert(state.me.clone(), state.epoch);
        let witnessed = match self.base() {
            (_, Found::Other) => 0,
            _ => self.records.view().map_or(0, |stored| stored.epoch),
        };
        self.seat.acknowledge(epochs, witnessed);
        self.seat.enlist(self.records.registered());
    }

    /// A lease was granted or renewed by a call that began then.
    pub fn renewed(&mut self, lease: i64, began: Instant) {
        self.lease = Some((lease, began + self.timing.serves_for()));
        self.count_lease();
    }

    /// Serves by the lease, once this incarnation is registered with it and what it has
    /// acknowledged goes with it, too: as long as it lives, the others then wait for this node.
    /// Both are written only when etcd's view is the one that was read: so a node whose lease had
    /// ended, and that was removed meanwhile, gets neither. That holds while etcd has the view that
    /// this node acts on: one that has lost its data may have lost the view that removed this
    /// node, too.
    fn count_lease(&mut self) {
        if let Some(until) = self.awaited_until() {
            self.lease_until = Some(until);
            self.seat.serve_until(until);
        }
    }

    /// Whether the others wait for this node to confirm a view for as long as it serves.
    pub(super) fn is_awaited_while_it_serves(&self) -> bool {
        self.awaited_until().is_some_and(|until| self.seat.serves_until() <= until)
    }

    fn awaited_until(&self) -> Option<Instant> {
        let (lease, until) = self.lease?;
        let (base, found) = self.base();
        if found != Found::Present || base.epoch != self.seat.state().epoch {
            return None;
        }
        let me = self.seat.me();
        let acknowledged = self.records.get(&self.keys().ack(&me.id))?;
        let registered = self.records.get(&self.keys().member(&me.id))?;
        let is_me = || parse::<Member>(registered).is_some_and(|it| it.incarnation == me.incarnation);
        (acknowledged.lease == lease && registered.lease == lease && is_me()).then_some(until)
    }

    /// What stands under this node's id, when it holds this lease. A process that was killed leaves
    /// its key behind until its lease ends, and its successor waits for that: nobody can tell it from
    /// one that is cut off, and answers its own clients for as long.
    pub fn registration(&mut self, lease: i64, now: Instant) -> Registration {
        let me = self.seat.me();
        let found = self.records.get(&self.keys().member(&me.id));
        let registration = match found.map(|record| (record, parse::<Member>(record))) {
            None => Registration::Replaceable,
            Some((record, Some(member))) if member.incarnation == me.incarnation && record.lease == lease => {
                Registration::Ours
            }
            Some((record, Some(member)))
                if !self.incarnations.contains(&member.incarnation) && record.lease != lease =>
            {
                Registration::Taken(member)
            }
            Some(_) => Registration::Replaceable,
        };
        let displaced = matches!(registration, Registration::Taken(_));
        if let Registration::Taken(other) = &registration {
            self.say_who_has_the_id(other, now);
        } else {
            (self.taken_since, self.is_said_to_be_taken) = (None, false);
        }
        if displaced != self.displaced {
            self.displaced = displaced;
            self.seat.displace(displaced);
        }
        self.registered_before |= registration == Registration::Ours;
        registration
    }

    /// A node that was killed and started again finds its own earlier process there, perhaps under
    /// another address. Only one that stays longer than a lease does is another node.
    fn say_who_has_the_id(&mut self, other: &Member, now: Instant) {
        let may_be_earlier = !self.registered_before
            && other.incarnation < self.seat.me().incarnation
            // etcd may take its time.
            && self.taken_since.is_none_or(|since| now < since + self.timing.lease_ttl() * 2);
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

    /// Whether this node, which was put out, should wait before it registers again: for a while, and
    /// until it reaches so many members that most of the view would be able to work with it.
    pub fn rests(&self, now: Instant) -> bool {
        self.rejoin_at.is_some_and(|at| now < at || !self.is_member() && !self.reaches_most())
    }

    /// Whether this node and those whom it reaches would be more than half of the view. Members
    /// without a lease do not count: they may be dead, and this node is needed all the more.
    fn reaches_most(&self) -> bool {
        let state = self.seat.state();
        let others =
            state.view.members.keys().filter(|id| **id != state.me && self.records.is_registered(id));
        let (reached, missed): (Vec<_>, Vec<_>) = others.partition(|id| self.peers.reaches(id));
        reached.len() + 1 > missed.len()
    }

    /// The view to build on, and what was found of it in etcd.
    pub(super) fn base(&self) -> (Arc<Stored>, Found) {
        let state = self.seat.state();
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

/// What stands in etcd as the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The one that this node has come to.
    Present,
    /// None, or an older one.
    Older,
    /// Another one of the same epoch, or one that etcd was set back to: it has lost a view, which
    /// some may act on.
    Other,
}

#[cfg(test)]
mod tests;

//! What a node wants to be written in etcd, by what it knows: its registration, what it says,
//! the next view. No IO.

use std::time::Instant;

use crate::cluster::etcd::calls::{Check, Write};
use crate::cluster::etcd::membership_state::{Found, MembershipState, reached};
use crate::cluster::etcd::peers::Suspected;
use crate::cluster::etcd::records::{Reach, Stored, parse, to_json};
use crate::cluster::propose::admit::is_member;
use crate::cluster::propose::{self, Evidence};
use crate::cluster::view::{Member, View};

/// A transaction that this node wants.
#[derive(Debug)]
pub struct Txn {
    /// What must be so.
    pub checks: Vec<Check>,
    /// What is then written.
    pub writes: Vec<Write>,
}

/// A view that this node wants to be the next one.
#[derive(Debug)]
pub struct Proposal {
    /// The view.
    pub next: Stored,
    /// How it is written.
    pub txn: Txn,
}

impl MembershipState {
    /// Registers this incarnation, and with it what it has acknowledged and whom it suspects; unless the
    /// view has changed since it was read: it may have been removed in between, and must then not
    /// come back (S6).
    pub fn register(&mut self, now: Instant, lease: i64) -> (Txn, Suspected) {
        let me = self.local.register().clone();
        let key = self.keys().member(&me.id);
        let (mut txn, suspicions) = self.suspicions(now, lease);
        txn.checks.push(Check::Unchanged(key.clone(), self.records.revision_of(&key)));
        txn.writes.push(Write::Put(key, to_json(&me), lease));
        txn.writes.extend(self.put_ack(lease));
        (txn, suspicions)
    }

    /// Says which epoch this node has acknowledged, when etcd does not have it (S6). Only while the view and
    /// this node's registration are as it has read them: whoever reads a later view must find with
    /// it everything by which somebody serves under an older one, and may not wait in vain for
    /// what another process with this id has overwritten.
    pub fn ack(&self, lease: i64) -> Option<Txn> {
        let write = self.put_ack(lease)?;
        let member = self.keys().member(self.me());
        let checks = vec![self.unchanged(&self.keys().view), self.unchanged(&member)];
        Some(Txn { checks, writes: vec![write] })
    }

    /// Before the first view there is nothing to acknowledge.
    fn put_ack(&self, lease: i64) -> Option<Write> {
        let state = self.local.state();
        let (key, value) = (self.keys().ack(&state.me), state.epoch.to_string().into_bytes());
        let known = self.records.get(&key);
        let is_there = known.is_some_and(|record| record.lease == lease && record.value == value);
        (state.epoch > 0 && !is_there && !self.own_id.is_displaced()).then_some(Write::Put(key, value, lease))
    }

    /// Whom this node suspects, when etcd may have something else. `Peers::has_said` follows when
    /// it was written.
    pub fn news_of_suspicions(&mut self, now: Instant, lease: i64) -> Option<(Txn, Suspected)> {
        let suspicions = self.peers.suspicions(now, &self.local.state().view);
        let key = self.keys().suspicions(self.me());
        let is_there = match self.records.get(&key) {
            Some(record) => record.lease == lease && record.value == to_json(&suspicions),
            None => suspicions.is_empty(),
        };
        let has_news = !is_there || *self.peers.said() != suspicions;
        (has_news && !self.own_id.is_displaced()).then(|| self.suspicions(now, lease))
    }

    /// Says whom this node suspects. Only under the view that it knows: a member that was removed
    /// because of a suspicion must not find it withdrawn by one that has not heard of that yet.
    fn suspicions(&mut self, now: Instant, lease: i64) -> (Txn, Suspected) {
        let suspicions = self.peers.suspicions(now, &self.local.state().view);
        self.peers.saying(&suspicions);
        let key = self.keys().suspicions(self.me());
        let checks = vec![self.unchanged(&self.keys().view), self.unchanged(&key)];
        (Txn { checks, writes: vec![Write::Put(key, to_json(&suspicions), lease)] }, suspicions)
    }

    /// Whom this node reaches of those that it should, when etcd has something else.
    pub fn news_of_reach(&self, now: Instant, lease: i64) -> Option<Txn> {
        let is_registered =
            self.records.get(&self.keys().member(self.me())).is_some_and(|record| record.lease == lease);
        if self.own_id.is_displaced() || !is_registered {
            return None;
        }
        let subjects = self.subjects();
        let reach = self.admission.reach(now, self.timing, self.local.me().incarnation, &subjects);
        let key = self.keys().reached(self.me());
        let known = self.records.get(&key).filter(|record| record.lease == lease);
        let is_there = match known.and_then(parse::<Reach>) {
            Some(known) if known.incarnation == reach.incarnation => {
                subjects.iter().all(|node| known.agrees_about(&reach, &node.id))
            }
            _ => reach.is_empty(),
        };
        let write = || Txn { checks: Vec::new(), writes: vec![Write::Put(key, to_json(&reach), lease)] };
        (!is_there).then(write)
    }

    /// The nodes of which this one must say whether it reaches them. A member says so of those that would enter. A node
    /// that would enter says so of the members and of itself, or of all when no member is there to let it in.
    fn subjects(&self) -> Vec<Member> {
        let state = self.local.state();
        let candidates = state.candidates.iter().map(|it| &it.member);
        if state.is_member() {
            return candidates.cloned().collect();
        }
        let registered = self.records.registered();
        let members: Vec<_> = registered.values().filter(|node| is_member(&state.view, node)).collect();
        let is_asked = |node: &&Member| members.is_empty() || node.id == state.me;
        candidates.filter(is_asked).chain(members.iter().copied()).cloned().collect()
    }

    fn unchanged(&self, key: &str) -> Check {
        Check::Unchanged(key.to_owned(), self.records.revision_of(key))
    }

    /// The view that should be written next. `None` when all is well, or must stay as it is for
    /// now.
    pub fn proposal(&self, now: Instant) -> Option<Proposal> {
        let (base, found) = self.base();
        let registered = self.records.registered();
        if self.own_id.is_displaced() || !registered.contains_key(self.me()) || !self.may_follow(&base) {
            return None;
        }
        // A node that knows of no view founds no cluster beside one that does: etcd has lost that view.
        if base.epoch == 0 && self.records.acknowledged().values().any(|&epoch| epoch > 0) {
            return None;
        }
        let rested = self.confirmation.since().is_some_and(|since| now >= since + self.timing.grant_counts());
        let (suspicions, gone) = (self.records.suspicions(), self.confirmation.gone(now));
        let reached = reached(&registered, &self.records.reach());
        let evidence = Evidence {
            registered: &registered,
            suspicions: &suspicions,
            reached: &reached,
            founder: self.founder(now),
            gone: &gone,
            is_moving: self.peers.may_move(base.epoch, now),
            may_remove: rested,
        };
        if let Some(view) = propose::next_view(&base.view, &evidence, |id| self.peers.reaches(id)) {
            let mut proposal = self.follow_with(&base, found, view);
            if proposal.txn.writes.len() > 1 {
                // Nobody has withdrawn the suspicions by which somebody is removed.
                let check = Check::NoneNewer(self.keys().all_suspicions(), self.records.revision());
                proposal.txn.checks.push(check);
            }
            return Some(proposal);
        }
        match found {
            Found::Present if base.confirmed => None,
            Found::Present => Some(self.over_the_view(Stored { confirmed: true, ..Stored::clone(&base) })),
            Found::Older | Found::Other if base.epoch == 0 => None,
            Found::Older | Found::Other => {
                let view = propose::again(&base.view, &evidence)?;
                Some(self.follow_with(&base, found, view))
            }
        }
    }

    /// A view that was asked for, made from the present one; `None` when no view may follow that
    /// one yet, or etcd has lost it: [`MembershipState::proposal`] decides whether it is brought back.
    pub fn derived(&self, next: impl FnOnce(&View) -> View) -> Option<Proposal> {
        let (base, found) = self.base();
        (found == Found::Present && self.may_follow(&base))
            .then(|| self.follow_with(&base, found, next(&base.view)))
    }

    /// This node's way out of the view. `None` also while it serves by more than its lease, the
    /// grants of others: until it has heard of that view, the others wait for as long as the
    /// lease lives.
    pub fn withdrawal(&self, now: Instant) -> Option<Proposal> {
        if now < self.local.serves_until() && !self.is_awaited_while_it_serves() {
            return None;
        }
        let mut proposal = self.derived(|view| propose::left(view, self.me()))?;
        proposal.txn.checks.push(self.unchanged(&self.keys().ack(self.me())));
        Some(proposal)
    }

    /// Whether this incarnation is in the view, as far as this node or etcd knows.
    pub fn is_member(&self) -> bool {
        let is_in = |view: &View| view.members.get(self.me()) == Some(self.local.me());
        self.local.state().is_member() || is_in(&self.base().0.view)
    }

    fn may_follow(&self, base: &Stored) -> bool {
        self.confirmation.is_confirmed(base.epoch)
            // Whoever brings an old view back while another knows a newer one would make a second
            // view of that epoch.
            && self.peers.epochs().all(|(id, epoch)| epoch <= base.epoch || !self.peers.reaches(id))
    }

    /// Takes the registrations of all whom the view removes, because an incarnation that was
    /// removed must not come back.
    fn follow_with(&self, base: &Stored, found: Found, view: View) -> Proposal {
        // When etcd has lost the view, it may have lost later ones, too: an epoch that others may
        // have another view of is skipped, so that whoever has not seen those forgets everything.
        let step = if found == Found::Present || base.epoch == 0 { 1 } else { 2 };
        let next = Stored { epoch: base.epoch + step, view, ..Stored::default() };
        let mut proposal = self.over_the_view(next);
        let removed = base.view.members.keys().filter(|id| !proposal.next.view.members.contains_key(*id));
        for key in removed.map(|id| self.keys().member(id)) {
            proposal.txn.checks.push(self.unchanged(&key));
            proposal.txn.writes.push(Write::Delete(key));
        }
        proposal
    }

    fn over_the_view(&self, next: Stored) -> Proposal {
        let txn = Txn { checks: vec![self.unchanged(&self.keys().view)], writes: vec![self.put_view(&next)] };
        Proposal { next, txn }
    }

    fn put_view(&self, stored: &Stored) -> Write {
        Write::Put(self.keys().view.clone(), to_json(stored), 0)
    }

    /// How many nodes come before this one in the order of proposing.
    pub fn rank(&self) -> usize {
        self.records.registered().keys().take_while(|id| *id != self.me()).count()
    }
}

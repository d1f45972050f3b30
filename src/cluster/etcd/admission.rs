//! Who would enter the view: what this node says of them in etcd, and what people are told when
//! they stay out. No IO.
//!
//! A member says whom of them it has reached, and who would enter says whom of the members;
//! [`propose::admit`] goes by what both say. What came back instead of an answer is said, too:
//! a node with a wrong address cannot find out by itself what is wrong.
//!
//! [`propose::admit`]: crate::cluster::propose::admit

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::cluster::Candidate;
use crate::cluster::contacts::Contacts;
use crate::cluster::etcd::client::Write;
use crate::cluster::etcd::ledger::Ledger;
use crate::cluster::etcd::records::{parse, to_json};
use crate::cluster::propose::admit::{Electors, is_member, may_found, reaches};
use crate::cluster::propose::{Evidence, Reached};
use crate::cluster::view::Member;

/// Most nodes that are pinged besides the members. Those that started last come first: who stays
/// out for long must not keep others out.
const CANDIDATES_MAX: usize = 64;

/// Most that is said about one of them.
const TROUBLES_MAX: usize = 8;

/// Longest text of what came back.
const WHY_LEN: usize = 200;

/// How often what is in one's way is said again, when it is something else by then.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// What a node says in `reached/ID`. What it says of nodes that need not be reached any more may
/// be old: it is not worth a write.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reach {
    /// The incarnation that says so.
    incarnation: u64,
    /// Whom it has reached: ids, each with the incarnation that has answered.
    reached: BTreeMap<String, u64>,
    /// Whom it has not: ids, each with the incarnation that is meant and what came back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    missed: BTreeMap<String, (u64, String)>,
}

impl Reach {
    fn is_empty(&self) -> bool {
        self.reached.is_empty() && self.missed.is_empty()
    }

    /// Whether both say the same of a node.
    fn agrees_about(&self, other: &Self, id: &str) -> bool {
        self.reached.get(id) == other.reached.get(id) && self.missed.get(id) == other.missed.get(id)
    }

    /// What came back from a node.
    fn why(&self, node: &Member) -> Option<&str> {
        let (incarnation, why) = self.missed.get(&node.id)?;
        (*incarnation == node.incarnation).then_some(why)
    }
}

/// What a ledger remembers about those who would enter.
pub struct Admission {
    contacts: Arc<dyn Contacts>,
    /// By id and incarnation.
    waiting: BTreeMap<(String, u64), Waiting>,
    /// The epoch that this node would follow, and since when nobody is there who could let it in.
    alone_since: Option<(u64, Instant)>,
}

struct Waiting {
    since: Instant,
    said_at: Option<Instant>,
    said: Vec<String>,
}

impl Admission {
    pub fn new(contacts: Arc<dyn Contacts>) -> Self {
        Self { contacts, waiting: BTreeMap::new(), alone_since: None }
    }

    /// Says what is in a node's way, unless that is known.
    fn complain(&mut self, now: Instant, grace: Duration, it: &Candidate, is_me: bool) {
        let Member { id, peer_addr, incarnation, .. } = &it.member;
        let unheard = Waiting { since: now, said_at: None, said: Vec::new() };
        let waiting = self.waiting.entry((id.clone(), *incarnation)).or_insert(unheard);
        let is_late = now >= waiting.since + grace;
        let is_due = waiting.said_at.is_none_or(|at| now >= at + COMPLAINT_INTERVAL);
        if it.troubles.is_empty() || waiting.said == it.troubles || !is_late || !is_due {
            return;
        }
        (waiting.said_at, waiting.said) = (Some(now), it.troubles.clone());
        let why = it.troubles.join("; ");
        if is_me {
            warn!(
                id,
                peer_addr,
                why,
                "this node is not let into the cluster: it and most members must reach each other, \
                 this one at its --peer-advertise"
            );
        } else {
            warn!(
                id,
                peer_addr,
                why,
                "a node is not let into the cluster: it and most members must reach each other"
            );
        }
    }
}

impl Ledger {
    /// Looks at who would enter the view: publishes them, so that they are pinged, and says why
    /// they stay out.
    pub(super) fn consider(&mut self, now: Instant) {
        let (base, _) = self.base();
        let state = self.seat.state();
        let registered = self.records.registered();
        let mut nodes: Vec<_> = registered.values().filter(|node| !is_member(&state.view, node)).collect();
        nodes.sort_by_key(|node| (node.id != state.me, Reverse(node.incarnation)));
        nodes.truncate(CANDIDATES_MAX);
        nodes.sort_by_key(|node| &node.id);
        if nodes.is_empty() {
            self.admission.waiting.clear();
            self.admission.alone_since = None;
            self.seat.consider(Vec::new());
            return;
        }
        let (reached, doubts) = (self.reached(&registered), self.records.doubts());
        let evidence = Evidence {
            registered: &registered,
            doubts: &doubts,
            reached: &reached,
            founder: None,
            gone: &BTreeSet::new(),
            may_remove: false,
        };
        let electors = Electors::of(&base.view, &evidence);
        let me = registered.get(&state.me).filter(|node| node.incarnation == state.incarnation);
        let is_alone = !electors.are_members
            && me.is_some_and(|me| may_found(&base.view, me) && !is_member(&base.view, me));
        let before = self.admission.alone_since.filter(|(epoch, _)| *epoch == base.epoch);
        self.admission.alone_since = is_alone.then(|| before.unwrap_or((base.epoch, now)));

        let says = self.records.reach();
        let mut candidates = Vec::new();
        for node in nodes {
            let troubles = if electors.admit(&base.view, &evidence, node) {
                Vec::new()
            } else {
                troubles(&electors, node, &reached, &says)
            };
            candidates.push(Candidate { member: node.clone(), troubles });
        }
        let key = |it: &Candidate| (it.member.id.clone(), it.member.incarnation);
        let known: BTreeSet<_> = candidates.iter().map(key).collect();
        self.admission.waiting.retain(|key, _| known.contains(key));
        // Whoever joins is pinged a few times meanwhile.
        let grace = self.timing.ping_interval() * 3;
        for it in &candidates {
            let is_me = it.member.id == state.me;
            if is_me || state.is_member() {
                self.admission.complain(now, grace, it, is_me);
            }
        }
        self.seat.consider(candidates);
    }

    /// Whom the registered nodes say that they reach.
    pub(super) fn reached(&self, registered: &BTreeMap<String, Member>) -> Reached {
        let is_present =
            |id: &str, it: &Reach| registered.get(id).is_some_and(|node| node.incarnation == it.incarnation);
        let says = self.records.reach().into_iter();
        says.filter(|(id, it)| is_present(id, it)).map(|(id, it)| (id, it.reached)).collect()
    }

    /// This node, when it has waited for long for somebody who could let it in: those who are
    /// there do not reach each other, and nobody can tell who of them has a wrong address.
    pub(super) fn founder(&self, now: Instant) -> Option<&str> {
        let (epoch, since) = self.admission.alone_since?;
        let is_over = epoch == self.base().0.epoch && now >= since + self.timing.lease_ttl();
        is_over.then(|| self.me())
    }

    /// Whom this node reaches of those whom it should, when etcd has something else.
    pub fn news_of_reach(&self, now: Instant, lease: i64) -> Option<Write> {
        let is_registered =
            self.records.get(&self.keys().member(self.me())).is_some_and(|record| record.lease == lease);
        if self.displaced || !is_registered {
            return None;
        }
        let subjects = self.subjects();
        let reach = self.reach(now, &subjects);
        let key = self.keys().reached(self.me());
        let known = self.records.get(&key).filter(|record| record.lease == lease);
        let is_there = match known.and_then(parse::<Reach>) {
            Some(known) if known.incarnation == reach.incarnation => {
                subjects.iter().all(|node| known.agrees_about(&reach, &node.id))
            }
            _ => reach.is_empty(),
        };
        (!is_there).then(|| Write::Put(key, to_json(&reach), lease))
    }

    /// Of whom this node must say whether it reaches them: a member of those who would enter; one
    /// who would enter of the members and of itself, or of all when nobody is there to let it in.
    fn subjects(&self) -> Vec<Member> {
        let state = self.seat.state();
        let candidates = state.candidates.iter().map(|it| &it.member);
        if state.is_member() {
            return candidates.cloned().collect();
        }
        let registered = self.records.registered();
        let members: Vec<_> = registered.values().filter(|node| is_member(&state.view, node)).collect();
        let is_asked = |node: &&Member| members.is_empty() || node.id == state.me;
        candidates.filter(is_asked).chain(members.iter().copied()).cloned().collect()
    }

    fn reach(&self, now: Instant, subjects: &[Member]) -> Reach {
        let contacts = &self.admission.contacts;
        let mut reach = Reach { incarnation: self.seat.me().incarnation, ..Reach::default() };
        for node in subjects {
            if contacts.contact(node).is_reached(now, self.timing) {
                reach.reached.insert(node.id.clone(), node.incarnation);
            } else if let Some(why) = contacts.trouble(node) {
                let why = why.chars().take(WHY_LEN).collect();
                reach.missed.insert(node.id.clone(), (node.incarnation, why));
            }
        }
        reach
    }
}

/// What is in a node's way.
fn troubles(
    electors: &Electors<'_>,
    node: &Member,
    reached: &Reached,
    says: &BTreeMap<String, Reach>,
) -> Vec<String> {
    let why = |from: &Member, to: &Member| {
        says.get(&from.id).and_then(|it| it.why(to)).unwrap_or("no answer yet").to_owned()
    };
    let mut troubles = Vec::new();
    if !electors.are_members && !reaches(reached, node, node) {
        troubles.push(format!("it does not reach itself at {}: {}", node.peer_addr, why(node, node)));
    }
    for other in electors.others(&node.id) {
        if !reaches(reached, other, node) {
            let why = why(other, node);
            troubles.push(format!("{} does not reach it at {}: {why}", other.id, node.peer_addr));
        }
        if !reaches(reached, node, other) {
            let why = why(node, other);
            troubles.push(format!("it does not reach {} at {}: {why}", other.id, other.peer_addr));
        }
    }
    let more = troubles.len().saturating_sub(TROUBLES_MAX);
    troubles.truncate(TROUBLES_MAX);
    if more > 0 {
        troubles.push(format!("and {more} more"));
    }
    troubles
}

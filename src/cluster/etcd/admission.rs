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

use tracing::warn;

use crate::cluster::etcd::records::{Reach, Stored};
use crate::cluster::failure_detector::{FailureDetector, Timing};
use crate::cluster::propose::admit::{Electors, is_member, may_found, reaches};
use crate::cluster::propose::{Evidence, Reached, Suspicions};
use crate::cluster::view::Member;
use crate::cluster::{Candidate, State};

/// Most nodes that are pinged besides the members. Those that started last come first: who stays
/// out for long must not keep others out.
const CANDIDATES_MAX: usize = 64;

/// Most that is said about one of them.
const TROUBLES_MAX: usize = 8;

/// Longest text of what came back.
const WHY_LEN: usize = 200;

/// How often what is in one's way is said again, when it is something else by then.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// What is remembered of the nodes that would enter.
pub struct Admission {
    failure_detector: Arc<dyn FailureDetector>,
    /// By id and incarnation.
    waiting: BTreeMap<(String, u64), Waiting>,
    /// The epoch that this node would follow, and since when nobody is there who could let it in.
    alone_since: Option<(u64, Instant)>,
}

/// What nodes that would enter are judged by.
pub(super) struct Seen<'a> {
    pub(super) state: &'a State,
    /// The view that the next one builds on.
    pub(super) base: &'a Stored,
    pub(super) registered: &'a BTreeMap<String, Member>,
    pub(super) suspicions: &'a Suspicions,
    pub(super) reached: &'a Reached,
    /// What each node says of its reach.
    pub(super) says: &'a BTreeMap<String, Reach>,
}

struct Waiting {
    since: Instant,
    said_at: Option<Instant>,
    said: Vec<String>,
}

impl Admission {
    pub fn new(failure_detector: Arc<dyn FailureDetector>) -> Self {
        Self { failure_detector, waiting: BTreeMap::new(), alone_since: None }
    }

    /// No node would enter.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.alone_since = None;
    }

    /// Looks at the nodes that would enter the view that the next one builds on: which they are, and what is in
    /// the way of each. Says so when a node stays out.
    pub(super) fn tick(&mut self, now: Instant, timing: Timing, seen: &Seen<'_>) -> Vec<Candidate> {
        let &Seen { state, base, registered, suspicions, reached, says } = seen;
        let mut nodes: Vec<_> = registered.values().filter(|node| !is_member(&state.view, node)).collect();
        nodes.sort_by_key(|node| (node.id != state.me, Reverse(node.incarnation)));
        nodes.truncate(CANDIDATES_MAX);
        nodes.sort_by_key(|node| &node.id);
        let evidence = Evidence {
            registered,
            suspicions,
            reached,
            founder: None,
            gone: &BTreeSet::new(),
            is_moving: false,
            may_remove: false,
        };
        let electors = Electors::of(&base.view, &evidence);
        let me = registered.get(&state.me).filter(|node| node.incarnation == state.incarnation);
        let is_alone = !electors.are_members
            && me.is_some_and(|me| may_found(&base.view, me) && !is_member(&base.view, me));
        let before = self.alone_since.filter(|(epoch, _)| *epoch == base.epoch);
        self.alone_since = is_alone.then(|| before.unwrap_or((base.epoch, now)));

        let candidate = |node: &Member| {
            let is_in = electors.admit(&base.view, &evidence, node);
            let troubles = if is_in { Vec::new() } else { troubles(&electors, node, reached, says) };
            Candidate { member: node.clone(), troubles }
        };
        let candidates: Vec<_> = nodes.into_iter().map(candidate).collect();
        self.log(now, timing, state, &candidates);
        candidates
    }

    /// Says what is in the way of nodes, as far as this node should.
    fn log(&mut self, now: Instant, timing: Timing, state: &State, candidates: &[Candidate]) {
        let key = |it: &Candidate| (it.member.id.clone(), it.member.incarnation);
        let known: BTreeSet<_> = candidates.iter().map(key).collect();
        self.waiting.retain(|key, _| known.contains(key));
        // A node that joins is pinged a few times meanwhile.
        let grace = timing.ping_interval() * 3;
        for it in candidates {
            let is_me = it.member.id == state.me;
            if is_me || state.is_member() {
                self.complain(now, grace, it, is_me);
            }
        }
    }

    /// Whether this node has waited long enough for somebody who could let it in to the view that follows this epoch.
    pub(super) fn may_found(&self, now: Instant, epoch: u64, lease_ttl: Duration) -> bool {
        self.alone_since.is_some_and(|(before, since)| before == epoch && now >= since + lease_ttl)
    }

    /// Which of these nodes this incarnation reaches, and what came back from the others.
    pub(super) fn reach(&self, now: Instant, timing: Timing, incarnation: u64, subjects: &[Member]) -> Reach {
        let mut reach = Reach { incarnation, ..Reach::default() };
        for node in subjects {
            if self.failure_detector.contact(node).is_reached(now, timing) {
                reach.reached.insert(node.id.clone(), node.incarnation);
            } else if let Some(why) = self.failure_detector.trouble(node) {
                let why = why.chars().take(WHY_LEN).collect();
                reach.missed.insert(node.id.clone(), (node.incarnation, why));
            }
        }
        reach
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

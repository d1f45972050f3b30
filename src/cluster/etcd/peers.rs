//! What this node makes of its failure detector: which members it suspects, and which grant it. No IO.
//!
//! A suspicion is a promise: the others may remove a member because this node said that it does not
//! reach it, so it must not grant that member at the same time. Hence a suspicion is made
//! known inside this node first ([`Peers::suspected`]), and is said to the others only when the
//! member is still out of reach afterwards; and it stays known until etcd has confirmed that it
//! was withdrawn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::cluster::failure_detector::{Contact, FailureDetector, Timing};
use crate::cluster::view::{Member, View};

/// Whom a node suspects: ids, each with the incarnation that is meant.
pub type Suspected = BTreeMap<String, u64>;

/// The other members, as this node sees them.
pub struct Peers {
    failure_detector: Arc<dyn FailureDetector>,
    timing: Timing,
    /// At the last look.
    seen: BTreeMap<String, Contact>,
    /// The incarnation that is out of reach, and since when.
    unreachable: BTreeMap<String, (u64, Instant)>,
    /// Whom this node did not grant since the last look.
    suspected: BTreeSet<String>,
    /// What may stand in etcd as this node's suspicions.
    said: Suspected,
}

impl Peers {
    pub fn new(failure_detector: Arc<dyn FailureDetector>, timing: Timing) -> Self {
        Self {
            failure_detector,
            timing,
            seen: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            suspected: BTreeSet::new(),
            said: Suspected::new(),
        }
    }

    /// Looks at every member of the view but `me`.
    pub fn tick(&mut self, now: Instant, view: &View, me: &str) {
        let others = || view.members.values().filter(|member| member.id != me);
        self.seen =
            others().map(|member| (member.id.clone(), self.failure_detector.contact(member))).collect();
        for member in others() {
            let contact = self.seen[&member.id];
            if contact.is_reachable(now, self.timing) {
                self.unreachable.remove(&member.id);
                continue;
            }
            let (incarnation, since) =
                self.unreachable.entry(member.id.clone()).or_insert((member.incarnation, now));
            if *incarnation != member.incarnation {
                (*incarnation, *since) = (member.incarnation, now);
            }
            // It may have been reachable between two looks, and have been granted.
            if let Some(answered) = contact.answered {
                *since = (*since).max(answered + self.timing.answer_counts());
            }
        }
        self.unreachable.retain(|id, _| view.members.contains_key(id));
        let long = self.long_unreachable(now).map(|(id, _)| id);
        self.suspected = long.chain(self.said.keys()).cloned().collect();
    }

    /// Whom this node must not grant from now on. To be published before [`Peers::suspicions`].
    pub fn suspected(&self) -> &BTreeSet<String> {
        &self.suspected
    }

    /// Whom this node suspects, for the others to know.
    pub fn suspicions(&self, now: Instant, view: &View) -> Suspected {
        let suspicions = |id: &String| {
            let answers = |member| self.failure_detector.contact(member).is_reachable(now, self.timing);
            self.suspected.contains(id) && view.members.get(id).is_some_and(|member| !answers(member))
        };
        self.long_unreachable(now)
            .filter(|(id, _)| suspicions(id))
            .map(|(id, incarnation)| (id.clone(), incarnation))
            .collect()
    }

    /// What may stand in etcd as this node's suspicions.
    pub fn said(&self) -> &Suspected {
        &self.said
    }

    /// This is being said, and may stand in etcd besides what did so far.
    pub fn saying(&mut self, suspicions: &Suspected) {
        self.said.extend(suspicions.iter().map(|(id, &incarnation)| (id.clone(), incarnation)));
    }

    /// This alone stands in etcd.
    pub fn has_said(&mut self, suspicions: Suspected) {
        self.said = suspicions;
    }

    /// Whether the member answered lately, at the last look.
    pub fn reaches(&self, id: &str) -> bool {
        self.seen.contains_key(id) && !self.unreachable.contains_key(id)
    }

    /// Whether this node, or a member that it reaches, may still take items over under the view of this epoch.
    pub fn may_move(&self, epoch: u64, now: Instant) -> bool {
        self.failure_detector.is_moving()
            || self.seen.values().any(|contact| contact.may_move(epoch, now, self.timing))
    }

    /// The epoch that a member has said it has acknowledged.
    pub fn epoch_of(&self, id: &str) -> u64 {
        self.seen.get(id).map_or(0, |contact| contact.epoch)
    }

    /// Every member that has said it has acknowledged an epoch.
    pub fn epochs(&self) -> impl Iterator<Item = (&String, u64)> {
        self.seen.iter().map(|(id, contact)| (id, contact.epoch)).filter(|&(_, epoch)| epoch > 0)
    }

    /// When the ping was sent by which the member last granted this node, unless it has
    /// acknowledged a later view than this node has: then it spoke for a view that is gone.
    pub fn granted(&self, member: &Member, epoch: u64) -> Option<Instant> {
        self.seen.get(&member.id).filter(|contact| contact.epoch <= epoch)?.granted
    }

    fn long_unreachable(&self, now: Instant) -> impl Iterator<Item = (&String, u64)> {
        let long = move |since: Instant| now >= since + self.timing.suspected_after();
        self.unreachable
            .iter()
            .filter(move |(_, (_, since))| long(*since))
            .map(|(id, &(incarnation, _))| (id, incarnation))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Table(Mutex<Contact>);

    impl FailureDetector for Table {
        fn contact(&self, _: &Member) -> Contact {
            *self.0.lock()
        }
    }

    struct Case {
        table: Arc<Table>,
        peers: Peers,
        view: View,
        start: Instant,
    }

    impl Case {
        /// A view of `a`, which looks, and `b`, which answered at the start.
        fn new() -> Case {
            let start = Instant::now();
            let table = Arc::new(Table::default());
            table.0.lock().answered = Some(start);
            let timing = Timing::of(Duration::from_secs(1));
            let members = ["a", "b"].map(|id| (id.to_owned(), member(id, 1)));
            let view = View { members: members.into(), ..View::default() };
            Case { peers: Peers::new(table.clone(), timing), table, view, start }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        /// Whether `b` is not granted, and whether it is suspected, after a look at that time.
        fn look(&mut self, millis: u64) -> (bool, bool) {
            let now = self.at(millis);
            self.peers.tick(now, &self.view, "a");
            (self.peers.suspected().contains("b"), !self.peers.suspicions(now, &self.view).is_empty())
        }

        fn answers(&self, millis: u64) {
            self.table.0.lock().answered = Some(self.at(millis));
        }
    }

    fn member(id: &str, incarnation: u64) -> Member {
        Member {
            id: id.to_owned(),
            incarnation,
            peer_addr: String::new(),
            memcached_addr: String::new(),
            weight: 100,
            zone: String::new(),
        }
    }

    #[test]
    fn who_does_not_answer_for_long_is_suspected() {
        let mut case = Case::new();
        assert_eq!(case.look(249), (false, false));
        assert!(case.peers.reaches("b") && !case.peers.reaches("a"));
        assert_eq!(case.look(250), (false, false));
        assert!(!case.peers.reaches("b"));
        assert_eq!(case.look(849), (false, false));
        assert_eq!(case.look(850), (true, true));
        case.answers(900);
        assert_eq!(case.look(901), (false, false));
    }

    #[test]
    fn a_node_that_stood_still_suspects_nobody_at_once() {
        let mut case = Case::new();
        assert_eq!(case.look(0), (false, false));
        assert_eq!(case.look(60_000), (false, false), "it could not hear them");
        assert_eq!(case.look(60_600), (true, true));
    }

    #[test]
    fn an_answer_between_two_looks_counts() {
        let mut case = Case::new();
        case.look(250);
        case.answers(500);
        // By then b was granted until 750, and is out of reach again.
        assert_eq!(case.look(1_349), (false, false));
        assert_eq!(case.look(1_350), (true, true));
    }

    #[test]
    fn a_suspicion_is_said_only_when_it_was_known_before() {
        let mut case = Case::new();
        case.look(250);
        case.look(850);
        case.answers(851);
        let now = case.at(852);
        assert!(case.peers.suspicions(now, &case.view).is_empty(), "a may have granted it meanwhile");
    }

    #[test]
    fn a_suspicion_that_was_said_counts_until_it_is_withdrawn() {
        let mut case = Case::new();
        case.look(250);
        assert_eq!(case.look(850), (true, true));
        let suspicions = case.peers.suspicions(case.at(850), &case.view);
        case.peers.saying(&suspicions);
        case.answers(900);
        assert_eq!(case.look(901), (true, false), "etcd may have it");
        case.peers.has_said(Suspected::new());
        assert_eq!(case.look(1_252), (false, false));
    }

    #[test]
    fn another_incarnation_begins_anew() {
        let mut case = Case::new();
        case.look(250);
        case.view.members.insert("b".to_owned(), member("b", 2));
        assert_eq!(case.look(850), (false, false));
        assert_eq!(case.look(2_150), (true, true));
        assert_eq!(case.peers.suspicions(case.at(2_150), &case.view)["b"], 2);
    }

    #[test]
    fn a_grant_under_a_view_that_is_gone_does_not_count() {
        let mut case = Case::new();
        *case.table.0.lock() = Contact { granted: Some(case.start), epoch: 7, ..Contact::default() };
        case.look(0);
        let b = member("b", 1);
        assert_eq!(case.peers.granted(&b, 7), Some(case.start));
        assert_eq!(case.peers.granted(&b, 6), None);
    }
}

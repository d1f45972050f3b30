mod admission;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::cluster::Hooks;
use crate::cluster::etcd::calls::{Check, Write};
use crate::cluster::etcd::records::to_json;
use crate::cluster::etcd::txns::Txn;
use crate::cluster::failure_detector::Contact;

const LEASE: Duration = Duration::from_secs(5);

struct Nothing;

impl Hooks for Nothing {
    fn forget(&self) {}
}

/// Who is reached, always, and what all others say.
#[derive(Default)]
struct Reach(Mutex<BTreeSet<String>>, Mutex<Contact>);

impl FailureDetector for Reach {
    fn contact(&self, member: &Member) -> Contact {
        let is_reached = self.0.lock().contains(&member.id);
        Contact { answered: is_reached.then(far_ahead), is_proven: is_reached, ..*self.1.lock() }
    }
}

/// After any moment that a test asks about.
fn far_ahead() -> Instant {
    Instant::now() + LEASE * 100
}

/// What stands in etcd, and one node that reads it.
struct Case {
    state: MembershipState,
    reach: Arc<Reach>,
    start: Instant,
    revision: i64,
    records: BTreeMap<String, Record>,
}

impl Case {
    /// A node `x`.
    fn new() -> Case {
        Case::of("x")
    }

    fn of(id: &str) -> Case {
        let options = Options { node_id: id.to_owned(), lease_ttl: LEASE, ..Options::default() };
        let reach = Arc::new(Reach::default());
        let local = LocalMember::new(options.member(), Arc::new(Nothing));
        let state = MembershipState::new(local, reach.clone(), &options);
        Case { state, reach, start: Instant::now(), revision: 0, records: BTreeMap::new() }
    }

    fn member(&self, id: &str) -> Member {
        let me = self.state.local.me();
        if id == me.id { me.clone() } else { Member { id: id.to_owned(), incarnation: 1, ..me.clone() } }
    }

    fn put(&mut self, key: String, value: Vec<u8>, lease: i64) {
        self.revision += 1;
        self.records.insert(key, Record { value, revision: self.revision, lease });
    }

    fn view(&mut self, epoch: u64, ids: &str) {
        let members = ids.split_whitespace().map(|id| (id.to_owned(), self.member(id))).collect();
        let view = View { members, ..View::default() };
        let stored = Stored { epoch, view, confirmed: true };
        self.put(self.state.keys().view.clone(), to_json(&stored), 0);
    }

    /// A node registers, and says which epoch it has acknowledged.
    fn register(&mut self, id: &str, epoch: u64, lease: i64) {
        self.put(self.state.keys().member(id), to_json(&self.member(id)), lease);
        self.put(self.state.keys().ack(id), to_json(&epoch), lease);
    }

    /// All who have registered reach each other.
    fn read(&mut self) {
        let prefix = self.state.keys().member("");
        let nodes: Vec<Member> = self
            .records
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(_, it)| parse(it))
            .collect();
        let reached: BTreeMap<_, _> = nodes.iter().map(|it| (it.id.clone(), it.incarnation)).collect();
        for Member { id, incarnation, .. } in nodes {
            let value = to_json(&serde_json::json!({ "incarnation": incarnation, "reached": reached }));
            let record = Record { value, revision: self.revision, lease: 0 };
            self.records.insert(self.state.keys().reached(&id), record);
        }
        self.state.load(self.revision, self.records.clone());
    }

    /// Writes what is wanted when it may be, as a session does; whether it might.
    fn write(&mut self, txn: Txn) -> bool {
        let revision_of = |key: &String| self.records.get(key).map_or(0, |record| record.revision);
        let holds = |check: &Check| match check {
            Check::Unchanged(key, revision) => revision_of(key) == *revision,
            Check::NoneNewer(prefix, revision) => {
                self.records.iter().all(|(key, it)| !key.starts_with(prefix) || it.revision <= *revision)
            }
        };
        if !txn.checks.iter().all(holds) {
            return false;
        }
        let mut puts = Vec::new();
        for write in txn.writes {
            match write {
                Write::Put(key, value, lease) => {
                    self.put(key.clone(), value.clone(), lease);
                    puts.push((key, value, lease));
                }
                Write::Delete(key) => _ = self.records.remove(&key),
            }
        }
        self.state.wrote(self.revision, puts);
        true
    }

    /// It registers under a lease, if it may.
    fn registers(&mut self, lease: i64, leases: u32) -> bool {
        let (txn, suspicions) = self.state.register(self.at(leases), lease);
        let is_written = self.write(txn);
        if is_written {
            self.state.peers.has_said(suspicions);
        }
        is_written
    }

    /// It says which view it has acknowledged, if it may.
    fn acknowledges(&mut self, lease: i64) -> bool {
        self.state.ack(lease).is_some_and(|txn| self.write(txn))
    }

    /// A lease ends in etcd.
    fn end_lease(&mut self, lease: i64) {
        self.revision += 1;
        self.records.retain(|_, record| record.lease != lease);
    }

    /// etcd loses everything.
    fn empty(&mut self) {
        self.records.clear();
        self.revision = 1;
        self.read();
    }

    fn at(&self, leases: u32) -> Instant {
        self.start + LEASE * leases
    }

    /// Until when it serves, in leases, rounded up.
    fn serves_until(&self) -> u128 {
        let until = self.state.local.serves_until().saturating_duration_since(self.start);
        until.as_micros().div_ceil(LEASE.as_micros())
    }

    /// The epoch and the members of the view that it would write.
    fn proposal(&self, leases: u32) -> Option<(u64, String)> {
        let next = self.state.proposal(self.at(leases))?.next;
        Some((next.epoch, next.view.members.into_keys().collect::<Vec<_>>().join(" ")))
    }

    /// A view of `a`, `b` and `x` by which `x` serves until the end of the second lease.
    fn serving() -> Case {
        let mut case = Case::new();
        case.view(7, "a b x");
        ["a", "b", "x"].into_iter().zip(1..).for_each(|(id, lease)| case.register(id, 7, lease));
        case.read();
        case.state.renewed(3, case.at(1));
        assert_eq!(case.serves_until(), 2);
        case
    }
}

#[test]
fn after_its_lease_a_node_serves_only_by_a_view_that_etcd_still_has() {
    let mut case = Case::serving();
    case.end_lease(3);
    case.read();
    // It does not hear of this.
    case.view(8, "a b");
    case.state.renewed(4, case.at(5));
    assert!(!case.registers(4, 5) && !case.acknowledges(4));
    case.state.tick(case.at(5));
    assert_eq!(case.serves_until(), 2, "it has a lease, and a view that removed it");
    case.read();
    assert!(!case.state.local.state().is_member());
    assert!(case.acknowledges(4), "nobody has to wait for it");

    let mut case = Case::serving();
    case.end_lease(3);
    case.read();
    case.state.renewed(4, case.at(5));
    assert_eq!(case.serves_until(), 2, "it is not registered yet");
    assert!(case.registers(4, 5));
    assert_eq!(case.serves_until(), 6);
}

#[test]
fn an_acknowledgement_alone_lets_nobody_serve() {
    let mut case = Case::serving();
    case.end_lease(3);
    case.read();
    case.state.renewed(4, case.at(5));
    assert!(case.acknowledges(4));
    assert_eq!(case.serves_until(), 2, "another process may take its id, and say more");
    case.put(case.state.keys().member("x"), to_json(&Member { incarnation: 1, ..case.member("x") }), 9);
    assert!(!case.registers(4, 5) && !case.acknowledges(4));
    case.state.renewed(4, case.at(6));
    assert_eq!(case.serves_until(), 2);
}

#[test]
fn a_renewal_that_is_answered_late_counts_from_when_it_began() {
    let mut case = Case::serving();
    case.state.renewed(3, case.at(1) + LEASE / 4);
    let now = case.at(9);
    case.state.tick(now);
    assert!(case.state.local.serves_until() < now, "it stood still before it heard of that");
}

#[test]
fn what_another_endpoint_says_counts_under_the_present_lease_alone() {
    let mut case = Case::serving();
    case.state.renewed(4, case.at(5));
    // That is behind, or the keys have not gone yet.
    case.read();
    case.state.renewed(4, case.at(5));
    assert_eq!(case.serves_until(), 2);
    // What was written through the first one arrived, though its answer did not.
    case.register("x", 7, 4);
    case.read();
    case.state.renewed(4, case.at(6));
    assert_eq!(case.serves_until(), 7);
}

#[test]
fn a_view_that_a_peer_has_told_is_served_by_no_new_lease() {
    let mut case = Case::serving();
    case.end_lease(3);
    case.read();
    let members = ["a", "b", "x"].map(|id| (id.to_owned(), case.member(id)));
    case.state.take(8, View { members: members.into(), ..View::default() });
    case.state.renewed(4, case.at(5));
    assert!(case.registers(4, 5), "etcd was set back, and is told of the later view");
    assert_eq!(case.serves_until(), 2, "who else has a lease was read with another view");
}

#[test]
fn a_grant_of_before_a_standstill_does_not_count_after_it() {
    let mut case = Case::serving();
    let look = |case: &mut Case, granted: u32, epoch: u64| {
        let granted = Some(case.at(granted));
        *case.reach.1.lock() = Contact { granted, epoch, ..Contact::default() };
        let now = case.at(9);
        case.state.tick(now);
        case.serves_until()
    };
    assert_eq!(look(&mut case, 1, 7), 2);
    assert_eq!(look(&mut case, 9, 8), 2, "one that has acknowledged a later view speaks of another one");
    assert_eq!(look(&mut case, 9, 7), 10);
}

#[test]
fn a_registration_of_an_earlier_incarnation_does_not_count() {
    let mut case = Case::serving();
    case.view(8, "a b");
    case.read();
    assert_eq!(case.state.registration(4, case.start), Registration::Replaceable, "it is its own");
    case.view(9, "a b x");
    case.read();
    case.state.renewed(3, case.at(5));
    assert!(case.state.local.state().is_member());
    assert_eq!(case.serves_until(), 2);
    assert!(case.registers(3, 5));
    assert_eq!(case.serves_until(), 6);
}

#[test]
fn a_new_lease_and_a_removal_rule_each_other_out() {
    for is_removed_first in [true, false] {
        let mut case = Case::serving();
        case.end_lease(3);
        case.read();
        case.state.renewed(4, case.at(5));
        let mut other = Case::of("a");
        (other.revision, other.records) = (case.revision, case.records.clone());
        other.read();
        let removal = other.state.derived(|view| propose::left(view, "x")).expect("it may be removed");
        if is_removed_first {
            assert!(case.write(removal.txn));
            assert!(!case.registers(4, 5) && !case.acknowledges(4));
            assert_eq!(case.serves_until(), 2);
        } else {
            assert!(case.registers(4, 5));
            assert_eq!(case.serves_until(), 6);
            assert!(!case.write(removal.txn));
        }
    }
}

#[test]
fn who_leaves_does_not_serve_again_when_its_lease_has_ended() {
    let mut case = Case::serving();
    case.state.local.leave();
    case.end_lease(3);
    case.read();
    *case.reach.1.lock() = Contact { granted: Some(case.at(9)), epoch: 7, ..Contact::default() };
    let now = case.at(9);
    case.state.tick(now);
    assert_eq!(case.serves_until(), 2);
    assert!(case.state.withdrawal(now).is_some(), "and goes");
}

fn next(epoch: u64, ids: &str) -> Option<(u64, String)> {
    Some((epoch, ids.to_owned()))
}

#[test]
fn a_lease_in_an_etcd_that_has_lost_the_view_does_not_count() {
    let mut case = Case::serving();
    case.empty();
    case.register("x", 7, 4);
    case.read();
    case.state.renewed(4, case.at(5));
    assert_eq!(case.serves_until(), 2, "the others may have removed it in a view that is lost, too");
    assert_eq!(case.proposal(5), None, "they come first");

    case.register("a", 7, 5);
    case.read();
    assert_eq!(case.proposal(5), next(9, "a b x"), "who knows of no other view forgets what it holds");
    case.view(9, "a b x");
    case.register("x", 9, 4);
    case.read();
    case.state.renewed(4, case.at(6));
    assert_eq!(case.serves_until(), 7);
}

#[test]
fn a_view_that_etcd_was_set_back_to_is_not_trusted() {
    let mut case = Case::serving();
    case.revision -= 1;
    case.register("x", 7, 4);
    case.read();
    case.state.renewed(4, case.at(5));
    assert_eq!(case.serves_until(), 6, "it only goes on");

    case.revision = 3;
    case.register("x", 7, 5);
    case.read();
    case.state.renewed(5, case.at(10));
    assert_eq!(case.serves_until(), 6);
    assert!(!case.state.local.state().is_converged());
    assert_eq!(case.proposal(10), next(9, "a b x"));
    case.view(9, "a b x");
    case.register("x", 9, 5);
    case.read();
    case.state.renewed(5, case.at(11));
    assert_eq!(case.serves_until(), 12);
}

#[test]
fn a_flush_waits_until_a_lost_view_is_there_again() {
    let mut case = Case::serving();
    assert!(case.state.derived(propose::flushed).is_some());
    case.empty();
    assert!(case.state.derived(propose::flushed).is_none());
}

#[test]
fn who_was_put_out_comes_back_when_it_reaches_most() {
    let mut case = Case::serving();
    case.view(8, "a b");
    case.read();
    let rests = |case: &mut Case, leases, reached: &str| {
        *case.reach.0.lock() = reached.split_whitespace().map(str::to_owned).collect();
        let now = case.at(leases);
        case.state.tick(now);
        case.state.rests(now)
    };
    assert!(!case.state.local.state().is_member());
    assert!(rests(&mut case, 0, "a b"), "it waits in any case");
    assert!(rests(&mut case, 9, ""));
    assert!(!rests(&mut case, 9, "a"), "two of three");
    // They have lost their leases.
    case.records.remove(&case.state.keys().member("a"));
    case.records.remove(&case.state.keys().member("b"));
    case.read();
    assert!(!rests(&mut case, 9, ""));
}

#[test]
fn a_member_that_was_put_out_once_takes_part_when_it_reaches_nobody() {
    let mut case = Case::serving();
    case.view(8, "a b");
    case.read();
    case.view(9, "a b x");
    case.read();
    assert!(case.state.local.state().is_member());
    let now = case.at(9);
    case.state.tick(now);
    assert!(!case.state.rests(now));
}

#[test]
fn nobody_takes_the_place_of_members_that_are_all_gone() {
    let mut case = Case::new();
    case.view(7, "a b");
    case.register("x", 7, 4);
    case.read();
    let orphaned = |case: &mut Case, leases| {
        let now = case.at(leases);
        case.state.tick(now);
        let (base, _) = case.state.base();
        case.state.is_orphaned(now, &base)
    };
    assert!(!orphaned(&mut case, 1));
    assert!(orphaned(&mut case, 99), "it is said what to do");
    assert_eq!(case.proposal(99), None);

    case.register("a", 7, 5);
    case.read();
    assert!(!orphaned(&mut case, 1));
    orphaned(&mut case, 99);
    assert_eq!(case.proposal(99), next(8, "a b x"));
}

#[test]
fn a_new_node_founds_nothing_beside_one_that_knows_a_view() {
    let mut case = Case::new();
    case.register("x", 0, 1);
    case.read();
    assert_eq!(case.proposal(0), next(1, "x"));
    case.register("a", 7, 2);
    case.read();
    assert_eq!(case.proposal(0), None);
    assert_eq!(case.proposal(99), None, "it is for who knows the view to write it again");
}

#[test]
fn the_lease_of_an_earlier_process_is_waited_for() {
    let mut case = Case::new();
    // Under another address: it was moved, or had been given any free port.
    let peer_addr = "elsewhere:1".to_owned();
    let earlier = Member { incarnation: 1, peer_addr, ..case.member("x") };
    case.put(case.state.keys().member("x"), to_json(&earlier), 1);
    case.read();
    assert_eq!(case.state.registration(2, case.start), Registration::Taken(earlier));
    assert!(!case.state.own_id.is_said_to_be_taken(), "it may have been killed a moment ago");
    case.state.registration(2, case.at(1));
    assert!(!case.state.own_id.is_said_to_be_taken(), "its lease may end late");
    case.state.registration(2, case.at(2));
    assert!(case.state.own_id.is_said_to_be_taken(), "it lives");

    case.records.clear();
    case.read();
    assert_eq!(case.state.registration(2, case.at(3)), Registration::Replaceable);
    assert!(case.state.own_id.is_undisputed());
    case.register("x", 0, 2);
    case.read();
    assert_eq!(case.state.registration(2, case.at(3)), Registration::Ours);
    let other = Member { incarnation: u64::MAX, ..case.member("x") };
    case.put(case.state.keys().member("x"), to_json(&other), 3);
    case.read();
    assert_eq!(case.state.registration(2, case.at(3)), Registration::Taken(other));
    assert!(case.state.own_id.is_said_to_be_taken(), "it cannot be an earlier one");
}

#[test]
fn an_etcd_that_was_away_kept_the_lease_of_an_earlier_process() {
    let mut case = Case::new();
    let earlier = Member { incarnation: 1, ..case.member("x") };
    case.put(case.state.keys().member("x"), to_json(&earlier), 1);
    case.read();
    case.state.registration(2, case.start);
    case.read();
    case.state.registration(2, case.at(2));
    assert!(!case.state.own_id.is_said_to_be_taken(), "it has a whole lease from when etcd is back");
    case.state.registration(2, case.at(3));
    assert!(case.state.own_id.is_said_to_be_taken());
}

#[test]
fn a_view_of_the_same_members_does_not_put_off_a_removal() {
    let mut case = Case::new();
    case.reach.0.lock().insert("y".to_owned());
    for (id, lease) in [("x", 1), ("y", 2)] {
        case.register(id, 1, lease);
    }
    case.view(1, "x y z");
    case.read();
    let since = |case: &Case| case.state.confirmation.since().expect("it is confirmed");
    let first = since(&case);
    case.view(2, "x y z");
    case.read();
    assert!(case.state.confirmation.is_confirmed(2));
    assert_eq!(since(&case), first, "as if it were the same view");
    case.view(4, "x y z");
    case.read();
    assert!(since(&case) > first, "one was missed in between");
    let second = since(&case);
    case.view(5, "x y");
    case.read();
    assert!(since(&case) > second, "these are others");
}

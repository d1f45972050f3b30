//! Which view may follow another: the rule that every node applies to what it reads in etcd, as
//! a pure function.
//!
//! Three things keep two nodes from owning one key. A node without a lease serves only while it
//! reaches more than half of its view ([`vouched`]); a member without a lease is removed only when
//! every member that has one finds it unreachable; and no view follows another while less than
//! half of the members have a lease. So the members that would have to vouch for the removed node
//! and those that removed it always have one in common, and that one cannot say both.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::view::{Member, View};

/// Who says about whom that it does not answer: voter to the ids.
pub type Doubts = BTreeMap<String, BTreeSet<String>>;

/// What a node knows when it thinks about the next view.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The nodes with a living lease, by id.
    pub registered: &'a BTreeMap<String, Member>,
    /// What the registered nodes say, this one included.
    pub doubts: &'a Doubts,
    /// Whether less than half of the members have had a lease for so long that they must be taken
    /// for lost, rather than cut off from etcd all at once.
    pub forsaken: bool,
}

/// The view that should follow `current`; `None` when it is as it should be, or must not change
/// now. `reachable` is what the proposing node knows itself.
///
/// Adds each registered node that is missing or has another incarnation; removes a member
/// - without a lease when every member that has one doubts it, and the proposer cannot reach it;
/// - with a lease when more than half of the members doubt it;
///
/// never more than half of the members at once.
pub fn next_view(current: &View, evidence: &Evidence<'_>, reachable: impl Fn(&str) -> bool) -> Option<View> {
    if !has_quorum(current, evidence.registered) && !evidence.forsaken {
        return None;
    }
    let mut members = current.members.clone();
    for (id, member) in evidence.registered {
        members.insert(id.clone(), member.clone());
    }
    let mut lost = Vec::new();
    let mut shunned = Vec::new();
    for id in current.members.keys() {
        let voters =
            || current.members.keys().filter(|&voter| voter != id && evidence.registered.contains_key(voter));
        let doubting = |voter: &&String| evidence.doubts.get(*voter).is_some_and(|ids| ids.contains(id));
        if evidence.registered.contains_key(id) {
            if voters().filter(doubting).count() * 2 > current.members.len() {
                shunned.push(id);
            }
        } else if voters().all(|voter| doubting(&voter)) && !reachable(id) {
            lost.push(id);
        }
    }
    for id in lost.into_iter().chain(shunned).take(current.members.len() / 2) {
        members.remove(id);
    }
    (members != current.members).then(|| follow(current, members))
}

/// Whether enough members have a lease for the view to change: half of them.
pub fn has_quorum(current: &View, registered: &BTreeMap<String, Member>) -> bool {
    let live = current.members.keys().filter(|&id| registered.contains_key(id)).count();
    live * 2 >= current.members.len()
}

/// Whether the members that node `me` reaches are enough for it to serve without a lease: more
/// than half of the view, itself included.
pub fn vouched(view: &View, me: &str, reachable: impl Fn(&str) -> bool) -> bool {
    let reached = view.members.keys().filter(|&id| id == me || reachable(id)).count();
    reached * 2 > view.members.len()
}

/// The view without one member.
pub fn without(current: &View, id: &str) -> View {
    let mut members = current.members.clone();
    members.remove(id);
    follow(current, members)
}

/// The view with the next flush generation.
pub fn flushed(current: &View) -> View {
    View { flush_generation: current.flush_generation + 1, ..follow(current, current.members.clone()) }
}

fn follow(current: &View, members: BTreeMap<String, Member>) -> View {
    View {
        members,
        previous: current.members.keys().cloned().collect(),
        flush_generation: current.flush_generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, incarnation: u64) -> Member {
        Member {
            id: id.to_owned(),
            incarnation,
            peer_addr: format!("{id}:11212"),
            memcached_addr: format!("{id}:11211"),
            weight: 100,
            zone: String::new(),
        }
    }

    fn members(ids: &str) -> BTreeMap<String, Member> {
        ids.split_whitespace().map(|id| (id.to_owned(), member(id, 1))).collect()
    }

    fn view(ids: &str) -> View {
        View { members: members(ids), ..View::default() }
    }

    /// The ids of the next view, when `doubted` is said by each of `voters`.
    fn next(current: &str, registered: &str, voters: &str, doubted: &str) -> Option<String> {
        next_when(current, registered, voters, doubted, false)
    }

    fn next_when(
        current: &str,
        registered: &str,
        voters: &str,
        doubted: &str,
        forsaken: bool,
    ) -> Option<String> {
        let ids: BTreeSet<_> = doubted.split_whitespace().map(str::to_owned).collect();
        let doubts = voters.split_whitespace().map(|voter| (voter.to_owned(), ids.clone())).collect();
        let registered = members(registered);
        let evidence = Evidence { registered: &registered, doubts: &doubts, forsaken };
        let next = next_view(&view(current), &evidence, |id| !ids.contains(id))?;
        assert_eq!(next.previous, view(current).members.into_keys().collect::<Vec<_>>());
        Some(next.members.into_keys().collect::<Vec<_>>().join(" "))
    }

    fn ids(ids: &str) -> Option<String> {
        Some(ids.to_owned())
    }

    #[test]
    fn registered_nodes_are_added() {
        assert_eq!(next("", "a b c", "", ""), ids("a b c"));
        assert_eq!(next("a", "a b", "", ""), ids("a b"));
        assert_eq!(next("a b", "a b", "", ""), None);
    }

    #[test]
    fn a_new_incarnation_replaces_the_old_one() {
        let mut registered = members("a b");
        registered.insert("b".to_owned(), member("b", 2));
        let evidence = Evidence { registered: &registered, doubts: &Doubts::new(), forsaken: false };
        let next = next_view(&view("a b"), &evidence, |_| true).unwrap();
        assert_eq!(next.members["b"].incarnation, 2);
    }

    #[test]
    fn a_lost_lease_alone_removes_nobody() {
        assert_eq!(next("a b c", "a b", "", ""), None);
        assert_eq!(next("a b c", "a b", "a", "c"), None, "b reaches c");
        assert_eq!(next("a b c", "a b", "a b", "c"), ids("a b"));
        assert_eq!(next("a b", "a", "a", "b"), ids("a"));
    }

    #[test]
    fn the_proposer_must_not_reach_whom_it_removes() {
        let doubts = Doubts::from([("a".to_owned(), BTreeSet::from(["b".to_owned()]))]);
        let registered = members("a");
        let evidence = Evidence { registered: &registered, doubts: &doubts, forsaken: false };
        assert_eq!(next_view(&view("a b"), &evidence, |_| true), None);
    }

    #[test]
    fn a_lease_does_not_save_whom_most_cannot_reach() {
        assert_eq!(next("a b c", "a b c", "a b", "c"), ids("a b"));
        assert_eq!(next("a b c", "a b c", "a", "c"), None);
        assert_eq!(next("a b", "a b", "a", "b"), None, "one of two is not most");
        assert_eq!(next("a b c d", "a b c d", "a b", "c"), None, "two of four are not most");
    }

    #[test]
    fn strangers_do_not_vote() {
        assert_eq!(next("a b", "a b x y", "x y", "b"), ids("a b x y"));
    }

    #[test]
    fn never_more_than_half_go_at_once() {
        assert_eq!(next("a b c d e f", "a b c", "a b c", "d e f"), ids("a b c"));
        assert_eq!(next("a b c d e", "a b c d e", "a b c d e", "c d e"), ids("a b e"));
        assert_eq!(next("a", "", "", "a"), None);
    }

    #[test]
    fn without_half_of_the_leases_nothing_changes() {
        assert_eq!(next("a b c", "c", "c", "a b"), None);
        assert_eq!(next("a b c", "c x", "c", "a b"), None, "nor does anybody join");
        assert_eq!(next("a b c", "", "", ""), None);
        assert_eq!(next("a b c", "b c x", "", ""), ids("a b c x"));
    }

    #[test]
    fn the_last_ones_go_on_when_the_others_are_lost_for_long() {
        assert_eq!(next_when("a b c", "c", "c", "a b", true), ids("b c"));
        assert_eq!(next("b c", "c", "c", "b"), ids("c"));
        // Nobody of the old ones is left.
        assert_eq!(next_when("a b", "x", "x", "a b", true), ids("b x"));
        assert_eq!(next("b x", "x", "x", "b"), ids("x"));
        assert_eq!(next_when("a", "x", "", "", true), ids("a x"));
    }

    #[test]
    fn more_than_half_vouch_for_a_node_without_a_lease() {
        let reach = |ids: &'static str| move |id: &str| ids.contains(id);
        assert!(vouched(&view("a b c"), "a", reach("b")));
        assert!(!vouched(&view("a b c"), "a", reach("")));
        assert!(!vouched(&view("a b"), "a", reach("")));
        assert!(!vouched(&view("a b c d"), "a", reach("b")));
        assert!(vouched(&view("a"), "a", reach("")));
    }

    /// Every way in which leases, reach and doubts can fall in a cluster of up to five: a node
    /// that is removed without a lease is never one that others vouch for.
    #[test]
    fn nobody_is_removed_who_still_serves() {
        let names = ["a", "b", "c", "d", "e"];
        for size in 1..=names.len() {
            let all = names[..size].join(" ");
            for leased in 0_u32..1 << size {
                for reached in 0_u32..1 << size {
                    let pick = |bits: u32| {
                        let picked = (0..size).filter(|bit| bits >> bit & 1 == 1).map(|bit| names[bit]);
                        picked.collect::<Vec<_>>().join(" ")
                    };
                    // "a" has no lease; who does not reach it says so.
                    let (registered, reach) = (pick(leased & !1), pick(reached & !1));
                    let doubting = pick(leased & !1 & !reached);
                    let Some(next) = next(&all, &registered, &doubting, "a") else { continue };
                    if !next.contains('a') {
                        assert!(
                            !vouched(&view(&all), "a", |id| reach.contains(id)),
                            "{all}: {registered}, {reach}"
                        );
                    }
                }
            }
        }
    }
}

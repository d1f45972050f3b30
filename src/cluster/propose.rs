//! Which view may follow another: the rule that every node applies to what it reads in etcd, as
//! a pure function.
//!
//! A node acts on the last view it has heard of, and may hear late. What keeps two nodes from owning one key under two
//! views is told in docs/design/membership.md. Of its rules, S2 is [`granted`], S3 is [`next_view`] and [`enough`], and S7
//! is what [`enough`] makes of members that are gone. S4 and S5 give [`Evidence`] its meaning.
//!
//! Apart from that, no node enters that those that are there do not reach ([`admit`]).

pub mod admit;
mod evidence;

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::propose::admit::Electors;
pub use crate::cluster::propose::evidence::{Evidence, Reached, Suspicions};
use crate::cluster::view::{Member, View};

/// Most members that one view removes: each is a comparison in a transaction, for which etcd has
/// a limit of 128 (`--max-txn-ops`).
const REMOVED_LIMIT: usize = 32;

/// The view that should follow `current`; `None` when it is as it should be, or must not change
/// now. `reachable` is what the proposing node knows itself.
///
/// Adds each registered node that is missing or has another incarnation, if it may enter
/// ([`Electors::admit`]); removes a member
/// - without a lease, or that is another incarnation by now, when every member that has one suspects
///   it, and the proposer cannot reach it;
/// - with a lease when more than half of the members suspect it;
///
/// never more than half of the members at once. Who would take slots from others waits while items are still on their way
/// to their new owners.
pub fn next_view(current: &View, evidence: &Evidence<'_>, reachable: impl Fn(&str) -> bool) -> Option<View> {
    let has_lease = |id: &str| evidence.registered.contains_key(id);
    if !enough(current.members.keys(), has_lease, evidence.gone) {
        return None;
    }
    let mut members = current.members.clone();
    let electors = Electors::of(current, evidence);
    for (id, member) in evidence.registered {
        let known = current.members.get(id);
        // Where nothing goes to another owner, or nobody is there to let others take over.
        let moves_nothing = known.is_some_and(|known| known.weight == member.weight) || !electors.are_members;
        let may_come = moves_nothing || !evidence.is_moving;
        if may_come && (admit::is_member(current, member) || electors.admit(current, evidence, member)) {
            members.insert(id.clone(), member.clone());
        }
    }
    if evidence.may_remove {
        let limit = (current.members.len() / 2).min(REMOVED_LIMIT);
        let is_there = |id: &&String| members.get(*id) == current.members.get(*id);
        let removed: Vec<_> = suspected(current, evidence, reachable).filter(is_there).take(limit).collect();
        for id in removed {
            members.remove(id);
        }
    }
    (members != current.members).then(|| follow(current, members))
}

/// The members that should be removed, those without a lease first.
fn suspected<'a>(
    current: &'a View,
    evidence: &Evidence<'_>,
    reachable: impl Fn(&str) -> bool,
) -> impl Iterator<Item = &'a String> {
    let mut lost = Vec::new();
    let mut unreached = Vec::new();
    for (id, member) in &current.members {
        let voters =
            || current.members.keys().filter(|&voter| voter != id && evidence.registered.contains_key(voter));
        let suspecting = |voter: &&String| {
            evidence.suspicions.get(*voter).is_some_and(|ids| ids.get(id) == Some(&member.incarnation))
        };
        if evidence.registered.get(id).is_some_and(|it| it.incarnation == member.incarnation) {
            if voters().filter(suspecting).count() * 2 > current.members.len() {
                unreached.push(id);
            }
        } else if voters().next().is_some() && voters().all(|voter| suspecting(&voter)) && !reachable(id) {
            lost.push(id);
        }
    }
    lost.into_iter().chain(unreached)
}

/// Whether enough of a view's members have done something for the others not to find more than
/// half of it to grant them: half have; or one has, and whoever has not is `gone` and needs
/// that one, too (S7). When nobody has, those who are gone may grant each other for ever.
pub fn enough<'a>(
    ids: impl Iterator<Item = &'a String>,
    done: impl Fn(&str) -> bool,
    gone: &BTreeSet<String>,
) -> bool {
    let (done, others): (Vec<_>, Vec<_>) = ids.partition(|id| done(id));
    done.len() >= others.len() || !done.is_empty() && others.into_iter().all(|id| gone.contains(id))
}

/// The moment at which enough members had last granted node `me` for it to serve without a
/// lease: more than half of the view, itself included, or `all` of it. `None` when there was
/// none (S2). `grant` tells when another member did.
pub fn granted<T: Ord + Copy>(
    view: &View,
    me: &str,
    all: bool,
    now: T,
    grant: impl Fn(&Member) -> Option<T>,
) -> Option<T> {
    let size = view.members.len();
    let needed = if all { size } else { size / 2 + 1 };
    let members = view.members.values();
    let mut grants: Vec<_> =
        members.filter_map(|member| if member.id == me { Some(now) } else { grant(member) }).collect();
    grants.sort_unstable_by(|a, b| b.cmp(a));
    grants.get(needed - 1).copied()
}

/// The view without a member that takes itself out.
pub fn left(current: &View, id: &str) -> View {
    let mut members = current.members.clone();
    members.remove(id);
    View { departed: Some(id.to_owned()), ..follow(current, members) }
}

/// The same view once more, for an etcd that has lost it; `None` when too few of its members are
/// there: those who know of a later one may yet come.
pub fn again(current: &View, evidence: &Evidence<'_>) -> Option<View> {
    let has_lease = |id: &str| evidence.registered.contains_key(id);
    enough(current.members.keys(), has_lease, evidence.gone).then(|| follow(current, current.members.clone()))
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
        departed: None,
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn member(id: &str, incarnation: u64) -> Member {
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

    /// Everybody reaches everybody.
    pub(super) fn everybody(registered: &BTreeMap<String, Member>) -> Reached {
        let all: BTreeMap<_, _> = registered.values().map(|it| (it.id.clone(), it.incarnation)).collect();
        registered.keys().map(|id| (id.clone(), all.clone())).collect()
    }

    fn view(ids: &str) -> View {
        View { members: members(ids), ..View::default() }
    }

    /// The ids of the next view, when `suspected` is said by each of `voters`.
    fn next(current: &str, registered: &str, voters: &str, suspected: &str) -> Option<String> {
        next_when(current, registered, voters, suspected, "")
    }

    fn next_when(
        current: &str,
        registered: &str,
        voters: &str,
        suspected: &str,
        gone: &str,
    ) -> Option<String> {
        let ids: BTreeMap<_, _> = suspected.split_whitespace().map(|id| (id.to_owned(), 1)).collect();
        let suspicions = voters.split_whitespace().map(|voter| (voter.to_owned(), ids.clone())).collect();
        let (registered, gone) = (members(registered), members(gone).into_keys().collect());
        let reached = everybody(&registered);
        let (reached, founder, may_remove) = (&reached, None, true);
        let evidence = Evidence {
            registered: &registered,
            suspicions: &suspicions,
            reached,
            founder,
            gone: &gone,
            is_moving: false,
            may_remove,
        };
        let next = next_view(&view(current), &evidence, |id| !ids.contains_key(id))?;
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
    fn nobody_takes_slots_from_others_while_items_move() {
        let next = |current: &str, registered: &BTreeMap<String, Member>, is_moving| {
            let (reached, gone) = (everybody(registered), BTreeSet::new());
            let (suspicions, founder, may_remove) = (&Suspicions::new(), None, true);
            let (reached, gone) = (&reached, &gone);
            let evidence = Evidence { registered, suspicions, reached, founder, gone, is_moving, may_remove };
            next_view(&view(current), &evidence, |_| true).map(|view| view.members)
        };
        let three = members("a b c");
        assert_eq!(next("a b", &three, true), None);
        assert_eq!(next("a b", &three, false), Some(three.clone()));
        assert_eq!(next("", &three, true), Some(three), "there is nothing to move");
        let mut heavy = members("a b");
        heavy.get_mut("b").expect("it is there").weight = 200;
        assert_eq!(next("a b", &heavy, true), None);
        assert_eq!(next("a b", &heavy, false), Some(heavy));
        let anew: BTreeMap<_, _> =
            [("a", 1), ("b", 2)].map(|(id, it)| (id.to_owned(), member(id, it))).into();
        assert_eq!(next("a b", &anew, true), Some(anew), "what a dead one had is lost");
    }

    /// The next view of `a` and `b`, `b` registered as this incarnation or not at all, and suspected
    /// by `a` as that one.
    fn next_of_two(b: Option<u64>, suspected: u64, reached: bool, may_remove: bool) -> Option<View> {
        let mut registered = members("a");
        registered.extend(b.map(|incarnation| ("b".to_owned(), member("b", incarnation))));
        let suspicions = Suspicions::from([("a".to_owned(), BTreeMap::from([("b".to_owned(), suspected)]))]);
        let (gone, reach) = (BTreeSet::new(), everybody(&registered));
        let evidence = Evidence {
            registered: &registered,
            suspicions: &suspicions,
            reached: &reach,
            founder: None,
            gone: &gone,
            is_moving: false,
            may_remove,
        };
        next_view(&view("a b"), &evidence, |_| reached)
    }

    #[test]
    fn a_new_incarnation_replaces_the_old_one() {
        assert_eq!(next_of_two(Some(2), 1, false, true).unwrap().members["b"].incarnation, 2);
        assert_eq!(next_of_two(None, 2, false, true), None, "it is another one that is suspected");
    }

    #[test]
    fn the_proposer_must_not_reach_whom_it_removes() {
        assert_eq!(next_of_two(None, 1, true, true), None);
        assert_eq!(next_of_two(None, 1, false, true).unwrap().members, members("a"));
    }

    #[test]
    fn nobody_is_removed_from_a_view_that_is_too_new() {
        assert_eq!(next_of_two(None, 1, false, false), None);
        assert_eq!(next_of_two(Some(2), 1, false, false).unwrap().members["b"].incarnation, 2);
    }

    #[test]
    fn a_lost_lease_alone_removes_nobody() {
        assert_eq!(next("a b c", "a b", "", ""), None);
        assert_eq!(next("a b c", "a b", "a", "c"), None, "b reaches c");
        assert_eq!(next("a b c", "a b", "a b", "c"), ids("a b"));
        assert_eq!(next("a b", "a", "a", "b"), ids("a"));
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
    fn the_last_ones_go_on_when_the_others_are_gone() {
        assert_eq!(next_when("a b c", "c", "c", "a b", "a b"), ids("b c"));
        assert_eq!(next_when("a b c", "c", "c", "a b", "a"), None, "b may have others to grant it");
        assert_eq!(next("b c", "c", "c", "b"), ids("c"));
    }

    #[test]
    fn when_all_are_gone_nobody_takes_their_place() {
        // They may be cut off together, and go on.
        assert_eq!(next_when("a b", "x", "x", "a b", "a b"), None);
        assert_eq!(next_when("a", "x", "x", "a", "a"), None);
        // One of them is back, perhaps as a new process: nobody grants in place of the old one.
        assert_eq!(next_when("a b c", "a x", "a x", "b c", "b c"), ids("a c x"));
    }

    #[test]
    fn a_view_is_followed_when_half_of_those_before_it_have_acknowledged_it() {
        let followed = |previous: &str, acknowledged: &'static str, gone: &str| {
            enough(
                members(previous).keys(),
                |id| acknowledged.contains(id),
                &members(gone).into_keys().collect(),
            )
        };
        assert!(followed("", "", ""));
        assert!(followed("a b", "b", ""));
        assert!(!followed("a b c", "c", ""));
        assert!(followed("a b c", "c b", ""));
        assert!(!followed("a b c", "c", "a"));
        assert!(followed("a b c", "c", "a b"));
        assert!(!followed("a b c", "", "a b c"));
        assert!(!followed("a", "", "a"));
    }

    fn grants<'a>(moments: &'a [(&'a str, u32)]) -> impl Fn(&Member) -> Option<u32> + 'a {
        |member| moments.iter().find(|(id, _)| *id == member.id).map(|&(_, moment)| moment)
    }

    #[test]
    fn a_node_without_a_lease_serves_from_when_enough_had_granted_it() {
        let when = |ids: &str, moments: &[(&str, u32)]| granted(&view(ids), "a", false, 9, grants(moments));
        assert_eq!(when("a", &[]), Some(9));
        assert_eq!(when("a b", &[]), None);
        assert_eq!(when("a b", &[("b", 3)]), Some(3));
        assert_eq!(when("a b c", &[("b", 3), ("c", 5)]), Some(5));
        assert_eq!(when("a b c d", &[("b", 3)]), None);
        assert_eq!(when("a b c d", &[("b", 3), ("c", 5), ("d", 4)]), Some(4));
        assert_eq!(when("b c", &[("b", 3)]), None, "it is no member itself");

        let all = |moments: &[(&str, u32)]| granted(&view("a b c"), "a", true, 9, grants(moments));
        assert_eq!(all(&[("b", 3)]), None);
        assert_eq!(all(&[("b", 3), ("c", 5)]), Some(3));
    }

    /// Every way in which leases, reach and suspicions can fall in a cluster of up to five: a node
    /// that is removed without a lease is never one that others grant.
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
                    // "a" has no lease; members that do not reach it say so, and members that do grant it.
                    let (registered, reach) = (pick(leased & !1), pick(reached & !1));
                    let suspecting = pick(leased & !1 & !reached);
                    let Some(next) = next(&all, &registered, &suspecting, "a") else { continue };
                    if !next.contains('a') {
                        let grant = |member: &Member| reach.contains(&member.id).then_some(1);
                        assert_eq!(
                            granted(&view(&all), "a", false, 1, grant),
                            None,
                            "{all}: {registered}, {reach}"
                        );
                    }
                }
            }
        }
    }
}

//! Which nodes may enter a view: those that its members have reached, and that have reached them. A node
//! that nobody can reach would take its share of the keys and answer for none.
//!
//! What counts is the reach of one incarnation at the address with which it has registered, as
//! both sides have written it in etcd: so all who propose a view go by the same.

use crate::cluster::propose::evidence::{Evidence, Reached};
use crate::cluster::view::{Member, View};

/// Those who decide who enters.
#[derive(Debug)]
pub struct Electors<'a> {
    nodes: Vec<&'a Member>,
    /// Whether they are members, and have a lease.
    pub are_members: bool,
}

impl<'a> Electors<'a> {
    /// The members with a lease. When there is none, those who were members or, without a view,
    /// everybody: of these who reach themselves, since one of two that do not reach each other may
    /// have a wrong address, and it should not be the one who founds the cluster.
    pub fn of(current: &View, evidence: &Evidence<'a>) -> Self {
        let registered = evidence.registered.values();
        let members: Vec<_> = registered.clone().filter(|node| is_member(current, node)).collect();
        if !members.is_empty() {
            return Self { nodes: members, are_members: true };
        }
        let reaches_itself = |node: &&Member| reaches(evidence.reached, node, node);
        let nodes = registered.filter(|node| may_found(current, node)).filter(reaches_itself).collect();
        Self { nodes, are_members: false }
    }

    /// Those but for one.
    pub fn others(&self, id: &str) -> impl Iterator<Item = &'a Member> {
        self.nodes.iter().copied().filter(move |node| node.id != id)
    }

    /// Whether a registered node may enter: more of the others reach it and are reached by it
    /// than do not. An elector who enters counts itself. Those do not count whom one of the
    /// former suspects: two members that do not reach each other could never let in a third
    /// one, which decides which of them stays.
    pub fn admit(&self, current: &View, evidence: &Evidence<'_>, candidate: &Member) -> bool {
        if !self.are_members
            && may_found(current, candidate)
            && evidence.founder == Some(candidate.id.as_str())
        {
            return true;
        }
        let is_mutual = |node: &&Member| {
            reaches(evidence.reached, node, candidate) && reaches(evidence.reached, candidate, node)
        };
        let (for_it, against): (Vec<_>, Vec<_>) = self.others(&candidate.id).partition(is_mutual);
        let is_suspected = |node: &&&Member| {
            let suspicions = |by: &&Member| evidence.suspicions.get(&by.id)?.get(&node.id).copied();
            for_it.iter().any(|by| suspicions(by) == Some(node.incarnation))
        };
        let against = against.len() - against.iter().filter(is_suspected).count();
        let itself = usize::from(self.nodes.iter().any(|node| node.id == candidate.id));
        for_it.len() + itself > against
    }
}

/// Whether a node is in the view as it is now.
pub fn is_member(view: &View, node: &Member) -> bool {
    view.members.get(&node.id).is_some_and(|member| member.incarnation == node.incarnation)
}

/// Whether a node may be in the next view without that a member lets it in, when there is none:
/// it was one, or there is no view yet.
pub fn may_found(view: &View, node: &Member) -> bool {
    view.members.is_empty() || view.members.contains_key(&node.id)
}

/// Whether one node says that it has reached another.
pub fn reaches(reached: &Reached, from: &Member, to: &Member) -> bool {
    reached.get(&from.id).and_then(|ids| ids.get(&to.id)) == Some(&to.incarnation)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::cluster::propose::tests::member;
    use crate::cluster::propose::{Suspicions, next_view};

    /// The nodes of `a a b2`: ids, each with its incarnation, 1 unless it is said.
    fn nodes(text: &str) -> BTreeMap<String, Member> {
        let node = |word: &str| {
            let (id, incarnation) = word.split_at(1);
            (id.to_owned(), member(id, incarnation.parse().unwrap_or(1)))
        };
        text.split_whitespace().map(node).collect()
    }

    struct Case {
        current: &'static str,
        registered: &'static str,
        /// `ab` says that a reaches b.
        reached: &'static str,
        /// `ab` says that a suspects b as the view has it.
        suspicions: &'static str,
        founder: Option<&'static str>,
    }

    impl Case {
        fn new(current: &'static str, registered: &'static str, reached: &'static str) -> Case {
            Case { current, registered, reached, suspicions: "", founder: None }
        }

        /// The members of the next view.
        fn next(&self) -> Option<String> {
            let (view, registered) = (nodes(self.current), nodes(self.registered));
            let pairs = |text: &str, of: &BTreeMap<String, Member>| {
                let mut pairs = Reached::new();
                for (from, to) in text.split_whitespace().map(|pair| pair.split_at(1)) {
                    let ids = pairs.entry(from.to_owned()).or_default();
                    ids.insert(to.to_owned(), of[to].incarnation);
                }
                pairs
            };
            let reached = pairs(self.reached, &registered);
            let suspicions: Suspicions = pairs(self.suspicions, &view);
            let evidence = Evidence {
                registered: &registered,
                suspicions: &suspicions,
                reached: &reached,
                founder: self.founder,
                gone: &BTreeSet::new(),
                is_moving: false,
                may_remove: true,
            };
            let view = View { members: view, ..View::default() };
            let next =
                next_view(&view, &evidence, |id| !suspicions.values().any(|ids| ids.contains_key(id)))?;
            let shown = next.members.values().map(|it| match it.incarnation {
                1 => it.id.clone(),
                incarnation => format!("{}{incarnation}", it.id),
            });
            Some(shown.collect::<Vec<_>>().join(" "))
        }
    }

    fn next(current: &'static str, registered: &'static str, reached: &'static str) -> Option<String> {
        Case::new(current, registered, reached).next()
    }

    fn ids(ids: &str) -> Option<String> {
        Some(ids.to_owned())
    }

    #[test]
    fn most_members_must_reach_who_enters_and_be_reached() {
        assert_eq!(next("a b c", "a b c x", ""), None);
        assert_eq!(next("a b c", "a b c x", "ax bx cx"), None, "it reaches none of them");
        assert_eq!(next("a b c", "a b c x", "xa xb xc"), None, "none of them reaches it");
        assert_eq!(next("a b c", "a b c x", "ax xb bx"), None, "one of three");
        assert_eq!(next("a b c", "a b c x", "ax xa bx xb"), ids("a b c x"));
        assert_eq!(next("a b", "a b x", "ax xa"), None, "one of two is not most");
        assert_eq!(next("a", "a x", "ax xa"), ids("a x"));
    }

    #[test]
    fn members_without_a_lease_do_not_decide() {
        assert_eq!(next("a b", "a x", "ax xa"), ids("a b x"));
        assert_eq!(next("a b c d", "a b x", "ax xa"), None);
    }

    #[test]
    fn another_incarnation_must_be_reached_as_well() {
        assert_eq!(next("a b c", "a b c2", ""), None);
        assert_eq!(next("a b c", "a b c2", "ac ca bc cb"), ids("a b c2"));
        assert_eq!(next("a b c", "a b2 c2", "ac ca"), ids("a b c2"), "b is another one by now");
        assert_eq!(next("a b c", "a b2 c2", "bc cb"), None, "a decides");
    }

    #[test]
    fn an_incarnation_that_is_over_goes_when_all_suspect_it() {
        let case = |suspicions| Case { suspicions, ..Case::new("a b c", "a b c2", "") }.next();
        assert_eq!(case("ac"), None);
        assert_eq!(case("ac bc"), ids("a b"));
        let alone = Case { suspicions: "cb", ..Case::new("b c", "c2", "") };
        assert_eq!(alone.next(), ids("c"), "nobody is there to suspect it");
    }

    #[test]
    fn a_third_one_decides_between_two_that_do_not_reach_each_other() {
        let case = Case { suspicions: "ab ba", ..Case::new("a b", "a b x", "ax xa") };
        assert_eq!(case.next(), ids("a b x"));
        let case = Case { suspicions: "ab ba xb", ..Case::new("a b x", "a b x", "") };
        assert_eq!(case.next(), ids("a x"));
    }

    #[test]
    fn the_first_ones_decide_about_each_other() {
        assert_eq!(next("", "a", "aa"), ids("a"));
        assert_eq!(next("", "a", ""), None, "it may have a wrong address");
        assert_eq!(next("", "a b", "aa"), ids("a"), "b has one");
        assert_eq!(next("", "a b", "aa bb"), None, "nobody can tell");
        assert_eq!(next("", "a b", "aa bb ab ba"), ids("a b"));
        assert_eq!(next("", "a b c", "aa bb cc ab ba"), ids("a b"));
        assert_eq!(next("", "a b c", "aa bb ab ba ac ca bc cb"), ids("a b c"), "c does not reach itself");
    }

    #[test]
    fn all_who_are_back_decide_about_each_other() {
        let all = "aa bb cc ab ba ac ca bc cb";
        assert_eq!(next("a b c", "a2 b2 c2", all), ids("a2 b2 c2"));
        assert_eq!(next("a b c", "a2 b2 c2", "aa bb cc bc cb"), ids("a b2 c2"));
        assert_eq!(next("a b c", "a2 b2 x", "aa bb ab ba xx"), ids("a2 b2 c"), "x was no member");
        assert_eq!(next("a b c", "a2 x y", "xx yy xy yx"), None, "less than half of them are there");
        assert_eq!(next("a", "a2 x y", "xx yy xy yx"), None, "strangers take nobody's place");
    }

    #[test]
    fn who_has_waited_for_others_in_vain_founds() {
        let founds = |current, registered| Case { founder: Some("a"), ..Case::new(current, registered, "") };
        assert_eq!(founds("", "a b").next(), ids("a"));
        assert_eq!(founds("a b", "a2 b2").next(), ids("a2 b"));
        assert_eq!(founds("b", "a b").next(), None, "there is somebody to let it in");
        assert_eq!(founds("b", "a b2").next(), None, "it was none of them");
    }
}

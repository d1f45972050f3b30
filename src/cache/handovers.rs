//! The slots that a planned change gave to another node, while their items are on their way to it.
//!
//! The node that had a slot, its *source*, is there and answers for it no more: what it holds of the slot is what was true
//! when the slot changed hands. The node that has gained the slot, the source's *taker*, may take it over, each item once.

use std::sync::Arc;

use crate::cluster::State;
use crate::cluster::view::{Member, SLOTS};

/// A node from which items come here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// As it was a member.
    pub member: Member,
    /// The epoch of the view by which its slots came here.
    pub epoch: u64,
    /// Whether it has left the view.
    has_left: bool,
}

/// A node that takes items from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taker {
    /// Its id.
    pub id: String,
    /// Its process.
    pub incarnation: u64,
    /// The epoch of the view by which the slots went there.
    pub epoch: u64,
}

/// All handovers that this node takes part in, under one view.
#[derive(Debug, Clone, Default)]
pub struct Handovers {
    incoming: Parties<Source>,
    outgoing: Parties<Taker>,
}

/// The other node of each slot, if it has one.
#[derive(Debug, Clone)]
struct Parties<T> {
    /// Each with how many slots it has.
    parties: Vec<(T, usize)>,
    /// For each slot a place among these.
    slots: Box<[u16]>,
}

/// Of a slot that is not on its way.
const NOBODY: u16 = u16::MAX;

/// This node's slots before a view and after it.
pub(super) struct Change<'a> {
    pub(super) before: &'a State,
    pub(super) after: &'a State,
    /// This node among the owners of before, if it goes on as what it was.
    pub(super) was_me: Option<u16>,
    /// This node among the owners now.
    pub(super) me: Option<u16>,
    /// Whether this node has missed no view and was not started anew.
    pub(super) goes_on: bool,
}

impl Handovers {
    /// Those under the next view, which flushes nothing; `None` where there are none. `was_open` says of which slots this
    /// node could answer for.
    pub(super) fn after(
        before: Option<&Self>,
        change: &Change<'_>,
        was_open: impl Fn(u16) -> bool,
    ) -> Option<Arc<Self>> {
        let Change { before: old, after: new, was_me, me, goes_on } = *change;
        if !goes_on || before.is_none() && new.owners.has_slots_of(&old.owners) {
            return None;
        }
        let nothing = Self::default();
        let before = before.unwrap_or(&nothing);
        let mut next = Self::default();
        let come = old.owners.members().iter().map(|member| Source::new(member, new.epoch).under(new));
        let come: Vec<_> = come.map(|source| next.incoming.add(source)).collect();
        let stay =
            before.incoming.parties.iter().map(|(source, slots)| source.under(new).filter(|_| *slots > 0));
        let stay: Vec<_> = stay.map(|source| next.incoming.add(source)).collect();
        let go = new.owners.members().iter().map(|member| Some(Taker::new(member, new.epoch)));
        let go: Vec<_> = go.map(|taker| next.outgoing.add(taker)).collect();
        let went = before.outgoing.parties.iter().map(|(taker, slots)| (*slots > 0).then(|| taker.clone()));
        let went: Vec<_> = went.map(|taker| next.outgoing.add(taker)).collect();
        for slot in 0..=u16::MAX {
            let (owner, owner_before) = (new.owners.index(slot), old.owners.index(slot));
            let (is_mine, was_mine) =
                (owner.is_some() && owner == me, was_me.is_some() && owner_before == was_me);
            match (is_mine, was_mine) {
                (true, true) => next.incoming.put(slot, before.incoming.place(slot), &stay),
                (true, false) => next.incoming.put(slot, owner_before, &come),
                (false, true) if was_open(slot) => next.outgoing.put(slot, owner, &go),
                (false, true) => {}
                (false, false) => {
                    let taker = before.outgoing.of(slot);
                    if taker.is_some_and(|taker| new.owners.owner(slot).is_some_and(|owner| taker.is(owner)))
                    {
                        next.outgoing.put(slot, before.outgoing.place(slot), &went);
                    }
                }
            }
        }
        (!next.is_empty()).then(|| Arc::new(next))
    }

    /// Where items of a slot that is now this node's come from.
    #[inline]
    pub fn source(&self, slot: u16) -> Option<&Source> {
        self.incoming.of(slot)
    }

    /// Who takes items of a slot that was this node's.
    pub fn taker(&self, slot: u16) -> Option<&Taker> {
        self.outgoing.of(slot)
    }

    /// The place of a taker among all,
    pub(super) fn place_of(&self, taker: &Taker) -> Option<u16> {
        self.outgoing.place_of(taker)
    }

    /// and of the one that takes items of this slot.
    pub(super) fn place_of_taker(&self, slot: u16) -> Option<u16> {
        self.outgoing.place(slot)
    }

    /// All nodes from which items come.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.incoming.all()
    }

    /// All nodes that take items.
    pub fn takers(&self) -> impl Iterator<Item = &Taker> {
        self.outgoing.all()
    }

    /// How many slots are on their way here.
    pub fn incoming_slots(&self) -> usize {
        self.incoming.len()
    }

    /// How many slots are on their way from here.
    pub fn outgoing_slots(&self) -> usize {
        self.outgoing.len()
    }

    /// Nothing more comes from there; `None` when nothing is left at all.
    pub(super) fn without_source(&self, source: &Source) -> Option<Arc<Self>> {
        let mut next = self.clone();
        next.incoming.remove(source);
        (!next.is_empty()).then(|| Arc::new(next))
    }

    /// Nothing more goes there; `None` when nothing is left at all.
    pub(super) fn without_taker(&self, taker: &Taker) -> Option<Arc<Self>> {
        let mut next = self.clone();
        next.outgoing.remove(taker);
        (!next.is_empty()).then(|| Arc::new(next))
    }

    fn is_empty(&self) -> bool {
        self.incoming.len() + self.outgoing.len() == 0
    }
}

impl Source {
    fn new(member: &Member, epoch: u64) -> Self {
        Self { member: member.clone(), epoch, has_left: false }
    }

    /// As it is under a view; `None` when it has died, or its process is another one.
    fn under(&self, state: &State) -> Option<Self> {
        let id = &self.member.id;
        let has_left = match state.view.members.get(id) {
            Some(member) => (member.incarnation == self.member.incarnation).then_some(false)?,
            None => (self.has_left || state.view.departed.as_ref() == Some(id)).then_some(true)?,
        };
        Some(Self { has_left, ..self.clone() })
    }

    /// Whether both are the same handover.
    pub fn is(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.member.id == other.member.id
            && self.member.incarnation == other.member.incarnation
    }
}

impl Taker {
    fn new(member: &Member, epoch: u64) -> Self {
        Self { id: member.id.clone(), incarnation: member.incarnation, epoch }
    }

    fn is(&self, member: &Member) -> bool {
        self.id == member.id && self.incarnation == member.incarnation
    }
}

impl<T> Default for Parties<T> {
    fn default() -> Self {
        Self { parties: Vec::new(), slots: Box::default() }
    }
}

impl<T: PartialEq> Parties<T> {
    /// Adds one, without slots. Its place.
    fn add(&mut self, party: Option<T>) -> Option<u16> {
        self.parties.push((party?, 0));
        Some(self.parties.len() as u16 - 1)
    }

    /// Puts a slot where the one at `place` among some others is now, if it is anywhere.
    fn put(&mut self, slot: u16, place: Option<u16>, now: &[Option<u16>]) {
        let Some(place) = place.and_then(|place| now[usize::from(place)]) else { return };
        if self.slots.is_empty() {
            self.slots = vec![NOBODY; SLOTS].into();
        }
        self.slots[usize::from(slot)] = place;
        self.parties[usize::from(place)].1 += 1;
    }

    #[inline]
    fn place(&self, slot: u16) -> Option<u16> {
        self.slots.get(usize::from(slot)).copied().filter(|place| *place != NOBODY)
    }

    #[inline]
    fn of(&self, slot: u16) -> Option<&T> {
        self.parties.get(usize::from(self.place(slot)?)).map(|(party, _)| party)
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.parties.iter().filter(|(_, slots)| *slots > 0).map(|(party, _)| party)
    }

    fn remove(&mut self, party: &T) {
        let Some(place) = self.place_of(party) else { return };
        self.parties[usize::from(place)].1 = 0;
        self.slots.iter_mut().filter(|slot| **slot == place).for_each(|slot| *slot = NOBODY);
    }

    /// The place of one among all.
    fn place_of(&self, party: &T) -> Option<u16> {
        self.parties.iter().position(|(known, _)| known == party).map(|place| place as u16)
    }

    /// How many slots are on their way.
    fn len(&self) -> usize {
        self.parties.iter().map(|(_, slots)| slots).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::MemberStatus;
    use crate::cluster::view::{Owners, View};

    /// What node `a` knows under a view of such members: ids, each with its incarnation, 1 unless it is said.
    fn state(epoch: u64, members: &str, departed: Option<&str>) -> State {
        let member = |word: &str| {
            let (id, incarnation) = word.split_at(1);
            let member = Member {
                id: id.to_owned(),
                incarnation: incarnation.parse().unwrap_or(1),
                peer_addr: String::new(),
                memcached_addr: String::new(),
                weight: 100,
                zone: String::new(),
            };
            (id.to_owned(), member)
        };
        let members: BTreeMap<_, _> = members.split_whitespace().map(member).collect();
        let view = View { members, departed: departed.map(str::to_owned), ..View::default() };
        State {
            epoch,
            owners: Arc::new(Owners::of(&view)),
            view: Arc::new(view),
            me: "a".to_owned(),
            incarnation: 1,
            standing: MemberStatus::Serving,
            acknowledged: Arc::default(),
            acks_as_of: epoch,
            suspected: Arc::default(),
            registered: Arc::default(),
            candidates: Arc::default(),
        }
    }

    /// The handovers of node `a` after one view has followed another.
    fn after(kept: Option<&Handovers>, before: &State, after: &State) -> Option<Arc<Handovers>> {
        let place = |state: &State| state.is_member().then(|| state.owners.position("a")).flatten();
        let change = Change { before, after, was_me: place(before), me: place(after), goes_on: true };
        Handovers::after(kept, &change, |_| true)
    }

    fn sources(handovers: Option<&Arc<Handovers>>) -> Vec<(&str, u64)> {
        let sources = handovers.into_iter().flat_map(|all| all.sources());
        sources.map(|source| (source.member.id.as_str(), source.epoch)).collect()
    }

    fn takers(handovers: Option<&Arc<Handovers>>) -> Vec<(&str, u64)> {
        let takers = handovers.into_iter().flat_map(|all| all.takers());
        takers.map(|taker| (taker.id.as_str(), taker.epoch)).collect()
    }

    #[test]
    fn who_joins_takes_and_who_was_there_gives() {
        let (two, three) = (state(1, "b c", None), state(2, "a b c", None));
        let joined = after(None, &two, &three);
        assert_eq!(sources(joined.as_ref()), [("b", 2), ("c", 2)]);
        assert_eq!(takers(joined.as_ref()), []);
        let handovers = joined.expect("there are some");
        assert_eq!(handovers.incoming_slots(), three.owners.slots_of("a"));
        for slot in 0..=u16::MAX {
            let source = handovers.source(slot).map(|source| &source.member.id);
            let owned = three.owners.owner(slot).is_some_and(|owner| owner.id == "a");
            assert_eq!(source, two.owners.owner(slot).filter(|_| owned).map(|owner| &owner.id));
        }
        let gave = after(None, &state(1, "a b", None), &state(2, "a b c", None));
        assert_eq!((sources(gave.as_ref()), takers(gave.as_ref())), (vec![], vec![("c", 2)]));
    }

    #[test]
    fn who_leaves_is_a_source_and_who_died_is_none() {
        let before = state(1, "a b c", None);
        assert_eq!(sources(after(None, &before, &state(2, "a b", Some("c"))).as_ref()), [("c", 2)]);
        assert!(after(None, &before, &state(2, "a b", None)).is_none());
        assert!(after(None, &before, &state(2, "a b c2", None)).is_none());
        let left = after(None, &before, &state(2, "b c", Some("a")));
        assert_eq!(takers(left.as_ref()), [("b", 2), ("c", 2)]);
    }

    #[test]
    fn a_handover_ends_when_its_slots_go_on_or_its_source_does() {
        let (one, two) = (state(1, "b c", None), state(2, "a b c", None));
        let joined = after(None, &one, &two).expect("there are some");
        let next = |members, departed| after(Some(&joined), &two, &state(3, members, departed));
        assert_eq!(sources(next("a b c d", None).as_ref()), [("b", 2), ("c", 2)]);
        assert_eq!(sources(next("a b", None).as_ref()), [("b", 2)], "c has died");
        let left = next("a b", Some("c"));
        assert_eq!(
            sources(left.as_ref()),
            [("c", 3), ("b", 2), ("c", 2)],
            "c has left, with the rest of its slots"
        );
        let back = after(left.as_deref(), &state(3, "a b", Some("c")), &state(4, "a b c2", None));
        assert_eq!(sources(back.as_ref()), [("b", 2)], "another process has its name");
        let gave = after(None, &state(1, "a b", None), &state(2, "a b c", None)).expect("there are some");
        let next = |members| after(Some(&gave), &state(2, "a b c", None), &state(3, members, None));
        assert_eq!(takers(next("a b c d").as_ref()), [("d", 3), ("c", 2)]);
        assert_eq!(takers(next("a b c2").as_ref()), [], "what c has taken is lost");
        assert_eq!(takers(next("a b").as_ref()), []);
    }

    #[test]
    fn what_is_over_is_no_more_on_its_way() {
        let joined = after(None, &state(1, "b c", None), &state(2, "a b c", None)).expect("there are some");
        let b = joined.sources().next().expect("b comes first").clone();
        let rest = joined.without_source(&b).expect("c is left");
        assert_eq!(sources(Some(&rest)), [("c", 2)]);
        assert!((0..=u16::MAX).all(|slot| rest.source(slot) != Some(&b)));
        let c = rest.sources().next().expect("c is left").clone();
        assert!(rest.without_source(&c).is_none());
    }
}

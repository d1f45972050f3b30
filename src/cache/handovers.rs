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
        let stay = before.incoming.parties.iter().map(|(source, _)| source.under(new));
        let stay: Vec<_> = stay.map(|source| next.incoming.add(source)).collect();
        let go = new.owners.members().iter().map(|member| Some(Taker::new(member, new.epoch)));
        let go: Vec<_> = go.map(|taker| next.outgoing.add(taker)).collect();
        let went = before.outgoing.parties.iter().map(|(taker, _)| Some(taker.clone()));
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
        let Some(place) = self.parties.iter().position(|(known, _)| known == party) else { return };
        self.parties[place].1 = 0;
        self.slots.iter_mut().filter(|slot| usize::from(**slot) == place).for_each(|slot| *slot = NOBODY);
    }

    /// How many slots are on their way.
    fn len(&self) -> usize {
        self.parties.iter().map(|(_, slots)| slots).sum()
    }
}

//! Where a key's command is executed, under one view of the cluster.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::cluster::view::{Member, Owners, SLOTS, slot};
use crate::store::Floors;

/// Where a command is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here; what was written under a lower generation of the store is not this cluster's.
    Here {
        /// The generation.
        since: u32,
    },
    /// Here, but not before every node knows that it is so.
    Soon,
    /// At another member, by its place in [`Routing::members`].
    Member(u16),
    /// Nobody is known who owns keys.
    Nowhere,
}

/// One view of the cluster, ready to be looked up in; never changed, only replaced.
#[derive(Debug)]
pub struct Routing {
    /// Counts the routings of this process.
    pub version: u64,
    /// The epoch of the view.
    pub epoch: u64,
    pub(super) owners: Arc<Owners>,
    /// This node among the owners.
    pub(super) me: Option<u16>,
    /// For each slot the generation of the store from which on its items count.
    pub(super) since: Arc<[u32]>,
    /// What follows from these three, ready to be looked up in.
    pub(super) places: Arc<Places>,
    /// The slots that others may still answer for.
    pub(super) shut: Option<Arc<Slots>>,
}

impl Routing {
    /// Where a key's command is executed. Costs a hash of the key and a load.
    #[inline]
    pub fn place(&self, key: &[u8]) -> Place {
        self.place_of(slot(key))
    }

    fn place_of(&self, slot: u16) -> Place {
        match self.places.of_slot(slot) {
            Place::Here { .. } if self.shut.as_ref().is_some_and(|shut| shut.contains(slot)) => Place::Soon,
            place => place,
        }
    }

    /// Who may own keys, in the order that [`Place::Member`] counts in.
    pub fn members(&self) -> &[Member] {
        self.owners.members()
    }

    /// The owner of each slot.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Whether every slot that is this node's may be answered for.
    pub fn is_open(&self) -> bool {
        self.shut.is_none()
    }
}

impl Floors for Routing {
    fn floor(&self, key: &[u8]) -> Option<u32> {
        match self.place(key) {
            Place::Here { since } => Some(since),
            Place::Soon => Some(self.since[usize::from(slot(key))]),
            Place::Member(_) | Place::Nowhere => None,
        }
    }
}

/// The place of each slot, in half the memory of its owner and its generation: of few different
/// generations, each is kept once.
#[derive(Debug)]
pub(super) struct Places {
    slots: Box<[u16]>,
    generations: Vec<u32>,
}

/// The mark of a slot of this node; the rest is the place of its generation.
const HERE: u16 = 1 << 15;

/// A slot without an owner.
const NOWHERE: u16 = u16::MAX;

/// Generations that are told apart.
const GENERATIONS_MAX: usize = (NOWHERE - HERE) as usize;

impl Places {
    /// Of more generations than can be told apart, the others are taken for `newest`: their items
    /// are forgotten.
    ///
    /// # Panics
    /// With more than 32,768 members.
    pub(super) fn of(owners: &Owners, me: Option<u16>, since: &[u32], newest: u32) -> Self {
        assert!(owners.members().len() <= usize::from(HERE), "so many members");
        let (mut generations, mut known) = (vec![newest], HashMap::from([(newest, 0)]));
        let place = |(slot, &since): (u16, &u32)| match owners.index(slot) {
            None => NOWHERE,
            owner @ Some(member) if owner != me => member,
            Some(_) => {
                let next = generations.len();
                let place = *known.entry(since).or_insert(if next < GENERATIONS_MAX { next } else { 0 });
                if place == next {
                    generations.push(since);
                }
                HERE | place as u16
            }
        };
        let slots = (0..=u16::MAX).zip(since).map(place).collect();
        Self { slots, generations }
    }

    #[inline]
    fn of_slot(&self, slot: u16) -> Place {
        match self.slots[usize::from(slot)] {
            NOWHERE => Place::Nowhere,
            place if place < HERE => Place::Member(place),
            place => Place::Here { since: self.generations[usize::from(place & !HERE)] },
        }
    }
}

/// A thread's window on the routing. Whoever executes commands holds it while it does: so a
/// new routing is in force everywhere once it has been put into every pane.
#[derive(Debug)]
pub struct Pane(pub(super) Mutex<Arc<Routing>>);

impl Pane {
    /// The present routing, which stays in force as long as it is held. Not across an await.
    #[inline]
    pub fn hold(&self) -> MutexGuard<'_, Arc<Routing>> {
        self.0.lock()
    }
}

/// A set of slots.
#[derive(Debug, Clone)]
pub(super) struct Slots(Box<[u64]>);

impl Slots {
    pub(super) fn none() -> Self {
        Self(vec![0; SLOTS / 64].into())
    }

    pub(super) fn insert(&mut self, slot: u16) {
        self.0[usize::from(slot) / 64] |= 1 << (slot % 64);
    }

    pub(super) fn contains(&self, slot: u16) -> bool {
        self.0[usize::from(slot) / 64] >> (slot % 64) & 1 == 1
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::view::View;

    fn owners(ids: &[&str]) -> Owners {
        let member = |id: &&str| Member {
            id: (*id).to_owned(),
            incarnation: 1,
            peer_addr: String::new(),
            memcached_addr: String::new(),
            weight: 100,
            zone: String::new(),
        };
        let members = ids.iter().map(|id| ((*id).to_owned(), member(id)));
        Owners::of(&View { members: BTreeMap::from_iter(members), ..View::default() })
    }

    #[test]
    fn places_say_what_owners_and_generations_say() {
        let owners = owners(&["a", "b", "c"]);
        let since: Vec<u32> = (0..SLOTS as u32).map(|slot| slot % 1_000).collect();
        let places = Places::of(&owners, Some(1), &since, 7);
        for slot in 0..=u16::MAX {
            let expected = match owners.index(slot).expect("there are members") {
                1 => Place::Here { since: since[usize::from(slot)] },
                member => Place::Member(member),
            };
            assert_eq!(places.of_slot(slot), expected);
        }
        let nobody = Places::of(&self::owners(&[]), None, &since, 7);
        assert_eq!(nobody.of_slot(1), Place::Nowhere);
    }

    #[test]
    fn what_generations_there_is_no_room_for_is_forgotten() {
        let since: Vec<u32> = (0..SLOTS as u32).collect();
        let newest = u32::MAX;
        let places = Places::of(&owners(&["a"]), Some(0), &since, newest);
        let kept = |slot: u16| places.of_slot(slot) == Place::Here { since: slot.into() };
        assert_eq!((0..=u16::MAX).filter(|&slot| kept(slot)).count(), GENERATIONS_MAX - 1);
        assert_eq!(places.of_slot(u16::MAX), Place::Here { since: newest });
    }
}

//! Where a key's command is executed, under one view of the cluster.

use std::cmp::Reverse;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::cache::handovers::{Handovers, Source};
use crate::cluster::view::{Member, Owners, SLOTS, slot};
use crate::store::{Generation, MinGenerations};

/// Where a command is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Here; items written under a lower generation of the store do not belong to this cluster.
    Here {
        /// The generation.
        min_generation: Generation,
    },
    /// Here, and what lies under the key may still be where the slot was before. A command is executed when something lies
    /// under its key here, or once that was taken over.
    Warming {
        /// As in [`Place::Here`].
        min_generation: Generation,
    },
    /// Here, but only after every node knows it.
    Pending,
    /// At another member, by its place in [`Routing::members`].
    Member(u16),
    /// No owner of keys is known.
    Nowhere,
}

impl Place {
    /// Whether this node answers there now.
    pub fn is_here(self) -> bool {
        matches!(self, Self::Here { .. } | Self::Warming { .. })
    }
}

/// One view of the cluster, ready for look-ups; never changed, only replaced.
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
    pub(super) min_generations: Arc<[Generation]>,
    /// Derived from these three, ready for look-ups.
    pub(super) places: Arc<Places>,
    /// The slots that others may still answer for.
    pub(super) shut: Option<Arc<Slots>>,
    /// The slots whose items are on their way, here or from here.
    pub(super) handovers: Option<Arc<Handovers>>,
}

impl Routing {
    /// Where a key's command is executed. Costs a hash of the key and a load
    /// or two.
    #[inline]
    pub fn place(&self, key: &[u8]) -> Place {
        self.place_of(slot(key))
    }

    fn place_of(&self, slot: u16) -> Place {
        match self.places.of_slot(slot) {
            Place::Here { .. } if self.shut.as_ref().is_some_and(|shut| shut.contains(slot)) => {
                Place::Pending
            }
            Place::Here { min_generation } if self.source(slot).is_some() => {
                Place::Warming { min_generation }
            }
            place => place,
        }
    }

    /// Where items of a slot come from that is this node's.
    #[inline]
    fn source(&self, slot: u16) -> Option<&Source> {
        self.handovers.as_ref()?.source(slot)
    }

    /// Whether the slots that come from there are open.
    pub(super) fn opens(&self, source: &Source) -> bool {
        let Some(shut) = &self.shut else { return true };
        let is_its = |slot: &u16| self.source(*slot).is_some_and(|other| other.is(source));
        // They have come together.
        (0..=u16::MAX).find(is_its).is_some_and(|slot| !shut.contains(slot))
    }

    /// The slots whose items are on their way, here or from here.
    pub fn handovers(&self) -> Option<&Handovers> {
        self.handovers.as_deref()
    }

    /// From which generation on items of a slot count that is this node's, or was.
    pub(super) fn min_generation_of(&self, slot: u16) -> Generation {
        self.min_generations[usize::from(slot)]
    }

    /// The possible owners of keys, in the order that [`Place::Member`] counts in.
    pub fn members(&self) -> &[Member] {
        self.owners.members()
    }

    /// The owner of each slot.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Whether this node may answer for all of its slots.
    pub fn is_open(&self) -> bool {
        self.shut.is_none()
    }
}

impl MinGenerations for Routing {
    fn min_generation(&self, key: &[u8]) -> Option<Generation> {
        let slot = slot(key);
        match self.place_of(slot) {
            Place::Here { min_generation } | Place::Warming { min_generation } => Some(min_generation),
            Place::Pending => Some(self.min_generation_of(slot)),
            // Items stay where another node will take them over.
            Place::Member(_) | Place::Nowhere => {
                let is_outgoing = self.handovers().is_some_and(|handovers| handovers.taker(slot).is_some());
                is_outgoing.then(|| self.min_generation_of(slot))
            }
        }
    }
}

/// The place of each slot, in little memory. Keys come in no order, so the memory that look-ups read should stay in the
/// fastest caches beside everything else. There are few different generations, and each is kept once. Two bits are
/// enough for the three places of the most slots.
#[derive(Debug)]
pub(super) struct Places {
    /// For each slot two bits: one of `usual`, or 3 for a look at `all`.
    near: Box<[u64]>,
    usual: [u16; 3],
    all: Box<[u16]>,
    /// Those of most slots come first.
    generations: Vec<Generation>,
}

/// The mark of a slot of this node; the rest is the place of its generation.
const HERE: u16 = 1 << 15;

/// A slot without an owner.
const NOWHERE: u16 = u16::MAX;

/// Generations that are told apart.
const GENERATIONS_MAX: usize = (NOWHERE - HERE) as usize;

/// Slots whose two bits share a word.
const NEAR_SLOTS: usize = u64::BITS as usize / 2;

impl Places {
    /// When there are more generations than can be told apart, those of the fewest slots count as `newest`: their items
    /// are forgotten.
    ///
    /// # Panics
    /// With more than 32,768 members.
    pub(super) fn of(
        owners: &Owners,
        me: Option<u16>,
        min_generations: &[Generation],
        newest: Generation,
    ) -> Self {
        assert!(owners.members().len() <= usize::from(HERE), "so many members");
        let mine = |slot: u16| me.is_some() && owners.index(slot) == me;
        let generation_of = |slot: u16| min_generations[usize::from(slot)];
        let mut of_slots: Vec<Generation> =
            (0..=u16::MAX).filter(|&slot| mine(slot)).map(generation_of).collect();
        of_slots.sort_unstable_by_key(|generation| generation.number());
        let mut slots: Vec<&[Generation]> = of_slots.chunk_by(PartialEq::eq).collect();
        slots.sort_by_key(|same| Reverse(same.len()));
        let mut generations: Vec<Generation> =
            slots.iter().map(|same| same[0]).take(GENERATIONS_MAX - 1).collect();
        if !generations.contains(&newest) {
            generations.push(newest);
        }
        let mut by_number: Vec<(u32, u16)> = generations.iter().map(|it| it.number()).zip(0..).collect();
        by_number.sort_unstable();
        let place_of = |generation: Generation| {
            let place = by_number.binary_search_by_key(&generation.number(), |&(number, _)| number);
            place.map(|place| by_number[place].1)
        };
        let newest = place_of(newest).unwrap_or_default();
        let all = (0..=u16::MAX).map(|slot| match owners.index(slot) {
            None => NOWHERE,
            Some(_) if mine(slot) => HERE | place_of(generation_of(slot)).unwrap_or(newest),
            Some(member) => member,
        });
        let all: Box<[u16]> = all.collect();
        let usual = usual(&all);
        let near = all.chunks(NEAR_SLOTS).map(|places| {
            let code = |place| usual.iter().position(|usual| usual == place).unwrap_or(3) as u64;
            places.iter().rev().fold(0, |word, place| word << 2 | code(place))
        });
        Self { near: near.collect(), usual, all, generations }
    }

    #[inline]
    fn of_slot(&self, slot: u16) -> Place {
        let slot = usize::from(slot);
        let code = self.near[slot / NEAR_SLOTS] >> (slot % NEAR_SLOTS * 2) & 3;
        let place = self.usual.get(code as usize).copied().unwrap_or_else(|| self.all[slot]);
        match place {
            NOWHERE => Place::Nowhere,
            place if place < HERE => Place::Member(place),
            place => Place::Here { min_generation: self.generations[usize::from(place & !HERE)] },
        }
    }
}

/// The places of the most slots; repeated when there are fewer than three.
fn usual(places: &[u16]) -> [u16; 3] {
    let mut slots = vec![0; 1 << 16];
    places.iter().for_each(|&place| slots[usize::from(place)] += 1);
    let mut by_slots: Vec<(u16, u32)> = (0..=u16::MAX).zip(slots).filter(|(_, slots)| *slots > 0).collect();
    by_slots.sort_unstable_by_key(|&(place, slots)| (Reverse(slots), place));
    std::array::from_fn(|index| by_slots[index.min(by_slots.len() - 1)].0)
}

/// A thread's window on the routing. The code that executes commands holds it meanwhile: so a new routing is in force
/// everywhere once it has been put into every routing handle.
#[derive(Debug)]
pub struct RoutingHandle(pub(super) Mutex<Arc<Routing>>);

impl RoutingHandle {
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

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        let words = self.0.iter().enumerate().filter(|&(_, &word)| word != 0);
        words.flat_map(move |(at, &word)| bits(word).map(move |bit| at * 64 + bit))
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
        let since: Vec<_> = (0..SLOTS as u32).map(|slot| Generation::new(slot % 1_000)).collect();
        let places = Places::of(&owners, Some(1), &since, Generation::new(7));
        for slot in 0..=u16::MAX {
            let expected = match owners.index(slot).expect("there are members") {
                1 => Place::Here { min_generation: since[usize::from(slot)] },
                member => Place::Member(member),
            };
            assert_eq!(places.of_slot(slot), expected);
        }
        let nobody = Places::of(&self::owners(&[]), None, &since, Generation::new(7));
        assert_eq!(nobody.of_slot(1), Place::Nowhere);
    }

    #[test]
    fn what_generations_there_is_no_room_for_is_forgotten() {
        // The first two slots share a generation, all others have one each.
        let since: Vec<_> = (0..SLOTS as u32).map(|slot| Generation::new(slot.max(1))).collect();
        let newest = Generation::new(u32::MAX);
        let places = Places::of(&owners(&["a"]), Some(0), &since, newest);
        let kept =
            |slot: u16| places.of_slot(slot) == Place::Here { min_generation: since[usize::from(slot)] };
        assert!(kept(0) && kept(1));
        assert_eq!((0..=u16::MAX).filter(|&slot| kept(slot)).count(), GENERATIONS_MAX);
        assert_eq!(places.of_slot(u16::MAX), Place::Here { min_generation: newest });
    }
}

//! The agreed member set, and the owner of each key as a pure function of it: the same on
//! every node and on every build.
//!
//! Weighted rendezvous hashing over fixed slots. A key's slot is the top bits of a fixed hash;
//! a slot's owner is the member with the highest score for it. So a member that joins takes
//! slots evenly from all, one that leaves gives its own to all, and no other slot moves.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Slots that keys fall into. Measured with 100 members of one weight, the fullest holds 1.09
/// times the mean (`owners_are_balanced`).
pub const SLOTS: usize = 1 << 16;

/// The slot of a key.
pub fn slot(key: &[u8]) -> u16 {
    (xxh3_64(key) >> 48) as u16
}

/// A node of the cluster, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Stays the same over restarts.
    pub id: String,
    /// Changes with every start: what an earlier one held is gone.
    pub incarnation: u64,
    /// Where other nodes reach it, `host:port`.
    pub peer_addr: String,
    /// Where clients reach it, `host:port`.
    pub memcached_addr: String,
    /// Its share of the keys in relation to the others'; 100 is usual.
    pub weight: u32,
    /// Where it stands, for people; empty when nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
}

/// The member set that a compare-and-swap in etcd has agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct View {
    /// The members by id.
    pub members: BTreeMap<String, Member>,
    /// The ids of the view before this one: enough of them must have come to this one before
    /// another may follow it.
    #[serde(default)]
    pub previous: Vec<String>,
    /// Raised by every `flush_all`; what was stored under a lower one is gone.
    #[serde(default)]
    pub flush_generation: u64,
    /// Who took itself out with this view, and grants nobody since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub departed: Option<String>,
}

/// The owners of all slots under one view. Made once for a view; a look-up costs one load.
pub struct Owners {
    /// The members in the order of their ids; a slot holds an index into this.
    members: Vec<Member>,
    slots: Arc<Slots>,
}

/// The owner of each slot, and what is asked of all of them.
#[derive(Default)]
struct Slots {
    owners: Box<[u16]>,
    /// How many slots each member has.
    counts: Box<[usize]>,
    digest: OnceLock<u64>,
}

impl Owners {
    /// Computes the owners. Costs one hash for each member and slot; where weights differ, one logarithm for each of them and slot, too.
    pub fn of(view: &View) -> Self {
        let members: Vec<_> = weighty(view).cloned().collect();
        let mut seeds: BTreeMap<u32, Vec<(u64, u16)>> = BTreeMap::new();
        for (member, index) in members.iter().zip(0..) {
            seeds.entry(member.weight).or_default().push((seed(member), index));
        }
        let owner = |slot: usize| {
            let best = seeds.iter().filter_map(|(weight, seeds)| {
                let (draw, index) = highest(slot, seeds)?;
                let score = if seeds.len() == members.len() { 0.0 } else { score(draw, f64::from(*weight)) };
                Some((score, index))
            });
            best.max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map_or(0, |(_, Reverse(index))| index)
        };
        let owners = if members.is_empty() { Box::default() } else { (0..SLOTS).map(owner).collect() };
        Self::new(members, owners)
    }

    fn new(members: Vec<Member>, owners: Box<[u16]>) -> Self {
        let mut counts: Box<[usize]> = members.iter().map(|_| 0).collect();
        owners.iter().for_each(|&owner| counts[usize::from(owner)] += 1);
        Self { members, slots: Arc::new(Slots { owners, counts, digest: OnceLock::new() }) }
    }

    /// The owners under another view, the same as [`Owners::of`] computes. Costs less when all weigh the same, now and then.
    pub fn next(&self, view: &View) -> Self {
        self.under(view).or_else(|| self.with_changes(view)).unwrap_or_else(|| Self::of(view))
    }

    /// When all have one weight, now and before, the highest draw alone decides. So an owner that stays keeps its slot but for
    /// those that have come, and whoever came or stayed draws again for the slots of one that has gone.
    fn with_changes(&self, view: &View) -> Option<Self> {
        let members: Vec<_> = weighty(view).cloned().collect();
        if !is_even(&members) || !is_even(&self.members) {
            return None;
        }
        let place = |of: &[Member], id: &str| of.binary_search_by(|member| member.id.as_str().cmp(id)).ok();
        let all: Vec<_> = members.iter().map(seed).zip(0..).collect();
        let has_come =
            |&&(_, index): &&(u64, u16)| place(&self.members, &members[usize::from(index)].id).is_none();
        let come: Vec<_> = all.iter().filter(has_come).copied().collect();
        let stay: Vec<_> =
            self.members.iter().map(|member| Some(all[place(&members, &member.id)?])).collect();
        let owner = |(slot, &before): (usize, &u16)| {
            let highest = match stay[usize::from(before)] {
                Some((_, index)) if come.is_empty() => return index,
                Some(stays) => highest(slot, come.iter().chain([&stays])),
                None => highest(slot, &all),
            };
            highest.map_or(0, |(_, Reverse(index))| index)
        };
        let owners = self.slots.owners.iter().enumerate().map(owner).collect();
        Some(Self::new(members, owners))
    }

    /// The owners under another view, if there the same ids have the same weights: then every slot
    /// has the same owner, and nothing is computed.
    pub fn under(&self, view: &View) -> Option<Self> {
        let same = |(one, other): (&Member, &Member)| one.id == other.id && one.weight == other.weight;
        let is_same =
            self.members.len() == weighty(view).count() && self.members.iter().zip(weighty(view)).all(same);
        is_same.then(|| Self { members: weighty(view).cloned().collect(), slots: self.slots.clone() })
    }

    /// Whether both were made of the same: then every slot has the same owner, by its id.
    pub fn has_slots_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.slots, &other.slots)
    }

    /// The owner of a slot; `None` without members.
    pub fn owner(&self, slot: u16) -> Option<&Member> {
        self.members.get(usize::from(self.index(slot)?))
    }

    /// The owner of a slot by its place among the members.
    #[inline]
    pub fn index(&self, slot: u16) -> Option<u16> {
        self.slots.owners.get(usize::from(slot)).copied()
    }

    /// Those who may own slots, in the order of their ids.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The place of a member.
    pub fn position(&self, id: &str) -> Option<u16> {
        self.members.iter().position(|member| member.id == id).map(|index| index as u16)
    }

    /// How many slots a member owns.
    pub fn slots_of(&self, id: &str) -> usize {
        self.position(id).map_or(0, |index| self.slots.counts[usize::from(index)])
    }

    /// The slots of a member, by its place.
    pub fn slots_at(&self, index: u16) -> impl Iterator<Item = u16> {
        let owned = self.slots.owners.iter().enumerate().filter(move |&(_, &owner)| owner == index);
        owned.map(|(slot, _)| slot as u16)
    }

    /// A number that two nodes share when they agree on every owner.
    pub fn digest(&self) -> u64 {
        *self.slots.digest.get_or_init(|| {
            let names =
                self.members.iter().fold(0, |seed, member| xxh3_64_with_seed(member.id.as_bytes(), seed));
            let slots: Vec<u8> = self.slots.owners.iter().flat_map(|owner| owner.to_le_bytes()).collect();
            xxh3_64_with_seed(&slots, names)
        })
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> = self.members.iter().map(|member| member.id.as_str()).collect();
        write!(f, "Owners({members:?}, {:016x})", self.digest())
    }
}

/// Those who may own slots.
fn weighty(view: &View) -> impl Iterator<Item = &Member> {
    view.members.values().filter(|member| member.weight > 0)
}

/// Whether there are members, all of one weight and in the order of their ids, as in every view that a node has made.
fn is_even(members: &[Member]) -> bool {
    !members.is_empty() && members.is_sorted_by(|one, next| one.weight == next.weight && one.id < next.id)
}

/// What a member draws with.
fn seed(member: &Member) -> u64 {
    xxh3_64(member.id.as_bytes())
}

/// The highest draw for a slot, and whose it is: of one weight that is the highest score. Equal ones are as good as
/// impossible; the lower id wins then.
fn highest<'a>(slot: usize, seeds: impl IntoIterator<Item = &'a (u64, u16)>) -> Option<(u64, Reverse<u16>)> {
    seeds.into_iter().map(|&(seed, index)| (draw(seed, slot), Reverse(index))).max()
}

/// What a member draws for a slot, of 52 bits.
fn draw(seed: u64, slot: usize) -> u64 {
    xxh3_64_with_seed(&(slot as u64).to_le_bytes(), seed) >> 12
}

/// A member's score for a slot: `-weight / ln(u)` with `u` even in (0, 1), so that the highest
/// falls to each in proportion to its weight (Schindelhauer and Schomaker, "Weighted
/// Distributed Hash Tables"). libm's logarithm, because the platform's may differ in the last
/// bit from one build to the next.
fn score(draw: u64, weight: f64) -> f64 {
    let u = (draw as f64 + 0.5) / (1_u64 << 52) as f64;
    -weight / libm::log(u)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(weights: impl IntoIterator<Item = u32>) -> View {
        let member = |(number, weight): (usize, u32)| {
            let id = format!("node-{number}");
            let member = Member {
                id: id.clone(),
                incarnation: 1,
                peer_addr: format!("10.0.0.{number}:11212"),
                memcached_addr: format!("10.0.0.{number}:11211"),
                weight,
                zone: String::new(),
            };
            (id, member)
        };
        View { members: weights.into_iter().enumerate().map(member).collect(), ..View::default() }
    }

    fn owners(weights: impl IntoIterator<Item = u32>) -> Owners {
        Owners::of(&view(weights))
    }

    /// Fullest member's share over its fair one.
    fn imbalance(weights: &[u32]) -> f64 {
        let owners = owners(weights.iter().copied());
        let total: u32 = weights.iter().sum();
        let loads = weights.iter().enumerate().map(|(number, &weight)| {
            let fair = SLOTS as f64 * f64::from(weight) / f64::from(total);
            owners.slots_of(&format!("node-{number}")) as f64 / fair
        });
        loads.fold(0.0, f64::max)
    }

    fn moved(before: &Owners, after: &Owners) -> usize {
        let id = |owners: &Owners, slot| owners.owner(slot).map(|member| member.id.clone());
        (0..=u16::MAX).filter(|&slot| id(before, slot) != id(after, slot)).count()
    }

    #[test]
    fn golden_values_hold_on_every_build() {
        assert_eq!(slot(b""), 0x2d06);
        assert_eq!(slot(b"a"), 0xe6c6);
        assert_eq!(slot(b"user:1000"), 0xfb68);
        assert_eq!(owners([100]).digest(), 0x1fdd035c7df1d945);
        assert_eq!(owners([100, 100, 100]).digest(), 0xab8981509cce4302);
        assert_eq!(owners([100, 50, 200, 1]).digest(), 0x00787416d7c70daa);
    }

    #[test]
    fn owners_are_balanced() {
        for (members, most) in [(3, 1.02), (10, 1.04), (100, 1.12), (1_000, 1.50)] {
            let imbalance = imbalance(&vec![100; members]);
            assert!(imbalance < most, "{members} members: {imbalance:.3}");
        }
        for weights in [&[100, 200, 300][..], &[50, 100, 100, 400]] {
            let imbalance = imbalance(weights);
            assert!(imbalance < 1.05, "{weights:?}: {imbalance:.3}");
        }
    }

    #[test]
    fn only_what_must_move_moves() {
        for members in [3, 10, 100] {
            let before = owners(vec![100; members]);
            let after = owners(vec![100; members + 1]);
            // What moves is exactly what the new member owns.
            assert_eq!(moved(&before, &after), after.slots_of(&format!("node-{members}")));
        }
        let before = owners([100, 100, 100]);
        let after = owners([100, 150, 100]);
        assert_eq!(moved(&before, &after), after.slots_of("node-1") - before.slots_of("node-1"));
    }

    #[test]
    fn a_member_without_weight_owns_nothing() {
        let owners = owners([100, 0]);
        assert_eq!(owners.slots_of("node-0"), SLOTS);
        assert_eq!(owners.slots_of("node-1"), 0);
        assert!(Owners::of(&View::default()).owner(7).is_none());
    }

    #[test]
    fn owners_are_the_same_when_ids_and_weights_are() {
        let known = owners([100, 0, 50]);
        let mut again = view([100, 0, 50]);
        again.members.values_mut().for_each(|member| member.incarnation = 2);
        let under = known.under(&again).unwrap();
        assert_eq!(under.digest(), known.digest());
        assert!(under.members().iter().all(|member| member.incarnation == 2));
        assert!(known.under(&view([100, 1, 50])).is_none());
        assert!(known.under(&view([100, 0, 51])).is_none());
        assert!(known.under(&view([100, 0])).is_none());
        assert!(owners([0]).under(&View::default()).unwrap().owner(7).is_none());
    }

    /// Views that follow one another: the weights of nodes by their numbers, 0 for one that is not there.
    #[test]
    fn the_next_owners_are_those_computed_anew() {
        let histories: [&[&[u32]]; 5] = [
            &[
                &[],
                &[1],
                &[1, 1],
                &[1, 1, 1],
                &[1, 0, 1],
                &[0, 1, 1, 1],
                &[2, 2, 2, 2],
                &[0, 0, 5],
                &[0],
                &[3, 3],
            ],
            &[&[1, 1, 1], &[1, 2, 1], &[1, 2, 0], &[1, 0, 1], &[4, 1, 1], &[0, 1, 1], &[1, 1, 0, 1]],
            &[&[1, 2, 1], &[1, 1, 1], &[3, 1, 1, 1], &[1, 1], &[1, 1, 1], &[1, 3], &[2, 2, 2]],
            &[&[1; 40], &[1; 41], &[2; 38], &[1; 70]],
            &[&[0, 1, 0, 1, 0, 1], &[1, 0, 1, 0, 1, 0], &[1, 1, 1, 1, 1, 1], &[0, 0, 0, 0, 0, 1]],
        ];
        for history in histories {
            let mut next = Owners::of(&View::default());
            for weights in history {
                let view = view(weights.iter().copied());
                next = next.next(&view);
                let anew = Owners::of(&view);
                assert_eq!(next.digest(), anew.digest(), "{weights:?} in {history:?}");
                assert_eq!(
                    (&next.slots.owners, &next.slots.counts),
                    (&anew.slots.owners, &anew.slots.counts)
                );
                assert!(next.members().iter().eq(weighty(&view)));
            }
        }
        // Somebody has written into etcd by hand.
        let mut odd = view([1, 1, 1]);
        odd.members.values_mut().next().unwrap().id = "node-9".to_owned();
        for (before, after) in [(&odd, &view([1, 1, 1, 1])), (&view([1, 1]), &odd)] {
            assert_eq!(Owners::of(before).next(after).digest(), Owners::of(after).digest());
        }
    }

    #[test]
    fn a_view_survives_its_json() {
        let view = view([100, 50]);
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<View>(&json).unwrap(), view);
    }
}

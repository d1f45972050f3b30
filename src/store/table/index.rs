//! Where each item lies, by the hash of its key: a cuckoo table in pieces.
//!
//! A piece holds the keys of one range of hashes, in buckets of one cache line. A key has two buckets to lie in; when both
//! are full, a slot of one of them moves to its other bucket. A piece in which that does not help is made anew, about a
//! fifth larger. Pieces are small, so nobody waits for that; and nothing that was put in is ever lost.

use crate::store::table::slot::{Place, Slot, Tag};

/// Slots in a bucket: one cache line.
const BUCKET_SLOTS: usize = 8;

/// Slots that move out of each other's way before a piece grows.
const MOVES_MAX: usize = 48;

/// A piece with less than this part of its slots in use is made smaller: from a quarter to two fifths, another one for each
/// of some pieces. Pieces empty at about the same time, and one operation must not make all of them smaller.
const SHRINK_BELOW: (std::ops::Range<usize>, usize) = (16..26, 64);

/// A piece in which more than this part of the slots is in use grows: to find the last free ones takes too long.
const GROW_ABOVE: (usize, usize) = (19, 20);

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Bucket([Slot; BUCKET_SLOTS]);

impl Bucket {
    const EMPTY: Self = Self([Slot::EMPTY; BUCKET_SLOTS]);

    fn free(&self) -> Option<usize> {
        self.0.iter().position(|slot| slot.is_empty())
    }
}

/// A slot in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    piece: usize,
    bucket: usize,
    slot: usize,
}

/// The slots of one range of hashes.
#[derive(Debug, Default)]
struct Piece {
    buckets: Box<[Bucket]>,
    len: usize,
}

/// The slots of all items of a shard.
#[derive(Debug)]
pub(super) struct Index {
    pieces: Box<[Piece]>,
    len: usize,
    /// Bytes of the pieces and all buckets.
    bytes: usize,
}

impl Index {
    pub(super) fn new(pieces: usize) -> Self {
        let pieces: Box<[_]> = (0..pieces).map(|_| Piece::default()).collect();
        Self { len: 0, bytes: size_of_val(&*pieces), pieces }
    }

    /// Slots in use.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it takes.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slots in use of one piece.
    pub(super) fn slots(&self, piece: usize) -> impl Iterator<Item = Slot> {
        let slots = self.pieces[piece].buckets.iter().flat_map(|bucket| bucket.0);
        slots.filter(|slot| !slot.is_empty())
    }

    #[inline]
    fn piece_of(&self, hash: u64) -> usize {
        ((hash >> 16 & 0xffff) as usize * self.pieces.len()) >> 16
    }

    /// The slot of an item of this hash for which `look` has an answer, and that.
    #[inline]
    pub(super) fn find<T>(&self, hash: u64, look: impl Fn(Slot) -> Option<T>) -> Option<(Position, T)> {
        let (piece, tag) = (self.piece_of(hash), Tag::of(hash));
        let buckets = &*self.pieces[piece].buckets;
        let first = first_bucket(hash, buckets.len());
        let mut bucket = first;
        loop {
            // A piece that has not been used yet has no bucket.
            for (slot, &found) in buckets.get(bucket)?.0.iter().enumerate() {
                if found.has(tag)
                    && let Some(answer) = look(found)
                {
                    return Some((Position { piece, bucket, slot }, answer));
                }
            }
            let other = other_bucket(first, tag, buckets.len());
            if bucket == other {
                return None;
            }
            bucket = other;
        }
    }

    /// Reads from the bucket in which a key of this hash lies first, so that it is near.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u64 {
        let buckets = &*self.pieces[self.piece_of(hash)].buckets;
        buckets.get(first_bucket(hash, buckets.len())).map_or(0, |bucket| bucket.0[0].number())
    }

    #[inline]
    pub(super) fn get(&self, at: Position) -> Slot {
        self.pieces[at.piece].buckets[at.bucket].0[at.slot]
    }

    #[inline]
    pub(super) fn set(&mut self, at: Position, slot: Slot) {
        self.pieces[at.piece].buckets[at.bucket].0[at.slot] = slot;
    }

    /// Makes the pieces that are empty as large as this many items in all pieces will need, so that they need not grow
    /// step by step.
    pub(super) fn expect(&mut self, items: usize) {
        let each = items.div_ceil(self.pieces.len());
        let enough = (each * GROW_ABOVE.1).div_ceil(BUCKET_SLOTS * GROW_ABOVE.0);
        let Some(count) = bucket_counts(enough).next().filter(|_| items > 0) else { return };
        for piece in self.pieces.iter_mut().filter(|piece| piece.len == 0) {
            self.bytes -= piece.bytes();
            piece.buckets = vec![Bucket::EMPTY; count].into();
            self.bytes += piece.bytes();
        }
    }

    /// Puts in a slot; `hash_of` hashes the key of any item that has one, this one included.
    pub(super) fn insert(&mut self, hash: u64, slot: Slot, hash_of: impl Fn(Place) -> u64) {
        let number = self.piece_of(hash);
        let piece = &mut self.pieces[number];
        let before = piece.bytes();
        let crowded = (piece.len + 1) * GROW_ABOVE.1 > piece.slots() * GROW_ABOVE.0;
        let left = if crowded { Err(slot) } else { piece.insert(hash, slot) };
        if let Err(slot) = left {
            *piece = piece.resized(bucket_counts(piece.buckets.len() + 1), Some(slot), &hash_of);
        }
        self.bytes += piece.bytes() - before;
        self.len += 1;
    }

    /// Takes out a slot.
    pub(super) fn remove(&mut self, at: Position, hash_of: impl Fn(Place) -> u64) {
        let piece = &mut self.pieces[at.piece];
        piece.buckets[at.bucket].0[at.slot] = Slot::EMPTY;
        piece.len -= 1;
        self.len -= 1;
        let (least, steps) = (SHRINK_BELOW.0.start, SHRINK_BELOW.0.len());
        if piece.len * SHRINK_BELOW.1 < piece.slots() * (least + at.piece % steps) {
            self.bytes -= piece.bytes();
            let enough = (piece.len * GROW_ABOVE.1).div_ceil(BUCKET_SLOTS * GROW_ABOVE.0);
            *piece = match piece.len {
                0 => Piece::default(),
                _ => piece.resized(bucket_counts(enough + enough / 4), None, &hash_of),
            };
            self.bytes += piece.bytes();
        }
    }
}

impl Piece {
    /// Bytes of its buckets.
    #[inline]
    fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    #[inline]
    fn slots(&self) -> usize {
        self.buckets.len() * BUCKET_SLOTS
    }

    /// Puts in a slot, or gives back one for which there is no place, which may be another.
    fn insert(&mut self, hash: u64, slot: Slot) -> Result<(), Slot> {
        let count = self.buckets.len();
        let first = first_bucket(hash, count);
        let mut bucket = first;
        let mut left = slot;
        for turn in 0..MOVES_MAX {
            if let Some(free) = self.buckets[bucket].free() {
                self.buckets[bucket].0[free] = left;
                self.len += 1;
                return Ok(());
            }
            // The first turn looks at both buckets of the new slot before any other moves.
            if turn > 0 {
                let moving = (turn + hash as usize) % BUCKET_SLOTS;
                left = std::mem::replace(&mut self.buckets[bucket].0[moving], left);
            }
            bucket = other_bucket(bucket, left.tag(), count);
        }
        Err(left)
    }

    /// The first of these numbers of buckets that holds these slots and one more.
    fn resized(
        &self,
        mut counts: impl Iterator<Item = usize>,
        more: Option<Slot>,
        hash_of: impl Fn(Place) -> u64,
    ) -> Self {
        loop {
            let count = counts.next().expect("counts have no end");
            let mut piece = Self { buckets: vec![Bucket::EMPTY; count].into(), len: 0 };
            let slots = self.buckets.iter().flat_map(|bucket| bucket.0).chain(more);
            let mut slots = slots.filter(|slot| !slot.is_empty());
            if slots.all(|slot| piece.insert(hash_of(slot.place()), slot).is_ok()) {
                return piece;
            }
        }
    }
}

#[inline]
fn first_bucket(hash: u64, count: usize) -> usize {
    ((hash >> 48) as usize * count) >> 16
}

/// The other bucket of a slot that lies in this one, by its tag alone.
#[inline]
fn other_bucket(bucket: usize, tag: Tag, count: usize) -> usize {
    let sum = ((tag.number().wrapping_mul(0x9e37_79b9) & 0xffff) as usize * count) >> 16;
    if sum >= bucket { sum - bucket } else { sum + count - bucket }
}

/// Numbers of buckets from the first that is at least so large: four for each doubling, as allocators' sizes are.
fn bucket_counts(least: usize) -> impl Iterator<Item = usize> {
    let step = |count: usize| (count.max(4).ilog2() - 2).min(usize::BITS);
    let next = move |count: &usize| Some(count + (1 << step(*count)));
    std::iter::successors(Some(1), next).skip_while(move |&count| count < least)
}

#[cfg(test)]
impl Index {
    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::table::slot::Accessed;
    use crate::store::table::tests::mixed;

    fn hash(number: usize) -> u64 {
        mixed(number as u64)
    }

    fn hash_of(place: Place) -> u64 {
        match place {
            Place::Large(number) => hash(number),
            Place::Segment(..) => unreachable!(),
        }
    }

    fn slot(number: usize) -> Slot {
        Slot::new(Place::Large(number), hash(number), 1, Accessed::new(0, 0))
    }

    fn find(index: &Index, number: usize) -> Option<Position> {
        let look = |slot: Slot| (slot.place() == Place::Large(number)).then_some(());
        index.find(hash(number), look).map(|(at, ())| at)
    }

    #[test]
    fn items_that_are_expected_have_room() {
        let (mut expecting, mut growing) = (Index::new(4), Index::new(4));
        expecting.expect(10_000);
        let before = expecting.bytes();
        for number in 0..10_000 {
            for index in [&mut expecting, &mut growing] {
                index.insert(hash(number), slot(number), hash_of);
            }
        }
        // A piece that has more than its share may have grown.
        assert!(expecting.bytes() <= before * 5 / 4, "{before} to {}", expecting.bytes());
        assert!(
            expecting.bytes() <= growing.bytes() * 5 / 4,
            "{} and {}",
            expecting.bytes(),
            growing.bytes()
        );
        // What is in use stays as it is.
        expecting.expect(1_000_000);
        assert!((0..10_000).all(|number| find(&expecting, number).is_some()));
    }

    #[test]
    fn buckets_come_in_four_steps_a_doubling() {
        let counts: Vec<_> = bucket_counts(1).take(16).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]);
        assert_eq!(bucket_counts(9).next(), Some(10));
    }

    #[test]
    fn the_other_bucket_of_the_other_bucket_is_the_first() {
        for count in [1, 2, 3, 7, 28, 640] {
            for number in 0..2000 {
                let (first, tag) = (first_bucket(hash(number), count), Tag::of(hash(number)));
                let other = other_bucket(first, tag, count);
                assert!(other < count);
                assert_eq!(other_bucket(other, tag, count), first);
            }
        }
    }

    #[test]
    fn a_million_slots_take_less_than_ten_bytes_each_and_none_is_lost() {
        let mut index = Index::new(256);
        let mut worst = 0.0_f64;
        for number in 0..1_000_000 {
            index.insert(hash(number), slot(number), hash_of);
            if number > 100_000 && number % 1000 == 0 {
                worst = worst.max(index.bytes() as f64 / index.len() as f64);
            }
        }
        assert!((0..1_000_000).all(|number| find(&index, number).is_some()));
        assert!(worst < 10.6, "{worst} bytes for each");
        let counted: usize = (0..index.pieces()).map(|piece| index.slots(piece).count()).sum();
        assert_eq!((index.len(), counted), (1_000_000, 1_000_000));
    }

    proptest! {
        #[test]
        fn the_index_is_a_map(ops in proptest::collection::vec((0..400_usize, 0..3_u8), 1..2000), pieces in 1..4_usize) {
            let mut index = Index::new(pieces);
            let mut model = BTreeMap::new();
            for (number, op) in ops {
                match (find(&index, number), op) {
                    (Some(at), 0) => {
                        index.remove(at, hash_of);
                        model.remove(&number);
                    }
                    (Some(at), 1) => {
                        let used = index.get(at).used();
                        index.set(at, used);
                        model.insert(number, used);
                    }
                    (Some(_), _) => {}
                    (None, _) => {
                        index.insert(hash(number), slot(number), hash_of);
                        model.insert(number, slot(number));
                    }
                }
                let found = find(&index, number).map(|at| index.get(at));
                prop_assert_eq!(found, model.get(&number).copied());
                prop_assert_eq!(index.len(), model.len());
                let buckets: usize = index.pieces.iter().map(|piece| piece.buckets.len()).sum();
                prop_assert_eq!(index.bytes(), buckets * size_of::<Bucket>() + pieces * size_of::<Piece>());
                prop_assert!(buckets <= pieces + 2 * model.len());
            }
            for (number, slot) in &model {
                prop_assert_eq!(find(&index, *number).map(|at| index.get(at)), Some(*slot));
            }
        }
    }
}

//! The memory of one shard: items by key, in the order in which they give way, and what they take.
//!
//! This is the only code that knows how items lie in memory. Who uses it sees an [`Entry`]: facts
//! and a value, both borrowed. Values come as slices, and are copied to where they stay.

mod entry;
mod ghost;
mod header;
mod index;
mod large;
mod memory;
mod pool;
mod queues;
mod reclaim;
mod scan;
mod segment;
mod slot;
mod written;

use std::sync::Arc;

use bytes::Bytes;

use crate::spare;
use crate::store::facts::{Facts, NewValue};
use crate::store::lookup::{KeyHash, Lookup};
use crate::store::table::ghost::Ghost;
use crate::store::table::header::Form;
use crate::store::table::index::{Index, Position};
use crate::store::table::large::{Large, large_bytes};
use crate::store::table::memory::{Memory, Spot};
use crate::store::table::queues::{Queue, Queues, TtlClass, Unit};
use crate::store::table::slot::{Accessed, Place, Slot};
use crate::store::table::written::Writes;

pub(super) use entry::Entry;
pub(super) use pool::Pool;
pub(super) use reclaim::{Gone, Judge};
pub(super) use scan::{Cursor, Swept};
pub(super) use segment::Horizon;
pub(super) use slot::SEGMENTS_MAX;

/// The items of one shard.
pub(super) struct Table {
    index: Index,
    memory: Memory,
    queues: Queues,
    ghost: Ghost,
    writes: Writes,
}

impl Table {
    /// An empty one, whose index has so many pieces.
    pub(super) fn new(hash: KeyHash, pool: Arc<Pool>, pieces: usize) -> Self {
        Self {
            index: Index::new(pieces),
            memory: Memory::new(pool, hash),
            queues: Queues::new(),
            ghost: Ghost::default(),
            writes: Writes::default(),
        }
    }

    /// What is noted about writes.
    #[inline]
    pub(super) fn writes(&mut self) -> &mut Writes {
        &mut self.writes
    }

    /// Makes room in the index for this many items.
    pub(super) fn expect_items(&mut self, items: usize) {
        self.index.expect(items);
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes that items and the structures around them take.
    #[inline]
    pub(super) fn used(&self) -> i64 {
        (self.memory.bytes() + self.index.bytes() + self.ghost.bytes()) as i64
    }

    /// Bytes that a new item would take of the budget: none where it fits into a segment that is being filled.
    pub(super) fn growth(&mut self, facts: &Facts, key_len: usize, value_len: usize) -> usize {
        if !self.memory.fits_segment(key_len, value_len) {
            large_bytes(key_len, value_len)
        } else if self.open_with_room(Queue::Small, facts, key_len, value_len).is_some() {
            0
        } else {
            self.memory.segment_bytes()
        }
    }

    /// Stores a new item; there must be none of this key.
    pub(super) fn insert(&mut self, key: &Lookup<'_>, facts: Facts, value: NewValue<'_>) {
        let queue = if self.ghost.remove(key.hash) { Queue::Main } else { Queue::Small };
        let (place, accessed) = self.store(queue, &facts, key.bytes, &value);
        self.queues.note_newest(place.unit());
        let memory = &self.memory;
        self.index.insert(key.hash, Slot::new(place, key.hash, 0, accessed), |place| memory.hash_of(place));
    }

    /// Removes what lies under a key, if anything does.
    pub(super) fn remove(&mut self, key: &Lookup<'_>) {
        if let Some(entry) = self.find(key) {
            entry.remove();
        }
    }

    fn remove_at(&mut self, at: Position) {
        let place = self.index.get(at).place();
        let memory = &self.memory;
        self.index.remove(at, |place| memory.hash_of(place));
        self.free(place);
    }

    /// Puts an item's bytes somewhere.
    fn store(&mut self, queue: Queue, facts: &Facts, key: &[u8], value: &NewValue<'_>) -> (Place, Accessed) {
        match self.reserve(queue, facts, key.len(), value.len(0)) {
            Some(spot) => {
                let segment = self.memory.segment_mut(spot.segment);
                let (key_bytes, value_bytes) = segment.body_mut(spot.form, spot.at).split_at_mut(key.len());
                key_bytes.copy_from_slice(key);
                value.write(&[], value_bytes);
                (spot.place(), segment.accessed(facts.accessed))
            }
            None => (self.store_large(queue, facts, key.into(), value.alone(&[])), Accessed::new(0, 0)),
        }
    }

    fn store_large(&mut self, queue: Queue, facts: &Facts, key: Box<[u8]>, value: Bytes) -> Place {
        let item = Large { key, value, facts: *facts, queue };
        self.queues.grow(queue, item.bytes());
        let number = self.memory.larges.insert(item);
        self.queues.push(queue, Unit::Large(number));
        Place::Large(number)
    }

    /// Room for an item in a segment, with its header written; `None` where it is too large for one.
    fn reserve(&mut self, queue: Queue, facts: &Facts, key_len: usize, value_len: usize) -> Option<Spot> {
        if !self.memory.fits_segment(key_len, value_len) {
            return None;
        }
        let open = self.open_with_room(queue, facts, key_len, value_len);
        let (number, form) = open.unwrap_or_else(|| {
            let number = self.begin_segment(queue, facts);
            (number, self.memory.segment(number).form(facts, key_len, value_len))
        });
        let at = self.memory.segment_mut(number).append(form, facts);
        Some(Spot { segment: number, at, form })
    }

    /// The segment that is being filled with such items, if one more fits into it, and the form it would have there.
    fn open_with_room(
        &mut self,
        queue: Queue,
        facts: &Facts,
        key_len: usize,
        value_len: usize,
    ) -> Option<(usize, Form)> {
        let number = (*self.queues.open(queue, TtlClass::of(facts)))?;
        let segment = self.memory.segment(number);
        let form = segment.form(facts, key_len, value_len);
        segment.has_room(form).then_some((number, form))
    }

    /// Begins a segment with this item, which is then to be added, and seals the one that was being filled.
    fn begin_segment(&mut self, queue: Queue, first: &Facts) -> usize {
        let class = TtlClass::of(first);
        if let Some(full) = *self.queues.open(queue, class) {
            self.seal(full);
        }
        let number = self.memory.begin_segment(queue, first);
        self.queues.grow(queue, self.memory.segment_bytes());
        *self.queues.open(queue, class) = Some(number);
        number
    }

    /// Adds nothing more to a segment, which takes its place in its queue.
    fn seal(&mut self, number: usize) {
        let segment = self.memory.segment_mut(number);
        segment.open = false;
        let (queue, class) = (segment.queue, segment.class);
        *self.queues.open(queue, class) = None;
        self.queues.push(queue, Unit::Segment(number));
    }

    /// Frees the memory of an item that the index names no more.
    fn free(&mut self, place: Place) {
        match place {
            Place::Segment(number, at) => {
                let segment = self.memory.segment_mut(number);
                segment.remove(at);
                if segment.is_empty() {
                    self.free_segment(number);
                }
            }
            Place::Large(number) => {
                let item = self.memory.larges.remove(number);
                self.queues.remove(item.queue, Unit::Large(number));
                self.queues.shrink(item.queue, item.bytes());
                spare::give(item.value);
            }
        }
    }

    /// Frees a segment that holds no item.
    fn free_segment(&mut self, number: usize) {
        let segment = self.memory.segment(number);
        let (queue, class) = (segment.queue, segment.class);
        if segment.open {
            *self.queues.open(queue, class) = None;
        } else {
            self.queues.remove(queue, Unit::Segment(number));
        }
        self.queues.shrink(queue, self.memory.segment_bytes());
        self.memory.end_segment(number);
    }
}

#[cfg(test)]
mod tests;

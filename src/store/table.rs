//! The memory of one shard: items by key, in the order in which they give way, and what they take.
//!
//! This is the only code that knows how items lie in memory. Who uses it sees an [`Entry`]: facts
//! and a value, both borrowed. Values come as slices, and are copied to where they stay.

mod entry;
mod ghost;
mod group_uses;
mod groups;
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
use crate::store::table::memory::{Memory, Spot, fits_segment};
use crate::store::table::queues::{Line, Queue, Queues, TtlClass, Unit};
use crate::store::table::segment::Begun;
use crate::store::table::slot::{Accessed, Place, Slot};
use crate::store::table::written::Writes;

pub(super) use entry::Entry;
pub use groups::{GroupUse, KeyGroup};
pub(super) use groups::{KeyGroups, Partition};
pub(super) use pool::Pool;
pub(super) use reclaim::{Gone, Judge, Portion};
pub(super) use scan::{Cursor, Swept};
pub(super) use segment::Horizon;
pub(super) use slot::SEGMENTS_MAX;

/// The items of one shard.
pub(super) struct Table {
    index: Index,
    memory: Memory,
    /// By the numbers of partitions.
    partitions: Vec<Queues>,
    ghost: Ghost,
    /// What is taken apart a portion at a time.
    begun: Option<Begun>,
    writes: Writes,
    groups: Arc<KeyGroups>,
    /// By the numbers of groups.
    uses: Vec<GroupUse>,
}

impl Table {
    /// An empty one, whose index has so many pieces.
    pub(super) fn new(hash: KeyHash, groups: Arc<KeyGroups>, pieces: usize) -> Self {
        Self {
            index: Index::new(pieces),
            memory: Memory::new(hash),
            partitions: vec![Queues::new()],
            ghost: Ghost::default(),
            begun: None,
            writes: Writes::default(),
            groups,
            uses: Vec::new(),
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
    pub(super) fn growth(&mut self, facts: &Facts, key: &[u8], value_len: usize) -> usize {
        let line = self.line_of(key, Queue::Small);
        let segment_bytes = self.segment_bytes(line.partition);
        if !fits_segment(segment_bytes, key.len(), value_len) {
            large_bytes(key.len(), value_len)
        } else if self.open_with_room(line, facts, key.len(), value_len).is_some() {
            0
        } else {
            segment_bytes
        }
    }

    /// Stores a new item; there must be none of this key.
    pub(super) fn insert(&mut self, key: &Lookup<'_>, facts: Facts, value: NewValue<'_>) {
        self.insert_used(key, facts, value, 0);
    }

    /// Stores a new item that was used so often elsewhere.
    pub(super) fn insert_used(&mut self, key: &Lookup<'_>, facts: Facts, value: NewValue<'_>, uses: u64) {
        let is_known = self.ghost.remove(key.hash) || uses > 0;
        let queue = if is_known { Queue::Main } else { Queue::Small };
        let line = self.line_of(key.bytes, queue);
        let (place, accessed) = self.store(line, &facts, key.bytes, &value);
        self.queues(line).note_newest(Some(place.unit()));
        let memory = &self.memory;
        self.index
            .insert(key.hash, Slot::new(place, key.hash, uses, accessed), |place| memory.hash_of(place));
        self.note_come(place);
    }

    /// Removes what lies under a key, if anything does.
    pub(super) fn remove(&mut self, key: &Lookup<'_>) {
        if let Some(entry) = self.find(key) {
            entry.remove();
        }
    }

    fn remove_at(&mut self, at: Position) {
        let place = self.index.get(at).place();
        self.note_gone(place);
        let memory = &self.memory;
        self.index.remove(at, |place| memory.hash_of(place));
        self.free(place);
    }

    fn queues(&mut self, line: Line) -> &mut Queues {
        &mut self.partitions[usize::from(line.partition)]
    }

    /// Where an item of a key belongs.
    #[inline]
    fn line_of(&self, key: &[u8], queue: Queue) -> Line {
        let partition = if self.groups.is_empty() { 0 } else { self.groups.partition_of(key) };
        Line { partition: partition as u16, queue }
    }

    /// Bytes of a new segment.
    fn segment_bytes(&self, partition: u16) -> usize {
        self.groups.partition(partition.into()).pool().segment_bytes()
    }

    /// Puts an item's bytes somewhere.
    fn store(&mut self, line: Line, facts: &Facts, key: &[u8], value: &NewValue<'_>) -> (Place, Accessed) {
        match self.reserve(line, facts, key.len(), value.len(0)) {
            Some(spot) => {
                let segment = self.memory.segment_mut(spot.segment);
                let (key_bytes, value_bytes) = segment.body_mut(spot.form, spot.at).split_at_mut(key.len());
                key_bytes.copy_from_slice(key);
                value.write(&[], value_bytes);
                (spot.place(), segment.accessed(facts.accessed))
            }
            None => (self.store_large(line, facts, key.into(), value.alone(&[])), Accessed::new(0, 0)),
        }
    }

    fn store_large(&mut self, line: Line, facts: &Facts, key: Box<[u8]>, value: Bytes) -> Place {
        let item = Large { key, value, facts: *facts, line };
        self.queues(line).grow(line.queue, item.bytes());
        let number = self.memory.larges.insert(item);
        self.queues(line).push(line.queue, Unit::Large(number));
        Place::Large(number)
    }

    /// Room for an item in a segment, with its header written; `None` where it is too large for one.
    fn reserve(&mut self, line: Line, facts: &Facts, key_len: usize, value_len: usize) -> Option<Spot> {
        if !fits_segment(self.segment_bytes(line.partition), key_len, value_len) {
            return None;
        }
        let open = self.open_with_room(line, facts, key_len, value_len);
        let (number, form) = open.unwrap_or_else(|| {
            let number = self.begin_segment(line, facts);
            (number, self.memory.segment(number).form(facts, key_len, value_len))
        });
        let at = self.memory.segment_mut(number).append(form, facts);
        Some(Spot { segment: number, at, form })
    }

    /// The segment that is being filled with such items, if one more fits into it, and the form it would have there.
    fn open_with_room(
        &mut self,
        line: Line,
        facts: &Facts,
        key_len: usize,
        value_len: usize,
    ) -> Option<(usize, Form)> {
        let number = (*self.queues(line).open(line.queue, TtlClass::of(facts)))?;
        let segment = self.memory.segment(number);
        let form = segment.form(facts, key_len, value_len);
        segment.has_room(form).then_some((number, form))
    }

    /// Begins a segment with this item, which is then to be added, and seals the one that was being filled.
    fn begin_segment(&mut self, line: Line, first: &Facts) -> usize {
        let class = TtlClass::of(first);
        if let Some(full) = *self.queues(line).open(line.queue, class) {
            self.seal(full);
        }
        let bytes = self.groups.partition(line.partition.into()).pool().take();
        let len = bytes.len();
        let number = self.memory.begin_segment(bytes, line, first);
        let queues = self.queues(line);
        queues.grow(line.queue, len);
        *queues.open(line.queue, class) = Some(number);
        number
    }

    /// Adds nothing more to a segment, which takes its place in its queue.
    fn seal(&mut self, number: usize) {
        let segment = self.memory.segment_mut(number);
        segment.open = false;
        let (line, class) = (segment.line, segment.class);
        let queues = self.queues(line);
        *queues.open(line.queue, class) = None;
        queues.push(line.queue, Unit::Segment(number));
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
                let queues = self.queues(item.line);
                queues.remove(item.line.queue, Unit::Large(number));
                queues.shrink(item.line.queue, item.bytes());
                spare::give(item.value);
            }
        }
    }

    /// Frees a segment that holds no item.
    fn free_segment(&mut self, number: usize) {
        let segment = self.memory.segment(number);
        let (line, class, is_open) = (segment.line, segment.class, segment.open);
        let bytes = self.memory.end_segment(number);
        self.begun = self.begun.filter(|begun| begun.number != number);
        let queues = self.queues(line);
        if is_open {
            *queues.open(line.queue, class) = None;
        } else {
            queues.remove(line.queue, Unit::Segment(number));
        }
        queues.shrink(line.queue, bytes.len());
        self.groups.partition(line.partition.into()).pool().give(bytes);
    }
}

#[cfg(test)]
mod tests;

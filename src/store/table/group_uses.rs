//! What each group has in one shard.

use std::sync::Arc;

use crate::store::table::Table;
use crate::store::table::groups::{GroupUse, KeyGroups};
use crate::store::table::queues::Queues;
use crate::store::table::slot::Place;

impl Table {
    /// Other groups from now on. Items stay where they lie until they are written, or their turn comes. Where prefixes
    /// differ from those before, all items are counted anew: while this shard is locked, some milliseconds for a hundred
    /// thousand.
    pub(in crate::store) fn set_groups(&mut self, groups: Arc<KeyGroups>) {
        self.partitions.resize_with(groups.partitions(), Queues::new);
        let before = std::mem::replace(&mut self.groups, groups);
        if self.groups.prefixes().eq(before.prefixes()) {
            return;
        }
        let was = |prefix: &[u8]| before.prefixes().position(|other| other == prefix).map(|at| self.uses[at]);
        let counts = self.groups.prefixes().map(|prefix| was(prefix).unwrap_or_default());
        self.uses = counts.map(|counts| GroupUse { items: 0, bytes: 0, ..counts }).collect();
        if self.groups.is_empty() {
            return;
        }
        let (memory, groups, uses) = (&self.memory, &self.groups, &mut self.uses);
        let mut count = |key: &[u8], bytes| {
            if let Some(number) = groups.find(key) {
                come(&mut uses[number], bytes);
            }
        };
        for (_, segment) in memory.segments() {
            segment.items().for_each(|(at, form)| count(segment.key(form, at), form.item_len()));
        }
        memory.larges.iter().for_each(|(_, item)| count(&item.key, item.bytes()));
    }

    /// Whether these are the present groups.
    pub(in crate::store) fn has_groups(&self, groups: &Arc<KeyGroups>) -> bool {
        Arc::ptr_eq(&self.groups, groups)
    }

    /// What the groups have here, by their numbers.
    pub(in crate::store) fn group_uses(&self) -> &[GroupUse] {
        &self.uses
    }

    /// Bytes that a partition takes here. The first has the index, too.
    #[inline]
    pub(in crate::store) fn used_by(&self, partition: usize) -> i64 {
        let of = |queues: &Queues| queues.used() as i64;
        match partition {
            0 => self.used() - self.partitions.iter().skip(1).map(of).sum::<i64>(),
            _ => self.partitions.get(partition).map_or(0, of),
        }
    }

    /// Whether a partition has any item here.
    pub(in crate::store) fn has_items(&self, partition: usize) -> bool {
        self.partitions.get(partition).is_some_and(|queues| queues.used() > 0)
    }

    /// Tells the partitions how they have grown since this was called last.
    pub(in crate::store) fn report_growth(&mut self) {
        for (number, queues) in self.partitions.iter_mut().enumerate().skip(1) {
            let growth = queues.growth();
            if growth != 0 {
                self.groups.partition(number).used_changed(growth);
            }
        }
    }

    /// A partition that is above its bound.
    #[inline]
    pub(in crate::store) fn overfull(&self) -> Option<usize> {
        if self.partitions.len() > 1 { self.groups.overfull() } else { None }
    }

    /// By how many bytes the partition of a key would be above its bound with this many more.
    pub(in crate::store) fn excess(&self, key: &[u8], more: i64) -> i64 {
        match self.groups.partition_of(key) {
            0 => 0,
            number => self.groups.partition(number).missing().saturating_add(more),
        }
    }

    /// Counts a read of a key for its group.
    #[inline]
    pub(in crate::store) fn note_read(&mut self, key: &[u8], hit: bool) {
        if let Some(counts) = self.counts(key) {
            counts.hits += u64::from(hit);
            counts.misses += u64::from(!hit);
        }
    }

    #[inline]
    pub(super) fn note_come(&mut self, place: Place) {
        if let Some((counts, bytes)) = self.counts_of(place) {
            come(counts, bytes);
        }
    }

    #[inline]
    pub(super) fn note_gone(&mut self, place: Place) {
        if let Some((counts, bytes)) = self.counts_of(place) {
            counts.items -= 1;
            counts.bytes -= bytes as u64;
        }
    }

    /// An item lies elsewhere from now on, and still where it lay before.
    #[inline]
    pub(super) fn note_moved(&mut self, from: Place, to: Place) {
        self.note_gone(from);
        self.note_come(to);
    }

    #[inline]
    pub(super) fn note_evicted(&mut self, place: Place) {
        if let Some((counts, _)) = self.counts_of(place) {
            counts.evictions += 1;
        }
    }

    #[inline]
    fn counts(&mut self, key: &[u8]) -> Option<&mut GroupUse> {
        if self.groups.is_empty() {
            return None;
        }
        self.groups.find(key).map(|number| &mut self.uses[number])
    }

    #[inline]
    fn counts_of(&mut self, place: Place) -> Option<(&mut GroupUse, usize)> {
        if self.groups.is_empty() {
            return None;
        }
        let number = self.groups.find(self.memory.key(place))?;
        Some((&mut self.uses[number], self.memory.item_bytes(place)))
    }
}

fn come(counts: &mut GroupUse, bytes: usize) {
    counts.items += 1;
    counts.bytes += bytes as u64;
}

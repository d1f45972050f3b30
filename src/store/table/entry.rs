//! An item that was found: what it says, and what becomes of it.

use bytes::Bytes;

use crate::store::facts::{Facts, LIGHT_MARKS, NewValue};
use crate::store::lookup::Lookup;
use crate::store::table::Table;
use crate::store::table::index::Position;
use crate::store::table::memory::{Item, Spot, fits_segment};
use crate::store::table::queues::{Line, Unit};
use crate::store::table::slot::{Accessed, Place, Slot};

impl Table {
    /// The item under a key.
    #[inline]
    pub(in crate::store) fn find(&mut self, key: &Lookup<'_>) -> Option<Entry<'_>> {
        let look = |slot: Slot| self.memory.look(slot, key.bytes).map(|found| (slot, found));
        let (at, (slot, (item, facts))) = self.index.find(key.hash, look)?;
        Some(Entry { table: self, at, slot, item, facts })
    }
}

/// An item that was found.
pub(in crate::store) struct Entry<'t> {
    table: &'t mut Table,
    at: Position,
    slot: Slot,
    item: Item,
    facts: Facts,
}

impl<'t> Entry<'t> {
    #[inline]
    pub(in crate::store) fn facts(&self) -> &Facts {
        &self.facts
    }

    #[inline]
    pub(in crate::store) fn value(&self) -> &[u8] {
        self.table.memory.value_of(self.item)
    }

    #[inline]
    pub(in crate::store) fn value_len(&self) -> usize {
        match self.item {
            Item::Segment(spot) => spot.form.value_len(),
            Item::Large(_) => self.value().len(),
        }
    }

    /// The value, for as long as the table is borrowed.
    #[inline]
    pub(in crate::store) fn into_value(self) -> &'t [u8] {
        self.table.memory.value_of(self.item)
    }

    /// The value, and the memory in which it lies where that may outlive the item.
    #[inline]
    pub(in crate::store) fn into_shared(self) -> (&'t [u8], Option<&'t Bytes>) {
        match self.item {
            Item::Segment(_) => (self.into_value(), None),
            Item::Large(number) => {
                let value = &self.table.memory.larges.get(number).value;
                (value, Some(value))
            }
        }
    }

    /// How often it was used, as far as that is counted.
    pub(in crate::store) fn uses(&self) -> u64 {
        self.slot.uses()
    }

    /// Counts a read of this key for its group.
    #[inline]
    pub(in crate::store) fn note_hit(&mut self, key: &[u8]) {
        self.table.note_read(key, true);
    }

    /// Counts a use, for which the item stays longer.
    #[inline]
    pub(in crate::store) fn promote(&mut self) {
        self.set_slot(self.slot.used());
    }

    /// Other facts; the value stays as it is.
    #[inline]
    pub(in crate::store) fn update(&mut self, facts: Facts) {
        if facts != self.facts {
            self.set_facts(facts);
        }
    }

    fn set_facts(&mut self, facts: Facts) {
        let before = std::mem::replace(&mut self.facts, facts);
        let spot = match &mut self.item {
            Item::Segment(spot) => spot,
            Item::Large(number) => return self.table.memory.larges.update(*number, facts),
        };
        let segment = self.table.memory.segment_mut(spot.segment);
        let slot = self.slot.with_accessed(segment.accessed(facts.accessed));
        // Most often nothing changes but the time of the last use.
        let marked = Facts { accessed: facts.accessed, stamp: facts.stamp, ..before };
        if marked != facts || (before.stamp ^ facts.stamp) & !LIGHT_MARKS != 0 {
            return self.rewrite(facts, NewValue::Appended(&[]));
        }
        if before.stamp != facts.stamp {
            spot.form = spot.form.with_marks_of(&facts);
            segment.rewrite_form(spot.form, spot.at);
        }
        self.set_slot(slot);
    }

    /// Other facts, and another value, in the same memory where its length allows.
    #[inline]
    pub(in crate::store) fn rewrite(&mut self, facts: Facts, value: NewValue<'_>) {
        self.facts = facts;
        match self.item {
            Item::Segment(spot) => self.rewrite_spot(spot, &facts, value),
            Item::Large(number) => self.rewrite_large(number, &facts, value),
        }
    }

    /// Takes it out.
    pub(in crate::store) fn remove(self) {
        self.table.remove_at(self.at);
    }

    #[inline]
    fn set_slot(&mut self, slot: Slot) {
        if slot != self.slot {
            self.slot = slot;
            self.table.index.set(self.at, slot);
        }
    }

    fn rewrite_spot(&mut self, spot: Spot, facts: &Facts, value: NewValue<'_>) {
        let (key_len, old_len) = (spot.form.key_len(), spot.form.value_len());
        let len = value.len(old_len);
        let segment = self.table.memory.segment_mut(spot.segment);
        if len != old_len && !fits_segment(segment.capacity(), key_len, len) {
            return self.rewrite_elsewhere(facts, value);
        }
        let wanted = segment.form(facts, key_len, len);
        if !spot.form.fits(wanted) {
            return self.relocate(spot, facts, value);
        }
        let form = spot.form.with_marks(wanted);
        segment.rewrite_header(form, spot.at, facts);
        value.overwrite(segment.value_mut(form, spot.at));
        let (accessed, line) = (segment.accessed(facts.accessed), segment.line);
        self.table.queues(line).note_newest(Some(Unit::Segment(spot.segment)));
        self.item = Item::Segment(Spot { form, ..spot });
        self.set_slot(self.slot.with_accessed(accessed));
    }

    fn rewrite_large(&mut self, number: usize, facts: &Facts, value: NewValue<'_>) {
        let large = self.table.memory.larges.get_mut(number);
        if value.len(large.value.len()) == large.value.len() {
            large.overwrite(value);
            let line = large.line;
            self.table.queues(line).note_newest(Some(Unit::Large(number)));
            self.table.memory.larges.update(number, *facts);
        } else {
            let made = value.alone(&large.value);
            self.rebuild(facts, NewValue::Received(&made, &made));
        }
    }

    /// Where the item belongs. Other groups than when it was written may have another place for it.
    fn line(&self) -> Line {
        let place = self.slot.place();
        let queue = self.table.memory.line(place).queue;
        self.table.line_of(self.table.memory.key(place), queue)
    }

    /// Writes the item anew in a segment that is being filled, or alone.
    fn relocate(&mut self, from: Spot, facts: &Facts, value: NewValue<'_>) {
        let (key_len, old_len) = (from.form.key_len(), from.form.value_len());
        let Some(to) = self.table.reserve(self.line(), facts, key_len, value.len(old_len)) else {
            return self.rewrite_elsewhere(facts, value);
        };
        let (old, new) = self.table.memory.bodies(from, to);
        let (key, rest) = new.split_at_mut(key_len);
        key.copy_from_slice(&old[..key_len]);
        value.write(&old[key_len..], rest);
        let accessed = self.table.memory.segment(to.segment).accessed(facts.accessed);
        self.move_to(to.place(), accessed);
    }

    fn rewrite_elsewhere(&mut self, facts: &Facts, value: NewValue<'_>) {
        let made = value.alone(self.value());
        self.rebuild(facts, NewValue::Received(&made, &made));
    }

    /// Stores the item anew, in a segment or alone.
    fn rebuild(&mut self, facts: &Facts, value: NewValue<'_>) {
        let place = self.slot.place();
        let key: Box<[u8]> = self.table.memory.key(place).into();
        let (place, accessed) = self.table.store(self.line(), facts, &key, &value);
        self.move_to(place, accessed);
    }

    /// Lets the index name another place, and frees the one that it named.
    fn move_to(&mut self, place: Place, accessed: Accessed) {
        let before = self.slot.place();
        let line = self.table.memory.line(place);
        self.table.queues(line).note_newest(Some(place.unit()));
        self.table.note_moved(before, place);
        self.item = self.table.memory.item(place);
        self.set_slot(self.slot.moved(place, self.slot.uses(), accessed));
        self.table.free(before);
    }
}

#[cfg(test)]
impl Entry<'_> {
    pub(super) fn place(&self) -> Place {
        self.slot.place()
    }
}

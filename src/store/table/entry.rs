//! An item that was found: what it says, and what becomes of it.

use crate::store::facts::{Facts, MARKS, NewValue};
use crate::store::lookup::Lookup;
use crate::store::table::Table;
use crate::store::table::index::Position;
use crate::store::table::memory::Spot;
use crate::store::table::slot::{Accessed, Place, Slot};

impl Table {
    /// The item under a key.
    #[inline]
    pub(in crate::store) fn find(&mut self, key: &Lookup<'_>) -> Option<Entry<'_>> {
        let at = self.position(key)?;
        let slot = self.index.get(at);
        let home = match slot.place() {
            Place::Segment(segment, at) => Home::Segment(self.memory.spot(segment, at)),
            Place::Large(number) => Home::Large(number),
        };
        let facts = match home {
            Home::Segment(Spot { segment, at, form }) => {
                self.memory.segment(segment).facts(form, at, slot.accessed())
            }
            Home::Large(number) => self.memory.larges.get(number).facts,
        };
        Some(Entry { table: self, at, slot, home, facts })
    }
}

/// Where an item lies.
#[derive(Debug, Clone, Copy)]
enum Home {
    Segment(Spot),
    Large(usize),
}

/// An item that was found.
pub(in crate::store) struct Entry<'t> {
    table: &'t mut Table,
    at: Position,
    slot: Slot,
    home: Home,
    facts: Facts,
}

impl<'t> Entry<'t> {
    #[inline]
    pub(in crate::store) fn facts(&self) -> &Facts {
        &self.facts
    }

    #[inline]
    pub(in crate::store) fn value(&self) -> &[u8] {
        match self.home {
            Home::Segment(Spot { segment, at, form }) => self.table.memory.segment(segment).value(form, at),
            Home::Large(number) => &self.table.memory.larges.get(number).value,
        }
    }

    /// The value, for as long as the table is borrowed.
    #[inline]
    pub(in crate::store) fn into_value(self) -> &'t [u8] {
        match self.home {
            Home::Segment(Spot { segment, at, form }) => self.table.memory.segment(segment).value(form, at),
            Home::Large(number) => &self.table.memory.larges.get(number).value,
        }
    }

    /// Counts a use, for which the item stays longer.
    #[inline]
    pub(in crate::store) fn promote(&mut self) {
        self.set_slot(self.slot.used());
    }

    /// Other facts; the value stays as it is.
    #[inline]
    pub(in crate::store) fn update(&mut self, facts: Facts) {
        let before = std::mem::replace(&mut self.facts, facts);
        match self.home {
            Home::Segment(Spot { segment, at, form }) => {
                let segment = self.table.memory.segment_mut(segment);
                self.slot = self.slot.with_accessed(segment.accessed(facts.accessed));
                self.table.index.set(self.at, self.slot);
                // Most often nothing changes but the time of the last use.
                if (Facts { accessed: before.accessed, ..facts }) != before {
                    let marked = Facts { accessed: facts.accessed, stamp: facts.stamp, ..before };
                    if marked == facts && (before.stamp ^ facts.stamp) & !MARKS == 0 {
                        let form = form.with_marks_of(&facts);
                        segment.rewrite_form(form, at);
                        self.home = Home::Segment(Spot { form, ..self.spot() });
                    } else {
                        self.rewrite(facts, NewValue::Appended(&[]));
                    }
                }
            }
            Home::Large(number) => self.table.memory.larges.update(number, facts),
        }
    }

    /// Other facts, and another value, in the same memory where its length allows.
    pub(in crate::store) fn rewrite(&mut self, facts: Facts, value: NewValue<'_>) {
        self.facts = facts;
        match self.home {
            Home::Segment(spot) => self.rewrite_spot(spot, &facts, value),
            Home::Large(number) => {
                let old = &mut self.table.memory.larges.get_mut(number).value;
                if value.len(old.len()) == old.len() {
                    overwrite(old, value);
                    self.table.memory.larges.update(number, facts);
                } else {
                    let value = value.made_of(old);
                    self.rebuild(&facts, &value);
                }
            }
        }
    }

    fn spot(&self) -> Spot {
        match self.home {
            Home::Segment(spot) => spot,
            Home::Large(_) => unreachable!("it lies in a segment"),
        }
    }

    #[inline]
    fn set_slot(&mut self, slot: Slot) {
        if slot != self.slot {
            self.slot = slot;
            self.table.index.set(self.at, slot);
        }
    }

    fn rewrite_spot(&mut self, spot: Spot, facts: &Facts, value: NewValue<'_>) {
        let key_len = spot.form.key_len();
        let len = value.len(spot.form.value_len());
        if self.table.memory.fits_segment(key_len, len) {
            let segment = self.table.memory.segment_mut(spot.segment);
            let wanted = segment.form(facts, key_len, len);
            if spot.form.fits(wanted) {
                let form = spot.form.with_marks(wanted);
                segment.rewrite_header(form, spot.at, facts);
                overwrite(segment.value_mut(form, spot.at), value);
                let accessed = segment.accessed(facts.accessed);
                self.home = Home::Segment(Spot { form, ..spot });
                self.set_slot(self.slot.with_accessed(accessed));
            } else {
                self.relocate(spot, facts, value);
            }
        } else {
            let segment = self.table.memory.segment(spot.segment);
            let value = value.made_of(segment.value(spot.form, spot.at));
            self.rebuild(facts, &value);
        }
    }

    /// Writes the item anew in a segment that is being filled.
    fn relocate(&mut self, from: Spot, facts: &Facts, value: NewValue<'_>) {
        let queue = self.table.memory.segment(from.segment).queue;
        let (key_len, old_len) = (from.form.key_len(), from.form.value_len());
        let to = self.table.reserve(queue, facts, key_len, value.len(old_len)).expect("it was seen to fit");
        let memory = &mut self.table.memory;
        let old = key_len..key_len + old_len;
        memory.copy(from, 0..key_len, to, 0);
        let (bytes, at) = match value {
            NewValue::Bytes(bytes) | NewValue::Padded(bytes) => (bytes, 0),
            NewValue::Appended(bytes) => {
                memory.copy(from, old, to, key_len);
                (bytes, old_len)
            }
            NewValue::Prepended(bytes) => {
                memory.copy(from, old, to, key_len + bytes.len());
                (bytes, 0)
            }
        };
        let segment = memory.segment_mut(to.segment);
        segment.value_mut(to.form, to.at)[at..at + bytes.len()].copy_from_slice(bytes);
        if let NewValue::Padded(_) = value {
            segment.value_mut(to.form, to.at)[bytes.len()..].fill(b' ');
        }
        let accessed = segment.accessed(facts.accessed);
        self.move_to(Home::Segment(to), accessed);
    }

    /// Stores the item anew, in a segment or alone.
    fn rebuild(&mut self, facts: &Facts, value: &[u8]) {
        let place = self.slot.place();
        let key: Box<[u8]> = self.table.memory.key(place).into();
        let queue = match place {
            Place::Segment(segment, _) => self.table.memory.segment(segment).queue,
            Place::Large(number) => self.table.memory.larges.get(number).queue,
        };
        let (place, accessed) = self.table.store(queue, facts, &key, value);
        let home = match place {
            Place::Segment(segment, at) => Home::Segment(self.table.memory.spot(segment, at)),
            Place::Large(number) => Home::Large(number),
        };
        self.move_to(home, accessed);
    }

    /// Lets the index name another home, and frees the one that it named.
    fn move_to(&mut self, home: Home, accessed: Accessed) {
        let place = match home {
            Home::Segment(spot) => spot.place(),
            Home::Large(number) => Place::Large(number),
        };
        let before = self.slot.place();
        self.table.queues.note_newest(place.unit());
        self.home = home;
        self.set_slot(self.slot.moved(place, self.slot.uses(), accessed));
        self.table.free(before);
    }
}

/// Writes a value over one of the same length.
fn overwrite(old: &mut [u8], value: NewValue<'_>) {
    match value {
        NewValue::Bytes(bytes) => old.copy_from_slice(bytes),
        NewValue::Padded(bytes) => {
            let (front, rest) = old.split_at_mut(bytes.len());
            front.copy_from_slice(bytes);
            rest.fill(b' ');
        }
        // Nothing was added, or the length would be another.
        NewValue::Appended(_) | NewValue::Prepended(_) => {}
    }
}

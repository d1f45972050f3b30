//! A segment: items one behind the other, in the order in which they were written.

use crate::clock::Seconds;
use crate::store::facts::{Facts, MARKS};
use crate::store::generation::is_older;
use crate::store::table::header::{Base, Form};
use crate::store::table::queues::{Line, TtlClass};
use crate::store::table::slot::Accessed;

/// What is dead at a moment for any key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Horizon {
    pub(in crate::store) now: Seconds,
    /// The stamp, without marks, of the oldest generation that counts.
    pub(in crate::store) floor: u32,
}

/// Bounds of what the items in a segment, or an item alone, end by. They hold for all items that were written into it, and
/// are made anew by a sweep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// None ends before this.
    first: Seconds,
    /// All end by then; [`Seconds::MAX`] is never.
    last: Seconds,
    oldest: u32,
    newest: u32,
}

impl Ends {
    pub(super) fn of(facts: &Facts) -> Self {
        let generation = facts.stamp & !MARKS;
        let ends = if facts.exptime == 0 { Seconds::MAX } else { facts.exptime };
        Self { first: ends, last: ends, oldest: generation, newest: generation }
    }

    pub(super) fn add(&mut self, facts: &Facts) {
        let other = Self::of(facts);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        if is_older(other.oldest, self.oldest) {
            self.oldest = other.oldest;
        }
        if is_older(self.newest, other.newest) {
            self.newest = other.newest;
        }
    }

    /// No item ends before this.
    pub(super) fn first(&self) -> Seconds {
        self.first
    }

    /// Whether some item may be dead.
    pub(super) fn may_be_dead(&self, horizon: Horizon) -> bool {
        self.first <= horizon.now || is_older(self.oldest, horizon.floor)
    }

    /// Whether all are.
    pub(super) fn are_dead(&self, horizon: Horizon) -> bool {
        self.last <= horizon.now || is_older(self.newest, horizon.floor)
    }
}

/// Why a unit is taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// Everything in it is dead, or it is mostly empty: what lives stays.
    Waste,
    /// Its turn has come: what was used stays.
    Turn,
    /// Its turn has come, and there is no time for more: nothing stays.
    Force,
}

/// A segment of which a portion was taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) number: usize,
    /// Where its next item may lie.
    pub(super) next: usize,
    pub(super) reason: Reason,
    /// When nothing else in its shard was dead as a whole.
    pub(super) horizon: Horizon,
}

/// A segment that is in use.
#[derive(Debug)]
pub(super) struct Segment {
    bytes: Box<[u8]>,
    /// Where the next item goes.
    len: usize,
    /// Bytes of items that were removed.
    dead: usize,
    base: Base,
    begun: Seconds,
    ends: Ends,
    pub(super) line: Line,
    pub(super) class: TtlClass,
    /// Whether items are still added to it.
    pub(super) open: bool,
    /// Whether a portion of it was taken apart. What is left gives way in its turn, and is not spared as waste.
    pub(super) reclaiming: bool,
}

impl Segment {
    /// One that is begun with this item, which is then added.
    pub(super) fn new(bytes: Box<[u8]>, line: Line, first: &Facts) -> Self {
        Self {
            bytes,
            len: 0,
            dead: 0,
            base: Base::of(first),
            begun: first.accessed,
            ends: Ends::of(first),
            line,
            class: TtlClass::of(first),
            open: true,
            reclaiming: false,
        }
    }

    /// Bytes for items, used or not.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_bytes(self) -> Box<[u8]> {
        self.bytes
    }

    /// The form that an item would have here.
    pub(super) fn form(&self, facts: &Facts, key_len: usize, value_len: usize) -> Form {
        Form::new(facts, self.base, key_len, value_len)
    }

    pub(super) fn has_room(&self, form: Form) -> bool {
        self.len + form.item_len() <= self.bytes.len()
    }

    /// Writes the header of a new item, for which there must be room; returns where it lies. Its key and value are
    /// to be written next.
    pub(super) fn append(&mut self, form: Form, facts: &Facts) -> usize {
        let at = self.len;
        self.len += form.item_len();
        form.write_header(&mut self.bytes[at..], facts, self.base);
        self.ends.add(facts);
        at
    }

    #[inline]
    pub(super) fn form_at(&self, at: usize) -> Form {
        Form::read(&self.bytes[at..])
    }

    #[inline]
    pub(super) fn facts(&self, form: Form, at: usize, accessed: Accessed) -> Facts {
        form.facts(&self.bytes[at..], self.base, self.last_use(accessed))
    }

    #[inline]
    pub(super) fn accessed(&self, at: Seconds) -> Accessed {
        Accessed::new(at, self.begun)
    }

    /// What [`Segment::accessed`] was made of.
    #[inline]
    pub(super) fn last_use(&self, accessed: Accessed) -> Seconds {
        accessed.seconds(self.begun)
    }

    #[inline]
    pub(super) fn key(&self, form: Form, at: usize) -> &[u8] {
        let from = at + form.header_len();
        &self.bytes[from..from + form.key_len()]
    }

    #[inline]
    pub(super) fn value(&self, form: Form, at: usize) -> &[u8] {
        let from = at + form.header_len() + form.key_len();
        &self.bytes[from..from + form.value_len()]
    }

    /// Everything behind the header of an item.
    pub(super) fn body(&self, form: Form, at: usize) -> &[u8] {
        &self.bytes[at + form.header_len()..at + form.item_len()]
    }

    pub(super) fn body_mut(&mut self, form: Form, at: usize) -> &mut [u8] {
        &mut self.bytes[at + form.header_len()..at + form.item_len()]
    }

    pub(super) fn value_mut(&mut self, form: Form, at: usize) -> &mut [u8] {
        &mut self.body_mut(form, at)[form.key_len()..]
    }

    /// The bodies of two items, the second of which lies behind the first.
    pub(super) fn bodies(&mut self, old: (Form, usize), new: (Form, usize)) -> (&[u8], &mut [u8]) {
        let body = |(form, at): (Form, usize)| at + form.header_len()..at + form.item_len();
        let (front, back) = self.bytes.split_at_mut(new.1);
        (&front[body(old)], &mut back[body((new.0, 0))])
    }

    /// Other facts for an item whose new form fits its old one.
    pub(super) fn rewrite_header(&mut self, form: Form, at: usize, facts: &Facts) {
        form.write_header(&mut self.bytes[at..], facts, self.base);
        self.ends.add(facts);
    }

    /// Other marks for an item, and nothing else.
    #[inline]
    pub(super) fn rewrite_form(&mut self, form: Form, at: usize) {
        form.write(&mut self.bytes[at..]);
    }

    /// Marks an item as removed.
    pub(super) fn remove(&mut self, at: usize) {
        let form = self.form_at(at);
        debug_assert!(!form.is_dead());
        form.dead().write(&mut self.bytes[at..]);
        self.dead += form.item_len();
    }

    /// Whether all of its items were removed.
    pub(super) fn is_empty(&self) -> bool {
        self.dead == self.len
    }

    /// Bytes of the items that were not removed.
    pub(super) fn live_bytes(&self) -> usize {
        self.len - self.dead
    }

    /// Bytes of the items that were removed.
    pub(super) fn dead_bytes(&self) -> usize {
        self.dead
    }

    pub(super) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// What a sweep has found the items to end by.
    pub(super) fn set_ends(&mut self, ends: Ends) {
        self.ends = ends;
    }

    /// The items that were not removed: where they lie, and their forms.
    pub(super) fn items(&self) -> impl Iterator<Item = (usize, Form)> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let (at, form) = self.next(from)?;
            from = at + form.item_len();
            Some((at, form))
        })
    }

    /// The item that lies at this place or behind it and was not removed.
    pub(super) fn next(&self, mut at: usize) -> Option<(usize, Form)> {
        while at < self.len {
            let form = self.form_at(at);
            if !form.is_dead() {
                return Some((at, form));
            }
            at += form.item_len();
        }
        None
    }
}

//! What is done to all items of a table, piece by piece, so that nobody waits for all of it.

use std::ops::ControlFlow;

use crate::clock::Seconds;
use crate::store::facts::{Dead, FETCHED, Facts};
use crate::store::table::Table;
use crate::store::table::queues::{Queues, Unit};
use crate::store::table::segment::{Ends, Horizon};
use crate::store::table::slot::{Place, Slot};

/// Large items that a sweep looks at in one step.
const LARGE_STEP: usize = 256;

/// Where a sweep goes on: segments first, then large items.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::store) struct Cursor {
    segment: usize,
    large: usize,
}

/// What a step of a sweep saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::store) struct Swept {
    pub(in crate::store) checked: u64,
    pub(in crate::store) dropped: u64,
    /// Of those, the expired ones that nobody had asked for.
    pub(in crate::store) expired_unfetched: u64,
}

impl Table {
    /// One step of a sweep: drops what `dead` says is dead in the next segment in which something may be, or in any with `all`,
    /// or of some large items. `None` at the end.
    pub(in crate::store) fn sweep(
        &mut self,
        cursor: &mut Cursor,
        horizon: Horizon,
        all: bool,
        dead: impl Fn(&[u8], &Facts) -> Option<Dead>,
    ) -> Option<Swept> {
        let due = |ends: &Ends| all || ends.may_be_dead(horizon);
        while cursor.segment < self.memory.numbers() {
            let number = cursor.segment;
            cursor.segment += 1;
            if self.memory.find_segment(number).is_some_and(|segment| due(segment.ends())) {
                return Some(self.sweep_segment(number, dead));
            }
        }
        let numbers = cursor.large..self.memory.larges.numbers().min(cursor.large + LARGE_STEP);
        if numbers.is_empty() || (cursor.large == 0 && !all && self.memory.larges.next_end() > horizon.now) {
            return None;
        }
        cursor.large = numbers.end;
        let swept = self.sweep_larges(numbers, dead);
        if cursor.large == self.memory.larges.numbers() {
            self.memory.larges.find_next_end();
        }
        Some(swept)
    }

    fn sweep_segment(&mut self, number: usize, dead: impl Fn(&[u8], &Facts) -> Option<Dead>) -> Swept {
        let mut swept = Swept::default();
        let mut ends: Option<Ends> = None;
        let mut next = 0;
        while let Some((at, form)) = self.memory.find_segment(number).and_then(|segment| segment.next(next)) {
            next = at + form.item_len();
            swept.checked += 1;
            let segment = self.memory.segment(number);
            // The time of the last use, which the index has, makes nothing dead.
            let facts = segment.facts(form, at, segment.accessed(0));
            match dead(segment.key(form, at), &facts) {
                Some(why) => self.drop_dead(Place::Segment(number, at), why, &facts, &mut swept),
                None => match &mut ends {
                    Some(ends) => ends.add(&facts),
                    None => ends = Some(Ends::of(&facts)),
                },
            }
        }
        if let (Some(ends), Some(_)) = (ends, self.memory.find_segment(number)) {
            self.memory.segment_mut(number).set_ends(ends);
        }
        swept
    }

    fn sweep_larges(
        &mut self,
        numbers: std::ops::Range<usize>,
        dead: impl Fn(&[u8], &Facts) -> Option<Dead>,
    ) -> Swept {
        let mut swept = Swept::default();
        for number in numbers {
            let Some(item) = self.memory.larges.find(number) else { continue };
            swept.checked += 1;
            let facts = item.facts;
            if let Some(why) = dead(&item.key, &facts) {
                self.drop_dead(Place::Large(number), why, &facts, &mut swept);
            }
        }
        swept
    }

    fn drop_dead(&mut self, place: Place, why: Dead, facts: &Facts, swept: &mut Swept) {
        swept.dropped += 1;
        swept.expired_unfetched += u64::from(why == Dead::Expired && !facts.is(FETCHED));
        let (position, _) = self.locate(place, self.memory.hash_of(place));
        self.remove_at(position);
    }

    /// When the item was used last that was not used for longest, of those that give way next.
    pub(in crate::store) fn oldest(&self) -> Option<Seconds> {
        let accessed = |place| {
            let (_, slot) = self.locate(place, self.memory.hash_of(place));
            self.memory.facts(slot).accessed
        };
        let of_unit = |unit| match unit {
            Unit::Large(number) => Some(self.memory.larges.get(number).facts.accessed),
            Unit::Segment(number) => {
                let items = self.memory.segment(number).items();
                items.map(|(at, _)| accessed(Place::Segment(number, at))).min()
            }
        };
        let units = |queues: &Queues| -> Vec<Unit> {
            queues.oldest().chain(queues.opened().map(Unit::Segment)).collect()
        };
        self.partitions.iter().flat_map(units).filter_map(of_unit).min()
    }

    /// Bytes of all items, each with its slot in the index.
    pub(in crate::store) fn item_bytes(&self) -> usize {
        let segments: usize = self.memory.segments().map(|(_, segment)| segment.live_bytes()).sum();
        segments + self.memory.larges.bytes() + self.index.len() * size_of::<Slot>()
    }

    /// Bytes of the index.
    pub(in crate::store) fn index_bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Shows key, facts, value and uses of every item in one piece of the index.
    pub(in crate::store) fn walk(&self, piece: usize, mut show: impl FnMut(&[u8], &Facts, &[u8], u64)) {
        for slot in self.index.slots(piece) {
            let place = slot.place();
            show(self.memory.key(place), &self.memory.facts(slot), self.memory.value(place), slot.uses());
        }
    }

    /// Takes items of one piece of the index out: of those whose last use and number of uses are `wanted`, which the index has,
    /// the ones for which `take` says so. It ends with the first for which that breaks off.
    pub(in crate::store) fn take_out(
        &mut self,
        piece: usize,
        mut wanted: impl FnMut(Seconds, u64) -> bool,
        mut take: impl FnMut(&[u8], &Facts, &[u8], u64) -> ControlFlow<(), bool>,
    ) {
        let mut taken = Vec::new();
        for slot in self.index.slots(piece).filter(|slot| wanted(self.memory.accessed(*slot), slot.uses())) {
            let place = slot.place();
            let (key, value) = (self.memory.key(place), self.memory.value(place));
            match take(key, &self.memory.facts(slot), value, slot.uses()) {
                ControlFlow::Continue(true) => taken.push(place),
                ControlFlow::Continue(false) => {}
                ControlFlow::Break(()) => break,
            }
        }
        for place in taken {
            let (position, _) = self.locate(place, self.memory.hash_of(place));
            self.remove_at(position);
        }
    }
}

//! Making room: which unit gives way, and what of it stays.

use bytes::Bytes;

use crate::store::facts::{Dead, Facts};
use crate::store::table::Table;
use crate::store::table::index::Position;
use crate::store::table::memory::Spot;
use crate::store::table::queues::{Line, Queue, Queues, Unit};
use crate::store::table::segment::{Begun, Ends, Horizon, Reason, Segment};
use crate::store::table::slot::{Accessed, Place, Slot};

/// Items whose memory is fetched together.
const GROUP: usize = 16;

/// An item that goes.
pub(in crate::store) struct Gone<'a> {
    pub(in crate::store) key: &'a [u8],
    pub(in crate::store) facts: &'a Facts,
    pub(in crate::store) value_len: usize,
    /// `None` where it was alive.
    pub(in crate::store) why: Option<Dead>,
}

/// Says what is dead, and is told what goes.
pub(in crate::store) trait Judge {
    /// Why an item is dead, if it is.
    fn dead(&self, key: &[u8], facts: &Facts) -> Option<Dead>;

    /// An item goes.
    fn gone(&mut self, item: Gone<'_>);
}

/// How much is taken apart at once.
#[derive(Debug)]
pub(in crate::store) struct Portion {
    pub(in crate::store) horizon: Horizon,
    /// Whether nothing is spared whose turn it is.
    pub(in crate::store) force: bool,
    /// Items that may still be looked at.
    pub(in crate::store) most: usize,
}

impl Table {
    /// Takes apart the unit of a partition whose turn it is; how many bytes were looked at. `None` when there is none.
    pub(in crate::store) fn reclaim(
        &mut self,
        partition: usize,
        portion: &mut Portion,
        judge: &mut impl Judge,
    ) -> Option<usize> {
        let unit = self.next_unit(partition)?;
        let reason = if portion.force { Reason::Force } else { Reason::Turn };
        Some(self.take_apart(unit, 0, reason, portion, judge))
    }

    /// Takes apart a unit whose items are all dead, or a segment of which one `part`-th or more was removed; with `only`,
    /// of that partition. No item that lives goes. How many bytes were looked at; `None` when there is none.
    pub(in crate::store) fn reclaim_waste(
        &mut self,
        only: Option<usize>,
        part: usize,
        portion: &mut Portion,
        judge: &mut impl Judge,
    ) -> Option<usize> {
        let unit = self.dead_unit(portion.horizon, only).or_else(|| self.sparse_segment(only, part))?;
        Some(self.take_apart(unit, 0, Reason::Waste, portion, judge))
    }

    /// Goes on with the segment that was begun last, unless something has died as a whole since: then with that. How many
    /// bytes were looked at; `None` when none was begun of this partition, or it was just written to.
    pub(in crate::store) fn reclaim_begun(
        &mut self,
        partition: usize,
        portion: &mut Portion,
        judge: &mut impl Judge,
    ) -> Option<usize> {
        let begun = self.begun.filter(|_| self.has_begun(partition))?;
        if self.partitions[partition].is_newest(Unit::Segment(begun.number)) {
            return None;
        }
        if begun.horizon != portion.horizon
            && let Some(unit) = self.dead_unit(portion.horizon, None)
        {
            return Some(self.take_apart(unit, 0, Reason::Waste, portion, judge));
        }
        let reason = match begun.reason {
            Reason::Waste => Reason::Waste,
            Reason::Turn | Reason::Force if portion.force => Reason::Force,
            Reason::Turn | Reason::Force => Reason::Turn,
        };
        Some(self.take_apart(Unit::Segment(begun.number), begun.next, reason, portion, judge))
    }

    /// Whether a segment of this partition was begun and is still there.
    pub(in crate::store) fn has_begun(&self, partition: usize) -> bool {
        self.begun.is_some_and(|begun| is_in(self.memory.segment(begun.number).line, Some(partition)))
    }

    /// A unit whose items are all dead.
    pub(super) fn dead_unit(&mut self, horizon: Horizon, only: Option<usize>) -> Option<Unit> {
        let dead = |line: Line, ends: &Ends| ends.are_dead(horizon) && is_in(line, only);
        let segment = self.memory.segments().find(|(_, segment)| dead(segment.line, segment.ends()));
        if let Some((number, _)) = segment {
            return Some(Unit::Segment(number));
        }
        if self.memory.larges.next_end() > horizon.now {
            return None;
        }
        let number = self.memory.larges.iter().find(|(_, item)| dead(item.line, &item.ends()));
        let number = number.map(|(number, _)| number);
        if number.is_none() {
            self.memory.larges.find_next_end();
        }
        number.map(Unit::Large)
    }

    /// The segment from which most was removed, if that is worth the work.
    fn sparse_segment(&self, only: Option<usize>, part: usize) -> Option<Unit> {
        let is_whole = |segment: &Segment| !segment.open && !segment.reclaiming;
        let sealed =
            self.memory.segments().filter(|(_, segment)| is_whole(segment) && is_in(segment.line, only));
        let (number, segment) = sealed.max_by_key(|(_, segment)| segment.dead_bytes())?;
        (segment.dead_bytes() * part >= segment.capacity()).then_some(Unit::Segment(number))
    }

    fn next_unit(&mut self, partition: usize) -> Option<Unit> {
        let next = |table: &Self| table.partitions.get(partition).and_then(Queues::next);
        next(self).or_else(|| {
            let open: Vec<usize> = self.partitions.get(partition)?.opened().collect();
            open.into_iter().for_each(|number| self.seal(number));
            next(self)
        })
    }

    /// What was written last here may give way, too.
    pub(in crate::store) fn spare_nothing(&mut self) {
        self.partitions.iter_mut().for_each(|queues| queues.note_newest(None));
    }

    /// Takes a unit apart, a segment from this place on.
    fn take_apart(
        &mut self,
        unit: Unit,
        from: usize,
        reason: Reason,
        portion: &mut Portion,
        judge: &mut impl Judge,
    ) -> usize {
        let bytes = match unit {
            Unit::Segment(number) => self.take_segment_apart(number, from, reason, portion, judge),
            Unit::Large(number) => {
                let bytes = self.memory.larges.get(number).bytes();
                self.take_large(number, reason, judge);
                portion.most = portion.most.saturating_sub(1);
                bytes
            }
        };
        self.ghost.fit(self.index.len());
        bytes
    }

    /// The memory of the segment is free when its last item has gone.
    fn take_segment_apart(
        &mut self,
        number: usize,
        from: usize,
        reason: Reason,
        portion: &mut Portion,
        judge: &mut impl Judge,
    ) -> usize {
        if self.memory.segment(number).open {
            self.seal(number);
        }
        let end = self.memory.segment(number).capacity();
        let mut group = [(0, 0); GROUP];
        let mut next = from;
        while portion.most > 0 {
            // The memory for several is fetched at once, and nobody waits for one after the other.
            let mut found = 0;
            while found < GROUP.min(portion.most)
                && let Some((at, form)) = self.memory.segment(number).next(next)
            {
                next = at + form.item_len();
                let hash = self.memory.hash_of(Place::Segment(number, at));
                group[found] = (at, hash);
                found += 1;
                std::hint::black_box(self.index.touch(hash) ^ self.ghost.touch(hash));
            }
            assert!(found > 0, "a segment that is in use holds something");
            portion.most = portion.most.saturating_sub(found);
            for &(at, hash) in &group[..found] {
                let spot = self.memory.spot(number, at);
                let is_last = self.memory.segment(number).live_bytes() == spot.form.item_len();
                let (position, slot) = self.locate(spot.place(), hash);
                match self.judge(slot, hash, reason, judge) {
                    None => self.remove_at(position),
                    Some((queue, uses)) => self.carry(spot, position, slot, queue, uses),
                }
                if is_last {
                    return end - from;
                }
            }
        }
        self.memory.segment_mut(number).reclaiming = true;
        self.begun = Some(Begun { number, next, reason, horizon: portion.horizon });
        next - from
    }

    /// The queue and the uses with which an item stays; `None` when it goes.
    fn judge(
        &mut self,
        slot: Slot,
        hash: u64,
        reason: Reason,
        judge: &mut impl Judge,
    ) -> Option<(Queue, u64)> {
        let place = slot.place();
        let key = self.memory.key(place);
        let (facts, value_len) = (self.memory.facts(slot), self.memory.value_len(place));
        let why = judge.dead(key, &facts);
        let queue = self.memory.line(place).queue;
        let stays = match (why, reason, queue) {
            (Some(_), ..) | (None, Reason::Force, _) => None,
            (None, Reason::Waste, queue) => Some((queue, slot.uses())),
            (None, Reason::Turn, Queue::Small) => {
                (slot.uses() >= self.uses_to_stay(key.len() + value_len)).then_some((Queue::Main, 0))
            }
            (None, Reason::Turn, Queue::Main) => slot.uses().checked_sub(1).map(|uses| (Queue::Main, uses)),
        };
        if stays.is_none() {
            judge.gone(Gone { key, facts: &facts, value_len, why });
            if why.is_none() {
                self.note_evicted(place);
                if queue == Queue::Small {
                    self.ghost.insert(hash);
                }
            }
        }
        stays
    }

    /// Uses in the small queue for which an item of this size moves to the main one: a small item costs little.
    fn uses_to_stay(&self, bytes: usize) -> u64 {
        let usual = self.memory.bytes() / self.index.len().max(1);
        if bytes < usual / 2 {
            1
        } else if bytes <= 4 * usual {
            2
        } else {
            3
        }
    }

    /// Writes an item anew into a segment that is being filled.
    fn carry(&mut self, from: Spot, position: Position, slot: Slot, queue: Queue, uses: u64) {
        let facts = self.memory.facts(slot);
        let (key_len, value_len) = (from.form.key_len(), from.form.value_len());
        let line = self.line_of(self.memory.key(from.place()), queue);
        let (place, accessed) = match self.reserve(line, &facts, key_len, value_len) {
            Some(to) => {
                let (old, new) = self.memory.bodies(from, to);
                new.copy_from_slice(old);
                (to.place(), self.memory.segment(to.segment).accessed(facts.accessed))
            }
            // Segments are smaller where it belongs by now.
            None => {
                let (key, value) =
                    self.memory.segment(from.segment).body(from.form, from.at).split_at(key_len);
                let (key, value) = (key.into(), Bytes::copy_from_slice(value));
                (self.store_large(line, &facts, key, value), Accessed::new(0, 0))
            }
        };
        self.note_moved(from.place(), place);
        self.index.set(position, slot.moved(place, uses, accessed));
        self.free(from.place());
    }

    fn take_large(&mut self, number: usize, reason: Reason, judge: &mut impl Judge) {
        let place = Place::Large(number);
        let hash = self.memory.hash_of(place);
        let (position, slot) = self.locate(place, hash);
        match self.judge(slot, hash, reason, judge) {
            None => self.remove_at(position),
            Some((queue, uses)) => {
                let line = self.line_of(self.memory.key(place), queue);
                let item = self.memory.larges.get_mut(number);
                let (from, bytes) = (std::mem::replace(&mut item.line, line), item.bytes());
                let queues = self.queues(from);
                queues.remove(from.queue, Unit::Large(number));
                queues.shrink(from.queue, bytes);
                let queues = self.queues(line);
                queues.grow(line.queue, bytes);
                queues.push(line.queue, Unit::Large(number));
                self.index.set(position, slot.moved(place, uses, slot.accessed()));
            }
        }
    }

    /// The slot of an item that lies somewhere and whose key has this hash, and its position.
    pub(super) fn locate(&self, place: Place, hash: u64) -> (Position, Slot) {
        let look = |slot: Slot| (slot.place() == place).then_some(slot);
        self.index.find(hash, look).expect("what was not removed has a slot")
    }
}

fn is_in(line: Line, only: Option<usize>) -> bool {
    only.is_none_or(|partition| usize::from(line.partition) == partition)
}

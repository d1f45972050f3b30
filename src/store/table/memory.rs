//! Where the bytes of a shard's items lie: in segments, and large ones alone.

use slab::Slab;

use crate::clock::Seconds;
use crate::store::facts::Facts;
use crate::store::lookup::KeyHash;
use crate::store::table::header::{Form, VALUE_MAX};
use crate::store::table::large::LargeItems;
use crate::store::table::queues::{Line, UNIT_BYTES};
use crate::store::table::segment::Segment;
use crate::store::table::slot::{Place, SEGMENTS_MAX, Slot};

/// The longest header.
const HEADER_MAX: usize = 24;

/// Items above this part of a segment lie alone.
const LARGE_PART: usize = 8;

/// A segment and what it takes besides its bytes.
const SEGMENT_EXTRA: usize = size_of::<Option<Segment>>() + UNIT_BYTES;

/// Bytes that a segment takes with what stands around it.
fn segment_cost(segment: &Segment) -> usize {
    segment.capacity() + SEGMENT_EXTRA
}

/// Whether an item of this size lies in a segment of so many bytes, whatever its header.
pub(super) fn fits_segment(segment_bytes: usize, key_len: usize, value_len: usize) -> bool {
    HEADER_MAX + key_len + value_len <= segment_bytes / LARGE_PART && value_len <= VALUE_MAX
}

/// An item in a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub(super) segment: usize,
    pub(super) at: usize,
    pub(super) form: Form,
}

impl Spot {
    pub(super) fn place(self) -> Place {
        Place::Segment(self.segment, self.at)
    }
}

/// An item whose key was seen to be the one that is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    /// In a segment.
    Segment(Spot),
    /// In memory of its own.
    Large(usize),
}

/// The bytes of a shard's items.
#[derive(Debug)]
pub(super) struct Memory {
    segments: Slab<Segment>,
    /// Bytes that segments take.
    taken: usize,
    pub(super) larges: LargeItems,
    hash: KeyHash,
}

impl Memory {
    pub(super) fn new(hash: KeyHash) -> Self {
        Self { segments: Slab::new(), taken: 0, larges: LargeItems::default(), hash }
    }

    /// Bytes that segments and large items take.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.taken + self.larges.bytes()
    }

    #[inline]
    pub(super) fn segment(&self, number: usize) -> &Segment {
        &self.segments[number]
    }

    /// The segment of a number that may be in use.
    pub(super) fn find_segment(&self, number: usize) -> Option<&Segment> {
        self.segments.get(number)
    }

    #[inline]
    pub(super) fn segment_mut(&mut self, number: usize) -> &mut Segment {
        &mut self.segments[number]
    }

    /// The segments in use, by number.
    pub(super) fn segments(&self) -> impl Iterator<Item = (usize, &Segment)> {
        self.segments.iter()
    }

    /// Numbers of segments, in use or not: below this.
    pub(super) fn numbers(&self) -> usize {
        self.segments.capacity()
    }

    /// Begins a segment in this memory with this item, which is then to be added.
    pub(super) fn begin_segment(&mut self, bytes: Box<[u8]>, line: Line, first: &Facts) -> usize {
        assert!(self.segments.len() < SEGMENTS_MAX, "shards are too few for this much memory");
        let segment = Segment::new(bytes, line, first);
        self.taken += segment_cost(&segment);
        self.segments.insert(segment)
    }

    /// Ends a segment; returns its memory.
    pub(super) fn end_segment(&mut self, number: usize) -> Box<[u8]> {
        let segment = self.segments.remove(number);
        self.taken -= segment_cost(&segment);
        segment.into_bytes()
    }

    /// The item in a segment at this place.
    #[inline]
    pub(super) fn spot(&self, segment: usize, at: usize) -> Spot {
        Spot { segment, at, form: self.segment(segment).form_at(at) }
    }

    /// The item that a slot names, if this is its key, and what it says.
    #[inline]
    pub(super) fn look(&self, slot: Slot, key: &[u8]) -> Option<(Item, Facts)> {
        match slot.place() {
            Place::Segment(number, at) => {
                let segment = self.segment(number);
                let form = segment.form_at(at);
                (segment.key(form, at) == key).then(|| {
                    let facts = segment.facts(form, at, slot.accessed());
                    (Item::Segment(Spot { segment: number, at, form }), facts)
                })
            }
            Place::Large(number) => {
                let large = self.larges.get(number);
                (*large.key == *key).then_some((Item::Large(number), large.facts))
            }
        }
    }

    /// The value of an item that was found.
    #[inline]
    pub(super) fn value_of(&self, item: Item) -> &[u8] {
        match item {
            Item::Segment(Spot { segment, at, form }) => self.segment(segment).value(form, at),
            Item::Large(number) => &self.larges.get(number).value,
        }
    }

    /// The item at this place.
    pub(super) fn item(&self, place: Place) -> Item {
        match place {
            Place::Segment(segment, at) => Item::Segment(self.spot(segment, at)),
            Place::Large(number) => Item::Large(number),
        }
    }

    #[inline]
    pub(super) fn key(&self, place: Place) -> &[u8] {
        match place {
            Place::Segment(segment, at) => {
                let segment = self.segment(segment);
                segment.key(segment.form_at(at), at)
            }
            Place::Large(number) => &self.larges.get(number).key,
        }
    }

    #[inline]
    pub(super) fn value(&self, place: Place) -> &[u8] {
        self.value_of(self.item(place))
    }

    pub(super) fn value_len(&self, place: Place) -> usize {
        match place {
            Place::Segment(segment, at) => self.segment(segment).form_at(at).value_len(),
            Place::Large(number) => self.larges.get(number).value.len(),
        }
    }

    pub(super) fn line(&self, place: Place) -> Line {
        match place {
            Place::Segment(segment, _) => self.segment(segment).line,
            Place::Large(number) => self.larges.get(number).line,
        }
    }

    /// Bytes that an item takes.
    pub(super) fn item_bytes(&self, place: Place) -> usize {
        match place {
            Place::Segment(segment, at) => self.segment(segment).form_at(at).item_len(),
            Place::Large(number) => self.larges.get(number).bytes(),
        }
    }

    #[inline]
    pub(super) fn facts(&self, slot: Slot) -> Facts {
        match slot.place() {
            Place::Segment(segment, at) => {
                let segment = self.segment(segment);
                segment.facts(segment.form_at(at), at, slot.accessed())
            }
            Place::Large(number) => self.larges.get(number).facts,
        }
    }

    /// When an item was used last.
    #[inline]
    pub(super) fn accessed(&self, slot: Slot) -> Seconds {
        match slot.place() {
            Place::Segment(segment, _) => self.segment(segment).last_use(slot.accessed()),
            Place::Large(number) => self.larges.get(number).facts.accessed,
        }
    }

    /// The hash of the key of an item.
    pub(super) fn hash_of(&self, place: Place) -> u64 {
        self.hash.hash(self.key(place))
    }

    /// Key and value of an item, and room for those of another one, which was reserved later.
    pub(super) fn bodies(&mut self, old: Spot, new: Spot) -> (&[u8], &mut [u8]) {
        if old.segment == new.segment {
            return self.segment_mut(old.segment).bodies((old.form, old.at), (new.form, new.at));
        }
        let (from, to) = self.segments.get2_mut(old.segment, new.segment).expect("both are in use");
        (from.body(old.form, old.at), to.body_mut(new.form, new.at))
    }
}

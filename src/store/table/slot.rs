//! A slot of the index: where an item lies, how often it was asked for, and when last.
//!
//! ```text
//! 63       48 47       32 31      18 17    16 15        0
//! +----------+-----------+----------+--------+----------+
//! | segment  | offset    | tag      | uses   | accessed |
//! +----------+-----------+----------+--------+----------+
//! ```
//!
//! With the highest bit set, the first two fields are the number of a large item.

use crate::clock::Seconds;
use crate::store::table::queues::Unit;

/// Most uses that are counted.
pub(super) const USES_MAX: u64 = 3;

/// Numbers of segments end here: above are large items.
pub(in crate::store) const SEGMENTS_MAX: usize = 1 << 15;

const LARGE: u32 = 1 << 31;
const PLACE_SHIFT: u32 = 32;
const TAG_SHIFT: u32 = 18;
const TAG_MASK: u64 = ((1 << 14) - 1) << TAG_SHIFT;
const USES_SHIFT: u32 = 16;

/// Where an item lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a segment, behind so many bytes.
    Segment(usize, usize),
    /// In memory of its own.
    Large(usize),
}

impl Place {
    /// What gives way with the item.
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::Segment(segment, _) => Unit::Segment(segment),
            Self::Large(number) => Unit::Large(number),
        }
    }

    #[inline]
    fn word(self) -> u32 {
        match self {
            Self::Segment(segment, offset) => (segment << 16 | offset) as u32,
            Self::Large(number) => LARGE | number as u32,
        }
    }

    #[inline]
    fn from_word(word: u32) -> Self {
        if word & LARGE == 0 {
            Self::Segment((word >> 16) as usize, (word & 0xffff) as usize)
        } else {
            Self::Large((word & !LARGE) as usize)
        }
    }
}

/// Some bits of a key's hash, never all 0, at the place that they have in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u64);

impl Tag {
    #[inline]
    pub(super) fn of(hash: u64) -> Self {
        Self((hash >> 14 & TAG_MASK).max(1 << TAG_SHIFT))
    }

    #[inline]
    pub(super) fn number(self) -> u64 {
        self.0 >> TAG_SHIFT
    }
}

/// A slot; 0 is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(super) struct Slot(u64);

impl Slot {
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn new(place: Place, hash: u64, uses: u64, accessed: Accessed) -> Self {
        let place = u64::from(place.word()) << PLACE_SHIFT;
        Self(place | Tag::of(hash).0 | uses.min(USES_MAX) << USES_SHIFT | u64::from(accessed.0))
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(super) fn number(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) fn has(self, tag: Tag) -> bool {
        (self.0 ^ tag.0) & TAG_MASK == 0
    }

    pub(super) fn tag(self) -> Tag {
        Tag(self.0 & TAG_MASK)
    }

    #[inline]
    pub(super) fn place(self) -> Place {
        Place::from_word((self.0 >> PLACE_SHIFT) as u32)
    }

    #[inline]
    pub(super) fn uses(self) -> u64 {
        self.0 >> USES_SHIFT & USES_MAX
    }

    #[inline]
    pub(super) fn accessed(self) -> Accessed {
        Accessed(self.0 as u16)
    }

    /// Used once more, as far as that is counted.
    #[inline]
    pub(super) fn used(self) -> Self {
        if self.uses() == USES_MAX { self } else { Self(self.0 + (1 << USES_SHIFT)) }
    }

    #[inline]
    pub(super) fn with_accessed(self, accessed: Accessed) -> Self {
        Self(self.0 & !0xffff | u64::from(accessed.0))
    }

    /// The same item at another place.
    pub(super) fn moved(self, place: Place, uses: u64, accessed: Accessed) -> Self {
        let place = u64::from(place.word()) << PLACE_SHIFT;
        Self(place | self.tag().0 | uses.min(USES_MAX) << USES_SHIFT | u64::from(accessed.0))
    }
}

/// The time of last use, relative to the time at which an item's segment was begun: a sign, 4 bits of exponent and 11 of
/// mantissa. Exact for half an hour on both sides, and then to a thousandth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accessed(u16);

impl Accessed {
    const MANTISSA_BITS: u32 = 11;
    const EXPONENT_MAX: u32 = 15;
    const BEFORE: u16 = 1 << 15;

    #[inline]
    pub(super) fn new(at: Seconds, begun: Seconds) -> Self {
        let sign = if at < begun { Self::BEFORE } else { 0 };
        let distance = at.abs_diff(begun);
        let exponent = (u32::BITS - distance.leading_zeros()).saturating_sub(Self::MANTISSA_BITS);
        if exponent > Self::EXPONENT_MAX {
            return Self(sign | !Self::BEFORE);
        }
        Self(sign | (exponent << Self::MANTISSA_BITS) as u16 | (distance >> exponent) as u16)
    }

    #[inline]
    pub(super) fn seconds(self, begun: Seconds) -> Seconds {
        let bits = u32::from(self.0 & !Self::BEFORE);
        let mantissa = bits & ((1 << Self::MANTISSA_BITS) - 1);
        let distance = mantissa << (bits >> Self::MANTISSA_BITS);
        if self.0 & Self::BEFORE == 0 {
            begun.saturating_add(distance)
        } else {
            begun.saturating_sub(distance)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slot_holds_what_it_was_made_of(
            segment in 0..SEGMENTS_MAX, offset in 0..1_usize << 16, number in 0..1_usize << 31,
            hash: u64, uses in 0..=USES_MAX, at in 0..5000_u32, large: bool,
        ) {
            let place = if large { Place::Large(number) } else { Place::Segment(segment, offset) };
            let accessed = Accessed::new(at, 2500);
            let slot = Slot::new(place, hash, uses, accessed);
            prop_assert!(!slot.is_empty() && slot.has(Tag::of(hash)));
            prop_assert_eq!((slot.place(), slot.uses(), slot.accessed()), (place, uses, accessed));
            prop_assert_eq!(slot.used().uses(), (uses + 1).min(USES_MAX));
            let other = Accessed::new(1, 0);
            prop_assert_eq!(slot.with_accessed(other), Slot::new(place, hash, uses, other));
            let moved = slot.moved(Place::Large(7), 1, other);
            prop_assert_eq!(moved, Slot::new(Place::Large(7), hash, 1, other));
        }

        #[test]
        fn a_time_is_exact_nearby_and_to_a_thousandth_far_away(at in 0..60_000_000_u32, begun in 0..60_000_000_u32) {
            for at in [at, begun.saturating_sub(at % 2048), begun + at % 2048] {
                let shown = Accessed::new(at, begun).seconds(begun);
                let distance = at.abs_diff(begun);
                prop_assert!(shown.abs_diff(at) <= distance / 1024);
                prop_assert!(distance >= 2048 || shown == at);
                prop_assert!(shown.abs_diff(begun) <= distance);
            }
        }
    }
}

//! How an item lies in a segment: a header of 4 to 24 bytes, its key, its value.
//!
//! ```text
//!   0       1       2       4           0|4|8     0|4        0|4      0|4
//! +-------+-------+-------+-----------+---------+----------+--------+------------+-----+-------+
//! | form  | key   | cas width, value  | cas     | expiry   | client | generation | key | value |
//! |       | bytes | bytes             |         | time     | flags  |            |     |       |
//! +-------+-------+-------------------+---------+----------+--------+------------+-----+-------+
//! ```
//!
//! The form says which fields are there, and carries the marks. The CAS token is stored as its distance from a base of the
//! segment, where that has 32 bits; the generation only where it is not that of the segment.

use crate::clock::Seconds;
use crate::store::facts::{Facts, LIGHT_MARKS, LOADED, MARKS};

/// Longest value that a header can say.
pub(super) const VALUE_MAX: usize = (1 << 14) - 1;

/// The marks that a header can carry. The mark of a loaded item has no bit: its CAS token is of the last width.
const MARK_BITS: u32 = LIGHT_MARKS;
const DEAD: u32 = 1 << 4;
const HAS_EXPTIME: u32 = 1 << 5;
const HAS_FLAGS: u32 = 1 << 6;
const HAS_GENERATION: u32 = 1 << 7;
const KEY_SHIFT: u32 = 8;
const WIDTH_SHIFT: u32 = 16;
const VALUE_SHIFT: u32 = 18;

/// Bytes of the CAS token by its code: none where it is 0. The last one is that of a loaded item.
const WIDTHS: [u8; 4] = [0, 4, 8, 8];

/// See [`WIDTHS`].
const LOADED_WIDTH: u32 = 3;

/// The three fields that need not be there; one bit each.
const FIELDS: u32 = HAS_EXPTIME | HAS_FLAGS | HAS_GENERATION;

/// Bytes of a header, by the fields that are there (the lower 3 bits) and the code of the CAS token's bytes.
const HEADER_LENS: [u8; 32] = {
    let mut lens = [0; 32];
    let mut at = 0;
    while at < lens.len() {
        lens[at] = 4 + WIDTHS[at >> 3] + 4 * (at as u8 & 7).count_ones() as u8;
        at += 1;
    }
    lens
};

/// Half of what a distance of 4 bytes spans.
const REACH: u64 = 1 << 31;

/// What the items of a segment have in common, and leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Base {
    /// Tokens from this to 2^32 - 1 above take 4 bytes.
    cas: u64,
    /// A stamp without marks.
    generation: u32,
}

impl Base {
    /// That of a segment that is begun with this item.
    pub(super) fn of(first: &Facts) -> Self {
        // Tokens of before and of after are both to come.
        Self { cas: first.cas.saturating_sub(REACH), generation: first.stamp & !MARKS }
    }
}

/// The first 4 bytes of an item: which fields there are, how long, and the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form(u32);

impl Form {
    /// That of an item whose value has at most [`VALUE_MAX`] bytes, and its key at most 250.
    #[inline]
    pub(super) fn new(facts: &Facts, base: Base, key_len: usize, value_len: usize) -> Self {
        debug_assert!(value_len <= VALUE_MAX && key_len < 256);
        let distance = facts.cas.wrapping_sub(base.cas);
        let width = match facts.cas {
            _ if facts.stamp & LOADED != 0 => LOADED_WIDTH,
            0 => 0,
            _ if distance <= u64::from(u32::MAX) => 1,
            _ => 2,
        };
        let field = |is: bool, bit: u32| if is { bit } else { 0 };
        Self(
            facts.stamp & MARK_BITS
                | field(facts.exptime != 0, HAS_EXPTIME)
                | field(facts.flags != 0, HAS_FLAGS)
                | field(facts.stamp & !MARKS != base.generation, HAS_GENERATION)
                | (key_len as u32) << KEY_SHIFT
                | width << WIDTH_SHIFT
                | (value_len as u32) << VALUE_SHIFT,
        )
    }

    /// That of the item at the front of these bytes.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self(read_u32(bytes, 0))
    }

    #[inline]
    pub(super) fn write(self, bytes: &mut [u8]) {
        bytes[..4].copy_from_slice(&self.0.to_le_bytes());
    }

    #[inline]
    pub(super) fn key_len(self) -> usize {
        (self.0 >> KEY_SHIFT & 0xff) as usize
    }

    #[inline]
    pub(super) fn value_len(self) -> usize {
        (self.0 >> VALUE_SHIFT) as usize
    }

    #[inline]
    fn cas_width(self) -> usize {
        usize::from(WIDTHS[(self.0 >> WIDTH_SHIFT & 3) as usize])
    }

    /// The marks that an item of this form has.
    #[inline]
    fn marks(self) -> u32 {
        let is_loaded = self.0 >> WIDTH_SHIFT & 3 == LOADED_WIDTH;
        self.0 & MARK_BITS | if is_loaded { LOADED } else { 0 }
    }

    /// Bytes before the key.
    #[inline]
    pub(super) fn header_len(self) -> usize {
        let fields = (self.0 & FIELDS) >> FIELDS.trailing_zeros();
        usize::from(HEADER_LENS[(fields | (self.0 >> WIDTH_SHIFT & 3) << 3) as usize])
    }

    /// Bytes of the whole item.
    #[inline]
    pub(super) fn item_len(self) -> usize {
        self.header_len() + self.key_len() + self.value_len()
    }

    /// Whether an item lies here that was removed.
    #[inline]
    pub(super) fn is_dead(self) -> bool {
        self.0 & DEAD != 0
    }

    pub(super) fn dead(self) -> Self {
        Self(self.0 | DEAD)
    }

    /// Whether an item of this form takes the same bytes at the same places, so that it can be written over this one.
    /// A field that has become 0 may stay.
    #[inline]
    pub(super) fn fits(self, other: Self) -> bool {
        let shape = !(MARK_BITS | HAS_EXPTIME | HAS_FLAGS);
        let lacks = other.0 & !self.0 & (HAS_EXPTIME | HAS_FLAGS);
        (self.0 ^ other.0) & shape == 0 && lacks == 0
    }

    /// This form with the marks of another.
    #[inline]
    pub(super) fn with_marks(self, other: Self) -> Self {
        Self(self.0 & !MARK_BITS | other.0 & MARK_BITS)
    }

    /// This form with the marks of these facts.
    #[inline]
    pub(super) fn with_marks_of(self, facts: &Facts) -> Self {
        Self(self.0 & !MARK_BITS | facts.stamp & MARK_BITS)
    }

    /// What the item says of itself, but for the time of its last use.
    #[inline]
    pub(super) fn facts(self, bytes: &[u8], base: Base, accessed: Seconds) -> Facts {
        let cas = match self.cas_width() {
            0 => 0,
            4 => base.cas.wrapping_add(read_u32(bytes, 4).into()),
            _ => u64::from_le_bytes(bytes[4..12].try_into().expect("8 bytes")),
        };
        if self.0 & FIELDS == 0 {
            let stamp = base.generation | self.marks();
            return Facts { cas, flags: 0, exptime: 0, accessed, stamp };
        }
        let mut at = 4 + self.cas_width();
        let mut field = |bit: u32| {
            if self.0 & bit == 0 {
                return None;
            }
            at += 4;
            Some(read_u32(bytes, at - 4))
        };
        let exptime = field(HAS_EXPTIME).unwrap_or(0);
        let flags = field(HAS_FLAGS).unwrap_or(0);
        let generation = field(HAS_GENERATION).unwrap_or(base.generation);
        Facts { cas, flags, exptime, accessed, stamp: generation | self.marks() }
    }

    /// Writes the header of these facts, which must fit this form.
    #[inline]
    pub(super) fn write_header(self, bytes: &mut [u8], facts: &Facts, base: Base) {
        self.write(bytes);
        match self.cas_width() {
            0 => {}
            4 => write_u32(bytes, 4, facts.cas.wrapping_sub(base.cas) as u32),
            _ => bytes[4..12].copy_from_slice(&facts.cas.to_le_bytes()),
        }
        if self.0 & FIELDS == 0 {
            return;
        }
        let mut at = 4 + self.cas_width();
        let fields =
            [(HAS_EXPTIME, facts.exptime), (HAS_FLAGS, facts.flags), (HAS_GENERATION, facts.stamp & !MARKS)];
        for (bit, value) in fields {
            if self.0 & bit != 0 {
                write_u32(bytes, at, value);
                at += 4;
            }
        }
    }
}

#[inline]
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

#[inline]
fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> impl Strategy<Value = Facts> {
        let cas = prop_oneof![Just(0), 1..1000_u64, any::<u64>(), Just(u64::MAX)];
        let some = || prop_oneof![Just(0_u32), any::<u32>()];
        (cas, some(), some(), some(), any::<u32>(), 0..32_u32).prop_map(
            |(cas, flags, exptime, accessed, generation, marks)| Facts {
                cas,
                flags,
                exptime,
                accessed,
                stamp: generation & !MARKS | marks,
            },
        )
    }

    proptest! {
        #[test]
        fn a_header_says_what_was_written(
            first in facts(), facts in facts(), next in facts(),
            key_len in 1..251_usize, value_len in 0..=VALUE_MAX,
        ) {
            let base = Base::of(&first);
            let form = Form::new(&facts, base, key_len, value_len);
            let mut bytes = [0xaa; 24];
            form.write_header(&mut bytes, &facts, base);
            prop_assert_eq!(Form::read(&bytes), form);
            prop_assert_eq!((form.key_len(), form.value_len()), (key_len, value_len));
            prop_assert!(form.header_len() <= 24 && !form.is_dead() && form.dead().is_dead());
            prop_assert_eq!(form.facts(&bytes, base, facts.accessed), facts);

            let other = Form::new(&next, base, key_len, value_len);
            if form.fits(other) {
                form.with_marks(other).write_header(&mut bytes, &next, base);
                prop_assert_eq!(Form::read(&bytes).facts(&bytes, base, next.accessed), next);
                prop_assert_eq!(form.item_len(), Form::read(&bytes).item_len());
            }
        }

        #[test]
        fn a_plain_item_has_a_header_of_8_bytes(cas in 1_u64.., later in 0..1_u64 << 31) {
            let facts = Facts { cas, flags: 0, exptime: 0, accessed: 7, stamp: 0x500 };
            let base = Base::of(&facts);
            let next = Facts { cas: cas.saturating_add(later), ..facts };
            prop_assert_eq!(Form::new(&next, base, 16, 8).header_len(), 8);
        }
    }
}

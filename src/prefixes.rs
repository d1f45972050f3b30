//! Which of some prefixes a key begins with: the longest. Looked up for every key wherever there are groups, so it is quick.

use std::cmp::Reverse;

/// Bytes of a key that are compared as one number.
const HEAD: usize = size_of::<u64>();

/// Prefixes of keys, each with what belongs to it, the longest first.
#[derive(Debug)]
pub struct Prefixes<T> {
    all: Vec<Prefix<T>>,
    /// One bit for each first byte with which any of them can be found.
    firsts: [u64; 4],
}

#[derive(Debug)]
struct Prefix<T> {
    bytes: Box<[u8]>,
    value: T,
    /// Its first bytes, and which bits of a key's first bytes must be the same.
    head: u64,
    mask: u64,
}

impl<T> Prefixes<T> {
    /// These prefixes. Their numbers, from 0, are those of the longest first; of those equally long, as they come.
    pub fn new<'a>(prefixes: impl IntoIterator<Item = (&'a [u8], T)>) -> Self {
        let mut all: Vec<_> = prefixes.into_iter().map(|(bytes, value)| Prefix::new(bytes, value)).collect();
        all.sort_by_key(|prefix| Reverse(prefix.bytes.len()));
        let mut firsts = [0; 4];
        for prefix in &all {
            match prefix.bytes.first() {
                Some(&first) => firsts[usize::from(first >> 6)] |= 1 << (first & 63),
                None => firsts = [u64::MAX; 4],
            }
        }
        Self { all, firsts }
    }

    /// The number of the longest with which this key begins.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let &first = key.first()?;
        if self.firsts[usize::from(first >> 6)] >> (first & 63) & 1 == 0 {
            return None;
        }
        let head = head(key);
        self.all.iter().position(|prefix| prefix.fits(key, head))
    }

    /// What belongs to the longest with which this key begins.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&T> {
        self.find(key).map(|number| &self.all[number].value)
    }

    /// All of them, by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.all.iter().map(|prefix| &*prefix.bytes)
    }

    /// What belongs to each, by their numbers.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.all.iter().map(|prefix| &prefix.value)
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { all: Vec::new(), firsts: [0; 4] }
    }
}

impl<T> Prefix<T> {
    fn new(bytes: &[u8], value: T) -> Self {
        let mask = head(&[0xff; HEAD][..bytes.len().min(HEAD)]);
        Self { bytes: bytes.into(), value, head: head(bytes), mask }
    }

    #[inline]
    fn fits(&self, key: &[u8], head: u64) -> bool {
        (head ^ self.head) & self.mask == 0
            && key.len() >= self.bytes.len()
            && (self.bytes.len() <= HEAD || key.starts_with(&self.bytes))
    }
}

/// The first bytes of a key; zeros where it is shorter.
#[inline]
fn head(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(first) => u64::from_le_bytes(*first),
        None => key.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff)], length)
    }

    proptest! {
        #[test]
        fn the_longest_that_fits_is_found(
            prefixes in proptest::collection::vec(bytes(0..12), 0..20),
            key in bytes(1..16),
        ) {
            let all = Prefixes::new(prefixes.iter().map(|prefix| (prefix.as_slice(), prefix)));
            let found = all.find(&key).and_then(|number| all.iter().nth(number));
            let longest = prefixes.iter().filter(|prefix| key.starts_with(prefix)).map(Vec::len).max();
            prop_assert_eq!(found.map(<[u8]>::len), longest);
            prop_assert!(found.is_none_or(|found| key.starts_with(found)));
            prop_assert_eq!(all.get(&key).map(|value| value.as_slice()), found);
        }
    }

    #[test]
    fn the_longest_come_first() {
        let all = Prefixes::new([(&b"a"[..], 0), (b"b", 1), (b"ab", 2)]);
        assert_eq!(all.iter().collect::<Vec<_>>(), [&b"ab"[..], b"a", b"b"]);
        assert_eq!(all.values().collect::<Vec<_>>(), [&2, &0, &1]);
        assert_eq!(
            (all.find(b"b"), all.find(b"ac"), all.find(b"c"), all.find(b"")),
            (Some(2), Some(1), None, None)
        );
    }
}

//! Keys as the table holds them: short ones inside the entry.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::store::lookup::Lookup;

/// Bytes of a key that fit in the entry itself; with the length and the tag that makes the 24
/// bytes that a pointer, a length and a tag would take anyway.
const INLINE: usize = 22;

/// An item's key.
pub(super) enum Key {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Box<[u8]>),
}

impl Key {
    pub(super) fn new(key: &[u8]) -> Self {
        if key.len() > INLINE {
            return Self::Heap(key.into());
        }
        let mut bytes = [0; INLINE];
        bytes[..key.len()].copy_from_slice(key);
        Self::Inline { len: key.len() as u8, bytes }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes().escape_ascii())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.bytes());
    }
}

/// What a table compares: a key that it holds, or one that is looked up with its hash known.
/// (A trait object because `Borrow` can only lend what is already there.)
pub(super) trait Sought {
    fn bytes(&self) -> &[u8];
    /// The hash, where it is known already.
    fn hash(&self) -> Option<u64>;
}

impl Sought for Key {
    #[inline]
    fn bytes(&self) -> &[u8] {
        Self::bytes(self)
    }

    fn hash(&self) -> Option<u64> {
        None
    }
}

impl Sought for Lookup<'_> {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.bytes
    }

    #[inline]
    fn hash(&self) -> Option<u64> {
        Some(self.hash)
    }
}

impl<'s> Borrow<dyn Sought + 's> for Key {
    #[inline]
    fn borrow(&self) -> &(dyn Sought + 's) {
        self
    }
}

impl PartialEq for dyn Sought + '_ {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for dyn Sought + '_ {}

impl Hash for dyn Sought + '_ {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match Sought::hash(self) {
            Some(hash) => state.write_u64(hash),
            None => state.write(self.bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;
    use crate::store::lookup::KeyHash;

    #[test]
    fn a_known_hash_is_the_computed_one() {
        let hash = KeyHash::default();
        for len in [1, INLINE, INLINE + 1, 250] {
            let bytes = vec![b'k'; len];
            let key = Key::new(&bytes);
            assert_eq!(key.bytes(), bytes);
            let lookup = hash.lookup(&bytes);
            let sought: &dyn Sought = &lookup;
            assert_eq!(hash.hash_one(sought), hash.hash_one(&key));
            let lent: &dyn Sought = key.borrow();
            assert_eq!(hash.hash_one(lent), hash.hash_one(&key));
        }
        assert_eq!(size_of::<Key>(), 24);
    }
}

//! Keys to look up: hashed once per operation.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

/// A key to look up, with the hash that was computed once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) hash: u64,
}

/// Hashes keys with a seed of this process; the tables and the choice of a shard share it.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyHash(RandomState);

impl KeyHash {
    #[inline]
    pub(super) fn lookup<'a>(&self, key: &'a [u8]) -> Lookup<'a> {
        Lookup { bytes: key, hash: self.hash(key) }
    }

    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    #[inline]
    fn build_hasher(&self) -> KeyHasher {
        KeyHasher { seed: self.0.clone(), hash: 0 }
    }
}

/// Takes a known hash as it is, and computes the same one from a key's bytes.
pub(super) struct KeyHasher {
    seed: RandomState,
    hash: u64,
}

impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut hasher = self.seed.build_hasher();
        hasher.write(bytes);
        self.hash = hasher.finish();
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.hash = hash;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.hash
    }
}

//! Keys to look up: hashed once per operation.

use std::hash::BuildHasher;

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// A key to look up, with the hash that was computed once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) hash: u64,
}

/// Hashes keys with a seed, most often one of this process. Of the bits of a hash the lowest 16 choose the shard, the next
/// 16 the piece of its index, and the others the bucket and what tells one key from another there.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyHash(SeedableRandomState);

impl KeyHash {
    /// By this seed, or by a random one.
    pub(super) fn new(seed: Option<u64>) -> Self {
        seed.map_or_else(Self::default, |seed| {
            Self(SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()))
        })
    }

    #[inline]
    pub(super) fn lookup<'a>(&self, key: &'a [u8]) -> Lookup<'a> {
        Lookup { bytes: key, hash: self.hash(key) }
    }

    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        use std::hash::Hasher as _;

        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

//! What the store is told at the start.

/// How much this node may keep, and of what.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes that items and the structures that hold them may take (`-m`).
    pub budget_bytes: u64,
    /// Largest item in bytes, as memcached counts it: key, value and header (`-I`).
    pub item_size_max: usize,
    /// Whether a full cache drops items to make room (`-M` says no).
    pub evict: bool,
    /// Whether items carry a CAS token (`-C` says no).
    pub cas: bool,
    /// Decides in which order items lie, so that a simulation can be replayed; `None` is another one for each process.
    pub hash_seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { budget_bytes: 64 << 20, item_size_max: 1 << 20, evict: true, cas: true, hash_seed: None }
    }
}

//! How many bytes the tables may take, and how many they do.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::store::padded::Padded;

/// While more than this is missing, a write takes apart what it took and this much: a budget that does not hold then, or was
/// lowered, is reached by the writes that follow, and no client waits for all of it.
pub(super) const SLICE_BYTES: i64 = 64 << 10;

/// Values on their way count up to this part of the budget: who announces more empties no cache.
const EXPECTED_PART: i64 = 16;

/// Writes make room until this part of the budget is free, or as much as a segment takes: little each, before it is missing.
const AHEAD_PART: i64 = 1024;

/// The budget of all shards together. The tables say what they take; here it is added up.
pub(super) struct Budget {
    /// Whether a full cache drops items to make room.
    pub(super) evict: bool,
    limit: AtomicU64,
    /// Bytes that were missing when the limit was lowered, until it is reached.
    lowered: AtomicI64,
    used: Padded<AtomicI64>,
    /// Bytes of values that are on their way.
    expected: AtomicI64,
    /// How often an item was removed, where a full cache may not evict.
    removals: AtomicU64,
    /// What the tables of an empty store take.
    empty: i64,
}

impl Budget {
    pub(super) fn new(limit: u64, evict: bool, empty: i64) -> Self {
        Self {
            evict,
            limit: AtomicU64::new(limit),
            lowered: AtomicI64::new(0),
            used: Padded(AtomicI64::new(empty)),
            expected: AtomicI64::new(0),
            removals: AtomicU64::new(0),
            empty,
        }
    }

    /// Adds what a table has grown by, or shrunk.
    pub(super) fn used_changed(&self, bytes: i64) {
        self.used.0.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of values that are on their way, as far as they count.
    pub(super) fn expected(&self) -> i64 {
        self.expected.load(Ordering::Relaxed).min(self.expected_max())
    }

    /// How many of them count.
    pub(super) fn expected_max(&self) -> i64 {
        self.limit_bytes() / EXPECTED_PART
    }

    /// So many more bytes are on their way, or fewer.
    pub(super) fn expect(&self, bytes: i64) {
        self.expected.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How often an item was removed, as far as that is counted.
    pub(super) fn removals(&self) -> u64 {
        self.removals.load(Ordering::Relaxed)
    }

    /// Counts a removal.
    pub(super) fn removed(&self) {
        self.removals.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the budget does not hold, once `more` bytes have come or gone.
    #[inline]
    pub(super) fn is_over(&self, more: i64) -> bool {
        // What is on its way counts at most as what it is.
        let most = self.used.0.load(Ordering::Relaxed) + self.expected.load(Ordering::Relaxed);
        most.saturating_add(more) > self.limit_bytes() && self.missing().saturating_add(more) > 0
    }

    /// Whether a write has to make room.
    #[inline]
    pub(super) fn is_near(&self) -> bool {
        self.is_over(self.ahead())
    }

    /// Bytes that are to be free.
    pub(super) fn ahead(&self) -> i64 {
        (self.limit_bytes() / AHEAD_PART).min(SLICE_BYTES)
    }

    /// Bytes by which it does not hold, with what is on its way; none or less where it does.
    pub(super) fn missing(&self) -> i64 {
        (self.used.0.load(Ordering::Relaxed) + self.expected()).saturating_sub(self.limit_bytes())
    }

    /// The limit, to be held against what is used.
    pub(super) fn limit_bytes(&self) -> i64 {
        i64::try_from(self.limit()).unwrap_or(i64::MAX)
    }

    /// Bytes that were missing when the limit was lowered; none once it was reached.
    pub(super) fn lowered(&self) -> i64 {
        self.lowered.load(Ordering::Relaxed)
    }

    /// Notes that it holds, if it does.
    pub(super) fn note_reached(&self) {
        if self.lowered() > 0 && self.missing() <= 0 {
            self.lowered.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes that items and tables take.
    pub(super) fn used_bytes(&self) -> u64 {
        u64::try_from(self.used.0.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// False, and nothing changed, when the empty tables alone would take more.
    pub(super) fn set_limit(&self, bytes: u64) -> bool {
        let possible = u64::try_from(self.empty).is_ok_and(|empty| bytes > empty);
        if possible {
            self.limit.store(bytes, Ordering::Relaxed);
            self.lowered.store(self.missing().max(0), Ordering::Relaxed);
        }
        possible
    }
}

//! How long a loaded value lives.

use std::time::Duration;

use crate::groups::Group;

/// How long a value lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    /// Zero is not at all, and `None` until it gives way.
    pub(super) ttl: Option<Duration>,
    /// Whether it is loaded anew ahead of its end, or shown after it, as its group says.
    pub(super) is_renewed: bool,
}

impl Life {
    /// As long as its group says, give or take the jitter, and no longer than the origin allows. How much of a time that the
    /// origin has set is over cannot be told later: such a value is not loaded anew ahead of its end, or it would be at
    /// every read, and not shown after it.
    pub(super) fn new(group: &Group, load: u64, origin: Option<Duration>) -> Self {
        let options = &group.options;
        // From -1 to 1, another one for each load.
        let spread = xxhash_rust::xxh3::xxh3_64(&load.to_le_bytes()) as f64 / u64::MAX as f64 * 2.0 - 1.0;
        let own = options.ttl.map(|ttl| ttl.mul_f64(1.0 + options.ttl_jitter * spread));
        let own = [own, options.max_ttl].into_iter().flatten().min();
        let is_shortened = origin.is_some_and(|origin| own.is_none_or(|own| origin < own));
        let ttl = if is_shortened { origin } else { own };
        Self { ttl, is_renewed: options.renews() && !(is_shortened && options.refresh_ahead > 0.0) }
    }

    /// Whether it is not to be kept at all.
    pub(super) fn is_none(&self) -> bool {
        self.ttl.is_some_and(|ttl| ttl.is_zero())
    }

    /// For how many seconds its item is kept, which includes the time in which it is shown stale.
    pub(super) fn kept_seconds(&self, group: &Group) -> Option<u32> {
        let after = if self.is_renewed { group.options.stale_span() } else { Duration::ZERO };
        self.ttl.map(|ttl| seconds(ttl + after))
    }

    /// For how many seconds it lives.
    pub(super) fn seconds(&self) -> Option<u32> {
        self.ttl.map(seconds)
    }
}

/// Whole seconds, one at least.
fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs_f64().round() as u64).unwrap_or(u32::MAX).max(1)
}

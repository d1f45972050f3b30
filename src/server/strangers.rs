//! Clients that speak another protocol: a line in the log, so that people who wonder why nothing is cached find the
//! reason, and no flood of lines.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tracing::warn;

use crate::clock::Seconds;

/// How long until there is another warning: a health check that speaks HTTP comes every few seconds.
const QUIET: Seconds = 60;

/// The clients that were warned of, and when.
#[derive(Debug, Default)]
pub struct Strangers {
    /// When there may be a warning again.
    next: AtomicU32,
    /// How many have come since the last one.
    untold: AtomicU64,
}

impl Strangers {
    /// Warns of a client, unless another was warned of lately.
    #[cold]
    pub fn tell(&self, now: Seconds, client: &str, speaks: &str) {
        if let Some(untold) = self.admit(now) {
            let others =
                if untold == 0 { String::new() } else { format!(", and {untold} others did like it") };
            warn!("{client} speaks {speaks}, which is not understood here{others}");
        }
    }

    /// Whether there may be a warning at this moment; if so, how many clients had none before.
    fn admit(&self, now: Seconds) -> Option<u64> {
        let due = |next: Seconds| (next <= now).then(|| now.saturating_add(QUIET));
        match self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due) {
            Ok(_) => Some(self.untold.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.untold.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_is_told_of_with_the_number_of_the_others() {
        let strangers = Strangers::default();
        assert_eq!(strangers.admit(2), Some(0));
        assert_eq!((strangers.admit(2), strangers.admit(61)), (None, None));
        assert_eq!(strangers.admit(62), Some(2));
        assert_eq!(strangers.admit(63), None);
        assert_eq!(strangers.admit(200), Some(1));
    }
}

//! The present moment: tokio's, so that a simulation can set it.

use std::time::Instant;

/// Now. Without tokio's `test-util`, this is [`Instant::now`].
#[inline]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

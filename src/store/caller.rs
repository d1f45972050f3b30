//! The caller of the store.

use std::time::Instant;

use crate::clock::Seconds;
use crate::stats::Counters;
use crate::store::generation::Generation;

/// The caller, and the time of the call.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The time, read once for everything that came together.
    pub now: Seconds,
    /// Where this thread counts.
    pub counters: &'a Counters,
    /// The connection's number, for `watch`.
    pub connection: u64,
    /// In a cluster, the generation from which on items under the command's key count
    /// ([`Store::advance`]); what was written under an earlier one is dead. Means nothing where
    /// no key is named.
    ///
    /// [`Store::advance`]: crate::store::Store::advance
    pub min_generation: Option<Generation>,
    /// Whether the command was executed and counted before, and waited since.
    pub repeats: bool,
    /// A command that has not begun by then is refused, as
    /// [`Unavailable::Unanswered`](crate::command::Unavailable::Unanswered).
    pub expires: Option<Instant>,
}

impl<'a> Caller<'a> {
    /// A caller on a node that is alone.
    #[inline]
    pub fn new(now: Seconds, counters: &'a Counters, connection: u64) -> Self {
        Self { now, counters, connection, min_generation: None, repeats: false, expires: None }
    }
}

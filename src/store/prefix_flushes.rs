//! Flushes of all keys with a prefix. Each costs the same however many items there are: it is remembered until a sweep
//! has dropped what it covers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::store::generation::{self, Generation};

/// Flushes that are remembered at the same time.
pub(super) const PREFIX_FLUSHES_MAX: usize = 64;

/// The flushes that no sweep has carried out yet.
#[derive(Debug, Default)]
pub(super) struct PrefixFlushes {
    /// How many there are: 0 lets everybody pass the lock by.
    len: AtomicUsize,
    list: Mutex<Vec<Flush>>,
    /// One more than the generation of the newest, which may be carried out already; 0 before the first.
    newest: AtomicU64,
    /// While it is not 0, flushes stay, because items of before are still brought in.
    holds: AtomicUsize,
}

#[derive(Debug)]
struct Flush {
    prefix: Box<[u8]>,
    /// What was written under an older generation is dead.
    generation: Generation,
}

/// Too many flushes of prefixes wait to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyFlushes;

impl PrefixFlushes {
    /// Makes what lies under keys with this prefix dead. `begin` begins a generation.
    pub(super) fn flush(
        &self,
        prefix: &[u8],
        begin: impl FnOnce() -> Generation,
    ) -> Result<(), TooManyFlushes> {
        let mut list = self.list.lock();
        list.retain(|flush| !flush.prefix.starts_with(prefix));
        let result = if list.len() < PREFIX_FLUSHES_MAX {
            let generation = begin();
            list.push(Flush { prefix: prefix.into(), generation });
            self.newest.store(u64::from(generation.number()) + 1, Ordering::Release);
            Ok(())
        } else {
            Err(TooManyFlushes)
        };
        self.len.store(list.len(), Ordering::Release);
        result
    }

    /// Whether an item under this key, with this stamp, is dead because of one of them.
    #[inline]
    pub(super) fn cover(&self, key: &[u8], stamp: u32) -> bool {
        self.len.load(Ordering::Acquire) != 0 && self.one_covers(key, stamp)
    }

    #[cold]
    fn one_covers(&self, key: &[u8], stamp: u32) -> bool {
        let is_older = |flush: &Flush| generation::is_older(stamp, flush.generation.stamp());
        self.list.lock().iter().any(|flush| key.starts_with(&flush.prefix) && is_older(flush))
    }

    /// Whether one of them, of whatever prefix, is newer than this generation.
    pub(super) fn since(&self, generation: Generation) -> bool {
        match self.newest.load(Ordering::Acquire) {
            0 => false,
            newest => generation.later(Generation::new((newest - 1) as u32)) != generation,
        }
    }

    /// The newest one of those that a sweep must look at every shard for; `None` where there is none.
    pub(super) fn want_full_sweep(&self) -> Option<Generation> {
        if self.len.load(Ordering::Acquire) == 0 || self.holds.load(Ordering::Acquire) != 0 {
            return None;
        }
        self.list.lock().iter().map(|flush| flush.generation).reduce(Generation::later)
    }

    /// A sweep has looked at every shard, which began when this was the newest.
    pub(super) fn note_swept(&self, newest: Generation) {
        let mut list = self.list.lock();
        list.retain(|flush| flush.generation.later(newest) != newest);
        self.len.store(list.len(), Ordering::Release);
    }

    /// From now on items of before may be brought in, or no longer.
    pub(super) fn hold(&self, on: bool) {
        self.holds.store(usize::from(on), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_and_has_the_prefix_is_dead_until_a_sweep_was_there() {
        let flushes = PrefixFlushes::default();
        let (old, new) = (Generation::new(7), Generation::new(8));
        assert!(!flushes.cover(b"a:1", old.stamp()) && !flushes.since(old));
        flushes.flush(b"a:", || new).expect("the first");
        assert!(flushes.cover(b"a:1", old.stamp()) && flushes.since(old));
        assert!(!flushes.cover(b"a:1", new.stamp()) && !flushes.since(new));
        assert!(!flushes.cover(b"b:1", old.stamp()));
        let seen = flushes.want_full_sweep().expect("one waits");
        flushes.flush(b"b:", || Generation::new(9)).expect("the second");
        flushes.note_swept(seen);
        assert!(!flushes.cover(b"a:1", old.stamp()), "nothing is left of it");
        assert!(flushes.cover(b"b:1", new.stamp()), "it came later");
        assert!(flushes.since(new), "what began before must not come in");
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let flushes = PrefixFlushes::default();
        for number in 0..PREFIX_FLUSHES_MAX {
            flushes.flush(format!("{number:03}").as_bytes(), || Generation::new(1)).expect("room");
        }
        assert_eq!(flushes.flush(b"x", || Generation::new(2)), Err(TooManyFlushes));
        flushes.flush(b"007", || Generation::new(2)).expect("it takes the place of the one before");
        flushes.flush(b"0", || Generation::new(3)).expect("it takes the place of them all");
        assert!(flushes.flush(b"x", || Generation::new(4)).is_ok());
    }
}

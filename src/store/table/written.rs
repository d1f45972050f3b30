//! Which keys were written while items are brought in from elsewhere, or loaded: what clients write or delete meanwhile
//! must not be replaced by what comes later, though nothing may be left of it by then.

use std::collections::HashMap;

use crate::store::load::Load;

/// What somebody wants to know about writes to the keys of one shard.
#[derive(Debug, Default)]
pub(in crate::store) struct Writes {
    /// Whether anybody does.
    is_watched: bool,
    /// While items are brought in.
    arrivals: Option<Written>,
    /// The load of each key that is being loaded, by the key's hash. A write ends it; keys with the same hash end each
    /// other's.
    loads: HashMap<u64, Load>,
}

impl Writes {
    /// Notes that a key was written.
    #[inline]
    pub(in crate::store) fn note(&mut self, hash: u64) {
        if self.is_watched {
            self.note_touch(hash);
            self.end_load(hash);
        }
    }

    /// Notes that a key was touched, if it was there.
    #[cold]
    pub(in crate::store) fn note_touch(&mut self, hash: u64) {
        if let Some(written) = &mut self.arrivals {
            written.note(hash);
        }
    }

    /// From now on remembers which keys are written, or no longer.
    pub(in crate::store) fn watch_arrivals(&mut self, on: bool) {
        self.arrivals = on.then(Written::new);
        self.is_watched = on || !self.loads.is_empty();
    }

    /// Whether a key was, or may have been, written since [`Writes::watch_arrivals`].
    pub(in crate::store) fn was_written(&self, hash: u64) -> bool {
        self.arrivals.as_ref().is_some_and(|written| written.has(hash))
    }

    /// The load of a key, unless something was written under it since it began.
    pub(in crate::store) fn load(&self, hash: u64) -> Option<Load> {
        self.loads.get(&hash).copied()
    }

    /// A load of a key begins; the one before, if there is one, ends.
    pub(in crate::store) fn begin_load(&mut self, hash: u64, load: Load) {
        self.loads.insert(hash, load);
        self.is_watched = true;
    }

    /// Nothing is loaded under a key any more.
    pub(in crate::store) fn end_load(&mut self, hash: u64) {
        self.loads.remove(&hash);
        self.is_watched = self.arrivals.is_some() || !self.loads.is_empty();
    }
}

/// One bit for each of so many remainders of a hash: for one shard, some kilobytes, whatever clients do.
const BITS: usize = 1 << 17;

/// The keys, by the bits of their hashes. A key that shares its bit with a written one counts as written, and its item
/// is a miss.
#[derive(Debug)]
struct Written(Box<[u64]>);

impl Written {
    /// None yet.
    fn new() -> Self {
        Self(vec![0; BITS / u64::BITS as usize].into())
    }

    fn note(&mut self, hash: u64) {
        let (word, bit) = place(hash);
        self.0[word] |= bit;
    }

    fn has(&self, hash: u64) -> bool {
        let (word, bit) = place(hash);
        self.0[word] & bit != 0
    }
}

/// The upper bits: the lowest ones are the same in all of a shard.
fn place(hash: u64) -> (usize, u64) {
    let number = (hash >> (u64::BITS - BITS.ilog2())) as usize;
    (number / u64::BITS as usize, 1 << (number % u64::BITS as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_there_and_little_else() {
        let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut written = Written::new();
        (0..1_000).for_each(|number| written.note(hash(number)));
        assert!((0..1_000).all(|number| written.has(hash(number))));
        let mistaken = (1_000..101_000).filter(|number| written.has(hash(*number))).count();
        assert!(mistaken < 2_000, "{mistaken} of 100,000");
    }
}

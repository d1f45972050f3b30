//! Which keys were written while items are brought in from elsewhere: what clients write or delete meanwhile must not be
//! replaced by what comes later, though nothing may be left of it by then.

/// One bit for each of so many remainders of a hash: for one shard, some kilobytes, whatever clients do.
const BITS: usize = 1 << 17;

/// The keys, by the bits of their hashes. A key that shares its bit with a written one counts as written, and its item
/// is a miss.
#[derive(Debug)]
pub(super) struct Written(Box<[u64]>);

impl Written {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(vec![0; BITS / u64::BITS as usize].into())
    }

    pub(super) fn note(&mut self, hash: u64) {
        let (word, bit) = place(hash);
        self.0[word] |= bit;
    }

    pub(super) fn has(&self, hash: u64) -> bool {
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

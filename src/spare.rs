//! Memory of large values that have gone, kept for the next ones of their size.
//!
//! The allocator gives such memory back to the system at once, which would hand it out again page by page: for a value of
//! 900 KB that takes as long as to receive it. Each value that is on its way needs memory beside that of the old one, so
//! what is kept is for as many values as are on their way, whichever threads they come in at.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// What is kept at most, of all sizes together: for four values of the largest size. Twice as much gains nothing more.
const KEPT_BYTES: usize = 4 << 20;

/// Nobody takes less than this: smaller requests are not received where they stay.
const WORTH_BYTES: usize = 32 << 10;

/// So many are freed at most to keep another one: a shard may be locked meanwhile.
const FREED_MAX: usize = 2;

static SPARE: Mutex<Spare> = Mutex::new(Spare { memory: VecDeque::new(), bytes: 0 });

/// Memory that is free.
struct Spare {
    /// The oldest first.
    memory: VecDeque<BytesMut>,
    bytes: usize,
}

impl Spare {
    /// What came last of the size that the allocator would choose for so many bytes.
    fn take(&mut self, bytes: usize) -> Option<BytesMut> {
        let size = allocated(bytes);
        let fits = |memory: &BytesMut| memory.capacity() >= bytes && allocated(memory.capacity()) == size;
        let at = self.memory.iter().rposition(fits)?;
        let memory = self.memory.remove(at)?;
        self.bytes -= memory.capacity();
        Some(memory)
    }

    /// Keeps memory, in place of what was kept for longest. Returns what is to be freed: the memory itself, where too many
    /// would have to go for it.
    fn give(&mut self, memory: BytesMut) -> impl Iterator<Item = BytesMut> + use<> {
        let mut freed = [const { None }; FREED_MAX + 1];
        for place in &mut freed[..FREED_MAX] {
            if self.bytes + memory.capacity() > KEPT_BYTES {
                *place = self.memory.pop_front();
                self.bytes -= place.as_ref().map_or(0, BytesMut::capacity);
            }
        }
        if self.bytes + memory.capacity() <= KEPT_BYTES {
            self.bytes += memory.capacity();
            self.memory.push_back(memory);
        } else {
            freed[FREED_MAX] = Some(memory);
        }
        freed.into_iter().flatten()
    }
}

/// Empty memory for `bytes`, in a size of the allocator's that is no larger than these need.
pub fn take(bytes: usize) -> BytesMut {
    let spare = if bytes >= WORTH_BYTES { SPARE.lock().take(bytes) } else { None };
    // All that it takes anyway, so that it serves every value of its size later.
    spare.unwrap_or_else(|| BytesMut::with_capacity(allocated(bytes)))
}

/// Keeps the memory of a value that has gone, unless somebody still reads it.
pub fn give(value: Bytes) {
    if let Some(memory) = unshared(value) {
        give_memory(memory);
    }
}

/// The memory of a value that is worth it, unless somebody else reads it.
fn unshared(value: Bytes) -> Option<BytesMut> {
    if value.len() < WORTH_BYTES {
        return None;
    }
    value.try_into_mut().ok()
}

/// Keeps memory, in place of what was kept for longest.
pub fn give_memory(memory: BytesMut) {
    if let Some(memory) = emptied(memory) {
        let freed = SPARE.lock().give(memory);
        // Others may go on meanwhile.
        drop(freed);
    }
}

/// All of this memory, with what lies in front of what was taken out of it; none if it is not to be kept.
fn emptied(mut memory: BytesMut) -> Option<BytesMut> {
    memory.clear();
    _ = memory.try_reclaim(memory.capacity() + 1);
    (WORTH_BYTES..=KEPT_BYTES).contains(&memory.capacity()).then_some(memory)
}

/// What an allocator takes for so many bytes: four sizes for each doubling.
pub fn allocated(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << (usize::BITS - (bytes - 1).leading_zeros() - 3)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_four_steps_a_doubling() {
        for (bytes, size) in [(0, 0), (1, 16), (100, 112), (128, 128), (129, 160), (1025, 1280), (8192, 8192)]
        {
            assert_eq!(allocated(bytes), size);
        }
        assert_eq!(allocated(8193), 10 << 10);
        assert_eq!(allocated(900_000), 896 << 10);
    }

    /// Memory for so many bytes, and where it lies.
    fn memory(bytes: usize) -> (BytesMut, *const u8) {
        let memory = BytesMut::with_capacity(bytes);
        let at = memory.as_ptr();
        (memory, at)
    }

    fn spare() -> Spare {
        Spare { memory: VecDeque::new(), bytes: 0 }
    }

    #[test]
    fn memory_is_kept_with_all_that_lies_around_a_value() {
        let (mut received, at) = memory(100_000);
        received.resize(100_000, b'x');
        let value = received.freeze().slice(40..99_998);
        let again = emptied(value.try_into_mut().unwrap()).unwrap();
        assert_eq!(again.as_ptr(), at);
        assert!(again.is_empty() && again.capacity() >= 100_000);
    }

    #[test]
    fn memory_is_for_values_of_its_size() {
        let mut spare = spare();
        let (of_100, at) = memory(100_000);
        assert_eq!(spare.give(of_100).count(), 0);
        assert!(spare.take(50_000).is_none() && spare.take(120_000).is_none());
        assert_eq!(spare.take(100_000).unwrap().as_ptr(), at);
        assert!(spare.take(100_000).is_none());
        assert_eq!(spare.bytes, 0);
    }

    #[test]
    fn what_was_kept_for_longest_goes_first() {
        let mut spare = spare();
        let sizes = [KEPT_BYTES / 2, KEPT_BYTES / 2, KEPT_BYTES / 4];
        let [(first, freed), (second, at), (third, last)] = sizes.map(memory);
        assert_eq!(spare.give(first).chain(spare.give(second)).count(), 0);
        assert_eq!(spare.give(third).map(|memory| memory.as_ptr()).collect::<Vec<_>>(), [freed]);
        assert_eq!(spare.take(KEPT_BYTES / 2).unwrap().as_ptr(), at);
        assert_eq!(spare.take(KEPT_BYTES / 4).unwrap().as_ptr(), last);
    }

    #[test]
    fn few_are_freed_at_once_and_no_more_is_kept_than_may_be() {
        let mut spare = spare();
        let mut random = fastrand::Rng::with_seed(1);
        let mut kept_large = 0;
        for _ in 0..10_000 {
            let bytes = if random.u8(..4) == 0 { 1 << 20 } else { WORTH_BYTES << random.u8(..3) };
            let (memory, at) = memory(bytes);
            let freed: Vec<_> = spare.give(memory).map(|memory| memory.as_ptr()).collect();
            assert!(freed.len() <= FREED_MAX + 1);
            kept_large += usize::from(bytes == 1 << 20 && !freed.contains(&at));
            assert!(spare.bytes <= KEPT_BYTES);
            assert_eq!(spare.bytes, spare.memory.iter().map(BytesMut::capacity).sum::<usize>());
        }
        assert!(kept_large > 100, "{kept_large}");
    }

    #[test]
    fn neither_little_memory_nor_a_lot_is_kept() {
        for bytes in [WORTH_BYTES - 1, KEPT_BYTES + 1] {
            assert!(emptied(BytesMut::with_capacity(bytes)).is_none(), "{bytes}");
        }
    }

    #[test]
    fn memory_that_somebody_reads_is_not_used_again() {
        let value = Bytes::from(vec![b'x'; WORTH_BYTES]);
        let at = value.as_ptr();
        let reader = value.clone();
        assert!(unshared(value).is_none());
        assert_eq!(unshared(reader).unwrap().as_ptr(), at);
        assert!(unshared(Bytes::from(vec![b'x'; WORTH_BYTES - 1])).is_none());
    }
}

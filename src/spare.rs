//! Memory of a large value that has gone, kept for the next one of its size.
//!
//! The allocator gives such memory back to the system at once, which would hand it out again page by page. So each
//! thread keeps what it freed last, if somebody may soon want as much.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};

/// What a thread keeps at most: a request with the largest item of the usual limit.
const KEPT_BYTES: usize = (1 << 20) + (32 << 10);

/// Less than this is quickly made.
const WORTH_BYTES: usize = 16 << 10;

thread_local! {
    static SPARE: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Empty memory for `bytes`, in a size of the allocator's that is no larger than these need.
pub fn take(bytes: usize) -> BytesMut {
    if bytes >= WORTH_BYTES {
        let spare = SPARE.take();
        if spare.capacity() >= bytes && allocated(spare.capacity()) == allocated(bytes) {
            return spare;
        }
        SPARE.set(spare);
    }
    BytesMut::with_capacity(bytes)
}

/// Keeps the memory of a value that has gone, unless somebody still reads it.
pub fn give(value: Bytes) {
    if value.len() >= WORTH_BYTES
        && let Ok(memory) = value.try_into_mut()
    {
        give_memory(memory);
    }
}

/// Keeps memory, in place of what was kept before.
pub fn give_memory(mut memory: BytesMut) {
    memory.clear();
    // With what lies in front of what was taken out of it.
    _ = memory.try_reclaim(memory.capacity() + 1);
    if (WORTH_BYTES..=KEPT_BYTES).contains(&memory.capacity()) {
        SPARE.set(memory);
    }
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

    /// Memory with these bytes in it, and where it lies.
    fn received(bytes: usize) -> (BytesMut, *const u8) {
        let mut memory = take(bytes);
        memory.resize(bytes, b'x');
        let at = memory.as_ptr();
        (memory, at)
    }

    #[test]
    fn memory_of_a_value_is_used_again_with_all_that_lies_around_it() {
        let (memory, at) = received(100_000);
        give(memory.freeze().slice(40..99_998));
        let again = take(100_000);
        assert_eq!(again.as_ptr(), at);
        assert!(again.is_empty() && again.capacity() >= 100_000);
    }

    #[test]
    fn memory_that_somebody_reads_is_not_used_again() {
        let (memory, at) = received(100_000);
        let value = memory.freeze();
        let reader = value.clone();
        give(value);
        assert_ne!(take(100_000).as_ptr(), at);
        assert_eq!(reader.len(), 100_000);
    }

    #[test]
    fn memory_of_another_size_stays_for_who_needs_it() {
        let (memory, at) = received(100_000);
        give_memory(memory);
        let (smaller, larger) = (take(50_000), take(120_000));
        assert!(smaller.capacity() < 60_000 && larger.as_ptr() != at);
        assert_eq!(take(100_000).as_ptr(), at);
    }

    #[test]
    fn neither_little_memory_nor_a_lot_is_kept() {
        for bytes in [WORTH_BYTES - 1, KEPT_BYTES + 1] {
            give_memory(BytesMut::with_capacity(bytes));
            assert_eq!(SPARE.take().capacity(), 0, "{bytes}");
        }
    }
}

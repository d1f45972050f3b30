//! What an operation on a table really cost in memory: the allocator's own count of the bytes
//! that this thread took and gave back, its rounding included.

use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};

thread_local! {
    /// jemalloc keeps both counts at fixed addresses of each thread, so reading them costs two
    /// loads. `None` where another allocator is linked in.
    static COUNTS: Option<(ThreadLocal<u64>, ThreadLocal<u64>)> =
        allocatedp::read().ok().zip(deallocatedp::read().ok());
}

/// Bytes that this thread has allocated less those it has freed; only differences mean
/// anything.
#[inline]
pub(in crate::store) fn balance() -> i64 {
    COUNTS.with(|counts| counts.map_or(0, |(taken, given)| taken.get().wrapping_sub(given.get()) as i64))
}

/// Runs `make`; what it made, and the bytes that this thread took for it.
pub(in crate::store) fn measure<R>(make: impl FnOnce() -> R) -> (R, i64) {
    let before = balance();
    let made = make();
    (made, balance() - before)
}

#[cfg(test)]
mod tests {
    #[test]
    fn counts_what_the_allocator_counts() {
        let before = super::balance();
        let bytes = std::hint::black_box(vec![0_u8; 100]);
        assert_eq!(super::balance() - before, 112, "100 bytes take a chunk of 112");
        drop(bytes);
        assert_eq!(super::balance(), before);
    }
}

//! A place in memory that shares no cache line.

/// Keeps what every write touches on a cache line of its own.
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

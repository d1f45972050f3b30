//! jemalloc, which the store asks what each item costs, and how it is set up.
//!
//! Without the caches of each thread: a cache full of 50-byte values, and one whose values
//! change from 50 bytes to 1 KB, stay at 72 MiB resident with `-m 64`; with them at 87 and
//! 102 MiB, because what a thread has freed lies scattered in pages that hold live items. It
//! costs evicting writes about a sixth of their time, and reads nothing, since those never
//! allocate. Free pages go back to the system at once: kept for a tenth of a second, they let
//! a cache of values between 100 and 900 KB grow from 72 to 88 MiB, and saved no time that
//! could be measured.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A C string, as jemalloc expects to find it.
#[repr(transparent)]
pub struct Configuration(*const u8);

// SAFETY: the pointer is to a constant, which every thread may read.
#[expect(unsafe_code, reason = "see the argument above")]
unsafe impl Sync for Configuration {}

/// Read by jemalloc when it starts (jemalloc's manual, TUNING: `malloc_conf`).
// SAFETY: the name is jemalloc's own with the prefix that tikv-jemallocator builds it with,
// declared there as `const char *`; nothing else in the program has that name.
#[expect(unsafe_code, reason = "jemalloc finds it by this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static CONFIGURATION: Configuration =
    Configuration(c"tcache:false,dirty_decay_ms:0,muzzy_decay_ms:0,cache_oblivious:false".as_ptr().cast());

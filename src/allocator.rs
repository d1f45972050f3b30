//! jemalloc, and how it is set up.
//!
//! Free pages go back to the system at once: with large values of changing sizes, resident memory stays near what the
//! store counts. Threads keep a few pieces of small memory each. Else a client that comes and goes would cost a third
//! more: what it needs would be whole pages each time. Segments of 64 KiB begin at a page: an offset, as jemalloc gives by
//! itself, would cost a 16th of all memory.

use std::ffi::{CStr, c_char};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc is told. The tests of this crate measure no memory, and take an eighth of the time with its own settings.
const SETTINGS: &CStr = if cfg!(test) {
    c""
} else {
    c"tcache_max:16384,tcache_nslots_small_min:2,tcache_nslots_large:2,lg_tcache_nslots_mul:-1,\
      dirty_decay_ms:0,muzzy_decay_ms:0,cache_oblivious:false"
};

/// A C string, as jemalloc expects to find it.
#[repr(transparent)]
pub struct Configuration(*const c_char);

impl Configuration {
    /// Of settings as jemalloc's manual has them (TUNING).
    pub const fn new(settings: &'static CStr) -> Self {
        Self(settings.as_ptr())
    }
}

// SAFETY: the pointer is to a constant, which every thread may read.
#[expect(unsafe_code, reason = "see the argument above")]
unsafe impl Sync for Configuration {}

/// Read by jemalloc when it starts (jemalloc's manual, TUNING: `malloc_conf`).
// SAFETY: the name is jemalloc's own with the prefix that tikv-jemallocator builds it with,
// declared there as `const char *`; nothing else in the program has that name.
#[expect(unsafe_code, reason = "jemalloc finds it by this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static CONFIGURATION: Configuration = Configuration::new(SETTINGS);

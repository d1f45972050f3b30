//! The content of a cache: keys, expiry times, and the limits of both.

use bytes::Bytes;

/// Longest key in bytes (memcached.h, `KEY_MAX_LENGTH`).
pub const KEY_MAX: usize = 250;

/// Longest relative expiry time in seconds, 30 days; above it a number is a Unix time
/// (memcached.h, `REALTIME_MAXDELTA`).
const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;

/// Bytes that memcached counts against the item limit (`-I`): its header of 48 bytes and the
/// CAS token of 8, the key with a NUL, the flags unless they are 0, and the value with its line
/// end (items.c, `item_make_header`). Matched so that the same values fit.
pub fn item_size(key_len: usize, value_len: usize, flags: u32) -> usize {
    let flags_len = if flags == 0 { 0 } else { size_of::<u32>() };
    48 + 8 + key_len + 1 + flags_len + value_len + 2
}

/// When an item ends, as a client said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exptime {
    /// Until it is evicted.
    Never,
    /// This many seconds from now.
    In(u32),
    /// At this Unix time; past ones are stored and at once a miss.
    At(u64),
}

impl Exptime {
    /// Reads the number of the wire: 0 is never, up to 30 days are relative seconds, above
    /// that it is a Unix time, and negative is long past.
    pub fn from_wire(number: impl Into<i64>) -> Self {
        match number.into() {
            0 => Self::Never,
            number @ 1..=RELATIVE_MAX => Self::In(number.unsigned_abs() as u32),
            number if number < 0 => Self::At(0),
            number => Self::At(number.unsigned_abs()),
        }
    }
}

/// An item in the store, borrowed while its shard is locked.
#[derive(Debug, Clone, Copy, Default)]
pub struct ItemView<'a> {
    /// Its key, decoded.
    pub key: &'a [u8],
    /// Its bytes; none where only their number came from another node.
    pub value: &'a [u8],
    /// The memory in which it lies, where that may outlive the lock.
    pub shared: Option<&'a Bytes>,
    /// How many bytes it has.
    pub value_len: usize,
    /// The client's own 32 bits.
    pub flags: u32,
    /// Changes with every write to the key.
    pub cas: u64,
    /// Seconds left to live; `None` when it never expires.
    pub ttl_seconds: Option<u32>,
    /// Seconds since it was last asked for or written, before this operation.
    pub idle_seconds: u32,
    /// Whether it had been asked for before this operation.
    pub fetched: bool,
    /// Whether its key came base64-encoded and goes back that way.
    pub key_binary: bool,
    /// Whether it came from the origin of its group, which may renew it, and no client has changed it since.
    pub loaded: bool,
}

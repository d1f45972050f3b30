//! What the rules know of an item: everything but where its bytes lie.

use bytes::Bytes;

use crate::clock::Seconds;
use crate::item::ItemView;
use crate::spare::allocated;

/// An item without its key and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) cas: u64,
    pub(super) flags: u32,
    /// 0 is never.
    pub(super) exptime: Seconds,
    pub(super) accessed: Seconds,
    /// The generation it was written in (24 bits), and its marks (8 bits).
    pub(super) stamp: u32,
}

/// The bits of a stamp that are marks.
pub(super) const MARKS: u32 = 0xff;
/// Marked stale by `md I`: readers are told so, and the first of them wins the refill.
pub(super) const STALE: u32 = 1;
/// Somebody has won the refill.
pub(super) const WIN_SENT: u32 = 1 << 1;
/// Asked for since it was written.
pub(super) const FETCHED: u32 = 1 << 2;
/// Its key came base64-encoded when it was last written.
pub(super) const KEY_BINARY: u32 = 1 << 3;
/// Loaded from the origin of its group, and not changed by a client since.
pub(super) const LOADED: u32 = 1 << 4;
/// The marks that can change without that anything else of an item does.
pub(super) const LIGHT_MARKS: u32 = STALE | WIN_SENT | FETCHED | KEY_BINARY;

impl Facts {
    #[inline]
    pub(super) fn is(&self, mark: u32) -> bool {
        self.stamp & mark != 0
    }

    /// Seconds left to live; `None` is for ever.
    #[inline]
    pub(super) fn ttl(&self, now: Seconds) -> Option<u32> {
        (self.exptime != 0).then(|| self.exptime.saturating_sub(now))
    }

    /// The item as an outcome shows it.
    #[inline]
    pub(super) fn view<'a>(&self, key: &'a [u8], value: &'a [u8], now: Seconds) -> ItemView<'a> {
        ItemView {
            key,
            value,
            shared: None,
            value_len: value.len(),
            flags: self.flags,
            cas: self.cas,
            ttl_seconds: self.ttl(now),
            idle_seconds: now.saturating_sub(self.accessed),
            fetched: self.is(FETCHED),
            key_binary: self.is(KEY_BINARY),
            loaded: self.is(LOADED),
        }
    }
}

/// Why an item that lies in the table is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dead {
    Expired,
    Flushed,
}

impl Dead {
    /// Its name in `watch fetchers` (logger.c, `_logger_parse_ige`).
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Flushed => "flushed",
        }
    }
}

/// The value that an item gets in place of the one it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewValue<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// These bytes, and the memory in which they were received.
    Received(&'a [u8], &'a Bytes),
    /// The old bytes, and these behind them.
    Appended(&'a [u8]),
    /// These bytes, and the old ones behind them.
    Prepended(&'a [u8]),
    /// These bytes; if they are fewer than the old ones, as many blanks as make up for it.
    Padded(&'a [u8]),
}

impl<'a> NewValue<'a> {
    /// A client's bytes, and the memory in which they were received, where an item may keep that.
    #[inline]
    pub(super) fn sent(bytes: &'a [u8], received: Option<&'a Bytes>) -> Self {
        received.map_or(Self::Bytes(bytes), |memory| Self::Received(bytes, memory))
    }

    /// Bytes that it has, where the old value has `old`.
    pub(super) fn len(&self, old: usize) -> usize {
        match self {
            Self::Bytes(bytes) | Self::Received(bytes, _) => bytes.len(),
            Self::Appended(bytes) | Self::Prepended(bytes) => old + bytes.len(),
            Self::Padded(bytes) => old.max(bytes.len()),
        }
    }

    /// The memory that it was received in, with it alone, if that takes no more than memory of its own would.
    pub(super) fn kept(&self) -> Option<Bytes> {
        match *self {
            Self::Received(bytes, memory) => {
                (allocated(memory.len()) == allocated(bytes.len())).then(|| memory.slice_ref(bytes))
            }
            _ => None,
        }
    }

    /// It in memory of its own, where this is the old value: that which it was received in, or a copy.
    pub(super) fn alone(&self, old: &[u8]) -> Bytes {
        self.kept().unwrap_or_else(|| self.made_of(old).into())
    }

    /// It, where this is the old value.
    pub(super) fn made_of(&self, old: &[u8]) -> Vec<u8> {
        let mut value = vec![0; self.len(old.len())];
        self.write(old, &mut value);
        value
    }

    /// Writes it to where it lies from now on, which has its length; `old` is the old value.
    pub(super) fn write(&self, old: &[u8], into: &mut [u8]) {
        let (front, rest) = match *self {
            Self::Bytes(bytes) | Self::Received(bytes, _) => return into.copy_from_slice(bytes),
            Self::Padded(bytes) => {
                into[..bytes.len()].copy_from_slice(bytes);
                return into[bytes.len()..].fill(b' ');
            }
            Self::Appended(bytes) => (old, bytes),
            Self::Prepended(bytes) => (bytes, old),
        };
        into[..front.len()].copy_from_slice(front);
        into[front.len()..].copy_from_slice(rest);
    }

    /// Writes it over the old value, where it has the same length.
    pub(super) fn overwrite(&self, old: &mut [u8]) {
        match self {
            // The rest of the old value is all of it, and nothing comes to it.
            Self::Appended(_) | Self::Prepended(_) => {}
            Self::Bytes(_) | Self::Received(..) | Self::Padded(_) => self.write(&[], old),
        }
    }
}

//! An item as it lies in a table.

use crate::clock::Seconds;
use crate::command::{Found, Get};
use crate::item::ItemView;
use crate::store::{Context, Shared, generation};

/// An item, in the entry of the table; its key lies before it and its value behind a pointer.
pub(super) struct Item {
    pub(super) value: Box<[u8]>,
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

/// Why an item that lies in the table is none any more.
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

impl Item {
    pub(super) fn dead(&self, cx: &Context<'_>) -> Option<Dead> {
        if generation::is_older(self.stamp, cx.floor) {
            Some(Dead::Flushed)
        } else if self.exptime != 0 && self.exptime <= cx.now {
            Some(Dead::Expired)
        } else {
            None
        }
    }

    pub(super) fn is(&self, mark: u32) -> bool {
        self.stamp & mark != 0
    }

    pub(super) fn view<'a>(&'a self, key: &'a [u8], now: Seconds) -> ItemView<'a> {
        ItemView {
            key,
            value: &self.value,
            value_len: self.value.len(),
            flags: self.flags,
            cas: self.cas,
            ttl_seconds: (self.exptime != 0).then(|| self.exptime.saturating_sub(now)),
            idle_seconds: now.saturating_sub(self.accessed),
            fetched: self.is(FETCHED),
            key_binary: self.is(KEY_BINARY),
        }
    }

    /// Answers a get that found this item: touches it, and says who refills it.
    pub(super) fn hit<'a>(
        &'a mut self,
        cx: &Context<'_>,
        shared: &Shared,
        key: &'a [u8],
        get: &Get,
    ) -> Found<'a> {
        let win_sent = self.is(WIN_SENT);
        let stale = self.is(STALE);
        let recaches = |exptime: Seconds| {
            get.recache.is_some_and(|limit| exptime != 0 && exptime < shared.clock.deadline(limit, cx.now))
        };
        // R is judged by the time that was left when its turn came among the flags, and the
        // reply shows the time left before and after T likewise.
        let old_exptime = self.exptime;
        if let Some(touch) = get.touch {
            self.exptime = shared.clock.deadline(touch, cx.now);
        }
        let recache = recaches(if get.recache_first { old_exptime } else { self.exptime });
        let won = get.wins && !win_sent && (stale || recache);
        if won {
            self.stamp |= WIN_SENT;
        }
        let ttl_before = (old_exptime != 0).then(|| old_exptime.saturating_sub(cx.now));
        Found { item: self.view(key, cx.now), won, stale, win_sent, created: false, ttl_before }
    }

    /// Puts `value` in place of the old one, in the same memory where the length allows.
    pub(super) fn replace_value(&mut self, value: &[u8]) {
        if self.value.len() == value.len() {
            self.value.copy_from_slice(value);
        } else {
            self.value = value.into();
        }
    }
}

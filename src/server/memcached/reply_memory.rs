//! The memory for a client's replies: how much it holds while its client does not read them, and what waits while there
//! is no memory.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::server::memcached::input::UNCOUNTED_BYTES;
use crate::server::memcached::pipeline::Pipeline;
use crate::server::quota::{Quota, Refused, Share};

/// Bytes of replies after which a client is made to take them before more is executed.
const OUT_HIGH_WATER: usize = 256 << 10;

/// In place of [`OUT_HIGH_WATER`] while there is no room.
const OUT_TIGHT: usize = 16 << 10;

/// The most bytes that a reply takes beside its value.
const HEAD_BYTES: usize = 1 << 10;

/// One connection's part of the memory for replies.
#[derive(Debug)]
pub(super) struct ReplyMemory {
    share: Share,
    /// Whether there was none left as the batch began.
    tight: bool,
    /// Bytes of replies after which the batch pauses.
    high_water: usize,
    /// Room that the next command has to wait for.
    wanted: usize,
}

impl ReplyMemory {
    pub(super) fn new(quota: Arc<Quota>) -> Self {
        Self { share: Share::new(quota), tight: false, high_water: OUT_HIGH_WATER, wanted: 0 }
    }

    /// Looks whether there is room; once for a batch, before which all replies have been sent.
    #[inline]
    pub(super) fn begin_batch(&mut self) {
        self.tight = self.share.quota().is_tight();
        self.high_water = if self.tight { OUT_TIGHT } else { OUT_HIGH_WATER };
    }

    /// Whether there was no room as the batch began.
    #[inline]
    pub(super) fn is_tight(&self) -> bool {
        self.tight
    }

    /// Whether so much waits to be sent that the batch pauses.
    #[inline]
    pub(super) fn is_high(&self, bytes: usize) -> bool {
        bytes >= self.high_water
    }

    /// Whether others need this connection's memory.
    #[inline]
    pub(super) fn is_evicted(&self) -> bool {
        self.share.is_evicted()
    }

    /// While there is no room: whether a value of the given length may be read anyway. If not,
    /// [`ReplyMemory::poll_room`] says when.
    #[cold]
    pub(super) fn has_room(&mut self, pipeline: &Pipeline, value_bytes: usize) -> bool {
        if value_bytes <= UNCOUNTED_BYTES {
            return true;
        }
        let wanted = pipeline.out.len() + value_bytes + HEAD_BYTES;
        let ready = self.share.held() >= wanted && pipeline.is_empty();
        self.wanted = if ready { 0 } else { wanted };
        ready
    }

    /// Whether a command waits for room.
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted > 0
    }

    /// Waits until the command that was not ready may be executed.
    ///
    /// # Errors
    /// It never may.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<Result<(), Refused>> {
        let wanted = std::mem::take(&mut self.wanted);
        if wanted == 0 {
            return Poll::Ready(Ok(()));
        }
        let room = self.share.poll_reserve(cx, wanted);
        if room.is_pending() {
            self.wanted = wanted;
        }
        Poll::Ready(ready!(room).map(|_| ()))
    }

    /// Notes that a client has read the given number of bytes.
    #[inline]
    pub(super) fn moved(&mut self, bytes: usize) {
        self.share.moved(bytes);
    }

    /// Counts the replies that a client does not read; `sent` bytes of them were sent. A small rest does not keep the
    /// memory of a large one. Returns how many bytes were sent.
    #[cold]
    pub(super) fn hold_unsent(&mut self, cx: &Context<'_>, pipeline: &mut Pipeline, sent: usize) -> usize {
        let out = pipeline.sendable();
        let held = out.held_bytes();
        let shrinks = held > UNCOUNTED_BYTES && held / 2 > out.needed_bytes(sent);
        if shrinks {
            out.drop_sent(sent);
        }
        let bytes = pipeline.held_bytes();
        self.share.set(cx, if bytes > UNCOUNTED_BYTES { bytes } else { 0 });
        if shrinks { 0 } else { sent }
    }

    /// Gives back what was held, once everything has been sent and nothing is on its way.
    #[inline]
    pub(super) fn release_sent(&mut self, cx: &Context<'_>, pipeline: &Pipeline) {
        if self.share.held() > 0 && pipeline.is_empty() {
            self.share.set(cx, 0);
        }
    }
}

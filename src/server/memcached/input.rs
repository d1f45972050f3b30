//! Bytes from a client that were not executed yet, and the memory for them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio_util::io::poll_read_buf;

use crate::server::quota::{Quota, Refused, Share};
use crate::server::stream::Stream;

/// Bytes of one read. Small enough to stay in the cache, large enough that a pipeline of 16
/// fits many times.
pub(super) const READ_BYTES: usize = 16 << 10;

/// Rests of input up to this size go to the front of the thread's read buffer; larger ones (a
/// value on its way) are read on in a buffer of the connection's own.
const SMALL_REST: usize = 4 << 10;

/// What a connection holds without being counted, so that small values cost no lock.
pub(super) const UNCOUNTED_BYTES: usize = 8 << 10;

/// A thread keeps the memory of a large request for the next one up to this size: the largest item of the usual limit.
const KEPT_BYTES: usize = (1 << 20) + 2 * READ_BYTES;

/// The buffers for input that the connections of one thread share.
#[derive(Debug, Default)]
pub(super) struct ReadBuffers {
    /// What is read at once.
    pub(super) read: BytesMut,
    /// Memory for a large request, which would otherwise come from the system page by page each time.
    spare: BytesMut,
}

/// One connection's input.
#[derive(Debug)]
pub(super) struct Input {
    /// No complete request yet, or left when the answers became too many.
    rest: BytesMut,
    share: Share,
}

/// Where the bytes read are.
pub(super) enum Place {
    /// In the thread's buffer, behind the rest.
    Shared,
    /// In the rest.
    Own,
}

/// The outcome of reading.
pub(super) enum Read {
    /// This many bytes; 0 is the end.
    Bytes(usize, Place),
    /// There is no memory for the value that is on its way.
    NoRoom,
}

impl Input {
    pub(super) fn new(quota: Arc<Quota>) -> Self {
        Self { rest: BytesMut::new(), share: Share::new(quota) }
    }

    /// Whether nothing waits to be executed.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Whether others need its memory.
    #[inline]
    pub(super) fn is_evicted(&self) -> bool {
        self.share.is_evicted()
    }

    /// Reads once. `wanted` is the length of the request at the front of the rest, if that is known.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        wanted: usize,
        buffers: &mut ReadBuffers,
    ) -> Poll<io::Result<Read>> {
        if self.rest.len() > SMALL_REST {
            return self.poll_read_large(cx, stream, wanted, &mut buffers.spare);
        }
        let buffer = &mut buffers.read;
        buffer.clear();
        buffer.reserve(READ_BYTES);
        buffer.extend_from_slice(&self.rest);
        // While there is no room, a rest is to stay small.
        let most = if self.share.quota().is_tight() { SMALL_REST } else { READ_BYTES };
        let len = ready!(poll_read_buf(Pin::new(stream), cx, &mut buffer.limit(most)))?;
        Poll::Ready(Ok(Read::Bytes(len, Place::Shared)))
    }

    /// Reads on a request that is large. Its room is promised for all of it at once, so that two
    /// of them never wait for each other; memory is taken as it comes in, not as announced.
    #[cold]
    fn poll_read_large(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        wanted: usize,
        spare: &mut BytesMut,
    ) -> Poll<io::Result<Read>> {
        let len = self.rest.len();
        // A little of what follows fits in as well.
        let total = wanted.max(len) + READ_BYTES;
        if let Err(Refused) = ready!(self.share.poll_reserve(cx, total)) {
            return Poll::Ready(Ok(Read::NoRoom));
        }
        if self.rest.capacity() - len < READ_BYTES.min(total - len) {
            self.grow(total, spare);
        }
        let most = self.rest.capacity().min(total) - len;
        let len = ready!(poll_read_buf(Pin::new(stream), cx, &mut (&mut self.rest).limit(most)))?;
        self.share.moved(len);
        Poll::Ready(Ok(Read::Bytes(len, Place::Own)))
    }

    /// Gives the rest addresses for `total` bytes: the system has memory for them once they come in.
    fn grow(&mut self, total: usize, spare: &mut BytesMut) {
        // Not memory far larger than what is counted for it.
        let suits = (total..=2 * total).contains(&spare.capacity());
        let mut whole = if suits { std::mem::take(spare) } else { BytesMut::with_capacity(total) };
        whole.extend_from_slice(&self.rest);
        self.rest = whole;
    }

    /// Hands out the rest to be executed.
    pub(super) fn take(&mut self) -> BytesMut {
        std::mem::take(&mut self.rest)
    }

    /// Takes back the part of `before` bytes that was not executed. A small rest does not keep the memory of a large
    /// one, which the thread may have.
    pub(super) fn put_back(
        &mut self,
        cx: &Context<'_>,
        mut rest: BytesMut,
        before: usize,
        buffers: &mut ReadBuffers,
    ) {
        let untouched = rest.len() == before;
        if untouched {
            self.rest = rest;
        } else {
            self.rest = BytesMut::from(&rest[..]);
            rest.clear();
            // All of its memory, with what lies in front of what was taken out of it.
            _ = rest.try_reclaim(before);
            if rest.capacity() <= KEPT_BYTES && rest.capacity() > buffers.spare.capacity() {
                buffers.spare = rest;
            }
        }
        // What was promised to a request that is not there yet stays promised.
        if !untouched || self.share.held() == 0 {
            self.count(cx);
        }
    }

    /// Keeps what was not executed in the thread's buffer.
    pub(super) fn keep(&mut self, cx: &Context<'_>, left: &BytesMut, paused: bool) {
        self.rest.clear();
        self.rest.extend_from_slice(left);
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
        // Otherwise room for all of it is asked for at the next read.
        if paused || self.share.held() > 0 {
            self.count(cx);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, cx: &Context<'_>) {
        self.rest = BytesMut::new();
        self.count(cx);
    }

    fn count(&mut self, cx: &Context<'_>) {
        let bytes = self.rest.capacity();
        // In steps, so that a rest which shrinks bit by bit does not take a lock each time.
        self.share.set(cx, if bytes > UNCOUNTED_BYTES { bytes.next_multiple_of(READ_BYTES) } else { 0 });
    }
}

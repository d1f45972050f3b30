//! Bytes from a client that were not executed yet, and the memory for them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::io::poll_read_buf;

use crate::cache::Cache;
use crate::protocol::codec::Codec;
use crate::server::quota::{Quota, Refused, Share};
use crate::server::stream::Stream;
use crate::spare;
use crate::store::{Caller, Expected, Store};

/// Bytes of one read. Small enough to stay in the cache, large enough that a pipeline of 16
/// fits many times.
pub(super) const READ_BYTES: usize = 16 << 10;

/// Bytes of one read from a client that has filled one before, with requests that are not large: so that fewer of them are cut
/// in two. A `set` of 10 KB in a pipeline of 16 takes two thirds of the CPU time that it takes by reads of 16 KiB.
const FULL_READ_BYTES: usize = 64 << 10;

/// Rests of input up to this size need no promise of room for what is to follow.
const SMALL_REST: usize = 4 << 10;

/// What a connection holds without being counted, so that small values cost no lock.
pub(super) const UNCOUNTED_BYTES: usize = 8 << 10;

/// A request of this size is read into memory with nothing else in it, which its value may keep. The rests of smaller ones
/// go to the front of the thread's read buffer.
const ALONE_BYTES: usize = 32 << 10;

/// For one of more than this, room is made before it is read, step by step.
const EXPECTED_BYTES: usize = 64 << 10;

/// Bytes of such a request that are read at once: room is made for them in between, and others are not kept waiting. Reads of
/// 64 KiB cost some percent more.
const LARGE_READ_BYTES: usize = 128 << 10;

/// One connection's input.
pub(super) struct Input {
    /// No complete request yet, or left when the answers became too many.
    rest: BytesMut,
    /// Whether its memory is that of a large request.
    is_grown: bool,
    share: Share,
    /// Whether the last read was a full one.
    was_full: bool,
    /// What the store expects of a large request that has not come in whole.
    expected: Option<Box<Expected>>,
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
        Self {
            rest: BytesMut::new(),
            is_grown: false,
            share: Share::new(quota),
            was_full: false,
            expected: None,
        }
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
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<Read>> {
        if self.rest.len() > SMALL_REST {
            if wanted.max(self.rest.len()) >= ALONE_BYTES {
                return self.poll_read_large(cx, stream, wanted);
            }
            if let Err(Refused) = ready!(self.share.poll_reserve(cx, ALONE_BYTES)) {
                return Poll::Ready(Ok(Read::NoRoom));
            }
        }
        // While there is no room, a rest is to stay small, or within what is promised.
        let most = match (self.share.quota().is_tight(), self.share.held()) {
            (true, 0) => SMALL_REST,
            (false, _) if self.was_full => FULL_READ_BYTES,
            _ => READ_BYTES,
        };
        buffer.clear();
        buffer.reserve(self.rest.len() + most);
        buffer.extend_from_slice(&self.rest);
        let len = ready!(poll_read_buf(Pin::new(stream), cx, &mut buffer.limit(most)))?;
        self.was_full = len >= READ_BYTES;
        if self.share.held() > 0 {
            self.share.moved(len);
        }
        Poll::Ready(Ok(Read::Bytes(len, Place::Shared)))
    }

    /// Reads on a request that is large. Its room is promised for all of it at once, so that two
    /// of them never wait for each other; memory is taken as it comes in, not as announced, but for what was kept of others.
    #[cold]
    fn poll_read_large(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        wanted: usize,
    ) -> Poll<io::Result<Read>> {
        let len = self.rest.len();
        let total = match wanted {
            ALONE_BYTES.. if wanted > len => wanted,
            // A little of what follows fits in as well.
            _ => wanted.max(len) + READ_BYTES,
        };
        if let Err(Refused) = ready!(self.share.poll_reserve(cx, total)) {
            return Poll::Ready(Ok(Read::NoRoom));
        }
        // What follows a large request is perhaps another one: of that as little as possible is to be read before its memory.
        self.was_full = false;
        if self.rest.capacity() - len < READ_BYTES.min(total - len) {
            self.grow(total);
        }
        let most = LARGE_READ_BYTES.min(self.rest.capacity().min(total) - len);
        let len = ready!(poll_read_buf(Pin::new(stream), cx, &mut (&mut self.rest).limit(most)))?;
        self.share.moved(len);
        if self.rest.len() >= wanted {
            // It is stored now.
            self.expected = None;
        }
        Poll::Ready(Ok(Read::Bytes(len, Place::Own)))
    }

    /// Gives the rest addresses for `total` bytes: the system has memory for them once they come in.
    fn grow(&mut self, total: usize) {
        let mut whole = spare::take(total);
        whole.extend_from_slice(&self.rest);
        (self.rest, self.is_grown) = (whole, true);
    }

    /// Whether more of a large request of `wanted` bytes is to be read.
    #[inline]
    pub(super) fn is_large(&self, wanted: usize) -> bool {
        wanted > EXPECTED_BYTES && (SMALL_REST + 1..wanted).contains(&self.rest.len())
    }

    /// Has `store` make room for the next bytes of a large request, as far as one step goes, if its value is to lie here;
    /// whether it did. To be called before they are read.
    #[cold]
    pub(super) fn make_room(
        &mut self,
        codec: &Codec,
        cache: &Cache,
        store: &Arc<Store>,
        caller: &Caller<'_>,
    ) -> bool {
        if !cache.is_here(codec.unfinished_key(&self.rest)) {
            return false;
        }
        let (wanted, next) = (codec.wanted(), self.rest.len() + LARGE_READ_BYTES);
        let expected = self.expected.get_or_insert_with(|| Box::new(Expected::nothing(store.clone())));
        expected.reach(if next < wanted { next } else { spare::allocated(wanted) });
        expected.step(caller)
    }

    /// Hands out the rest to be executed.
    pub(super) fn take(&mut self) -> BytesMut {
        std::mem::take(&mut self.rest)
    }

    /// Hands out the rest, if it is a large request of this length and nothing else.
    pub(super) fn take_alone(&mut self, wanted: usize) -> Option<Bytes> {
        (wanted >= ALONE_BYTES && self.rest.len() == wanted).then(|| self.take().freeze())
    }

    /// Takes back what was handed out by [`Input::take_alone`], of which this many bytes were executed; values may have
    /// stayed in it.
    pub(super) fn put_back_alone(&mut self, cx: &Context<'_>, request: Bytes, used: usize) {
        let before = request.len();
        let mut rest = request.try_into_mut().unwrap_or_else(|shared| shared[used..].into());
        rest.advance(rest.len() - (before - used));
        self.put_back(cx, rest, before);
    }

    /// Takes back the part of `before` bytes that was not executed. A small rest does not keep the memory of a large
    /// request, which others may have.
    pub(super) fn put_back(&mut self, cx: &Context<'_>, rest: BytesMut, before: usize) {
        let untouched = rest.len() == before;
        if untouched {
            self.rest = rest;
        } else {
            self.expected = None;
            self.rest = BytesMut::from(&rest[..]);
            if std::mem::take(&mut self.is_grown) {
                spare::give_memory(rest);
            }
        }
        // What was promised to a request that is not there yet stays promised.
        if !untouched || self.share.held() == 0 {
            self.count(cx);
        }
    }

    /// Keeps what was not executed of `before` bytes in the thread's buffer: the front of a request of `wanted` bytes, if
    /// that is known.
    pub(super) fn keep(
        &mut self,
        cx: &Context<'_>,
        left: &BytesMut,
        before: usize,
        wanted: usize,
        paused: bool,
    ) {
        let untouched = left.len() == before;
        // What is executed in several turns is copied between them.
        self.was_full &= !paused;
        self.rest.clear();
        let is_promised = wanted >= ALONE_BYTES && left.len() > SMALL_REST && {
            if !untouched && self.share.held() > 0 {
                // Was promised to what has been executed.
                self.share.set(cx, counted(left.len()));
            }
            // Where there is no room yet, it is asked for again at the next read.
            matches!(self.share.poll_reserve(cx, wanted), Poll::Ready(Ok(())))
        };
        if is_promised {
            self.grow(wanted);
        }
        self.rest.extend_from_slice(left);
        if self.rest.is_empty() {
            (self.rest, self.is_grown) = (BytesMut::new(), false);
        }
        if paused || !untouched && wanted < ALONE_BYTES && self.share.held() > 0 {
            self.count(cx);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, cx: &Context<'_>) {
        (self.rest, self.is_grown, self.expected) = (BytesMut::new(), false, None);
        self.count(cx);
    }

    fn count(&mut self, cx: &Context<'_>) {
        self.share.set(cx, counted(self.rest.capacity()));
    }
}

/// What is counted for so many bytes: in steps, so that a rest which shrinks bit by bit does not take a lock each time.
fn counted(bytes: usize) -> usize {
    if bytes > UNCOUNTED_BYTES { bytes.next_multiple_of(READ_BYTES) } else { 0 }
}

//! One connection's part of a quota.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::server::quota::{EVICTED, Holder, Inside, MOVED_BYTES, Mark, Quota, Refused, STAYS, Waits};

/// One connection's part of a quota; given back when dropped.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    /// Its number among the holders, while it holds something or waits.
    seat: Option<(u64, Arc<Mark>)>,
    held: usize,
    waiting: bool,
    moved: usize,
}

impl Share {
    /// Nothing yet.
    pub fn new(quota: Arc<Quota>) -> Self {
        Self { quota, seat: None, held: 0, waiting: false, moved: 0 }
    }

    /// What all share.
    #[inline]
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Bytes that it holds, or was promised.
    #[inline]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether it must give everything back at once, because others need it and it does not move.
    #[inline]
    pub fn is_evicted(&self) -> bool {
        self.seat.as_ref().is_some_and(|(_, mark)| mark.fate.load(Ordering::Relaxed) == EVICTED)
    }

    /// Says how much it holds, whether there is room for it or not. Costs nothing while that is unchanged.
    #[inline]
    pub fn set(&mut self, cx: &Context<'_>, bytes: usize) {
        if bytes != self.held {
            self.set_anew(cx, bytes);
        }
    }

    #[cold]
    fn set_anew(&mut self, cx: &Context<'_>, bytes: usize) {
        let quota = Arc::clone(&self.quota);
        let inside = &mut *quota.inside.lock();
        self.held = bytes;
        if bytes == 0 && !self.waiting {
            if let Some((id, _)) = self.seat.take() {
                inside.leave(id);
            }
        } else {
            let id = self.seat(inside, cx);
            if let Some(holder) = inside.holders.get_mut(&id) {
                inside.held = inside.held - holder.held + bytes;
                holder.held = bytes;
            }
        }
        // Reads the clock only where a connection waits, or will wait.
        if quota.is_tight() || inside.held >= quota.limit {
            quota.admit_waiting(inside, Instant::now());
        }
    }

    /// Waits until it may hold the given number of bytes in all; is ready at once when it already does.
    ///
    /// # Errors
    /// There was no room for as long as one may wait.
    pub fn poll_reserve(&mut self, cx: &Context<'_>, bytes: usize) -> Poll<Result<(), Refused>> {
        if !self.waiting && self.held >= bytes {
            return Poll::Ready(Ok(()));
        }
        let quota = Arc::clone(&self.quota);
        let inside = &mut *quota.inside.lock();
        let id = self.seat(inside, cx);
        if !self.waiting {
            let now = Instant::now();
            if inside.queue.is_empty() && quota.fits(inside, id, bytes) {
                quota.grant(inside, id, bytes, now);
                quota.admit_waiting(inside, now);
            } else {
                self.waiting = true;
                inside.queue.push_back(id);
                if let Some(holder) = inside.holders.get_mut(&id) {
                    holder.waits = Some(Waits { bytes, since: now });
                }
                quota.reap(inside, now);
            }
        }
        let Some(holder) = inside.holders.get_mut(&id) else { return Poll::Ready(Err(Refused)) };
        if holder.waits.is_some() {
            return Poll::Pending;
        }
        self.waiting = false;
        self.held = holder.held;
        if !holder.is_told() {
            return Poll::Ready(Ok(()));
        }
        if holder.held == 0 {
            inside.leave(id);
            self.seat = None;
        } else if !holder.is_evicted() {
            holder.mark.fate.store(STAYS, Ordering::Relaxed);
        }
        Poll::Ready(Err(Refused))
    }

    /// As [`Share::poll_reserve`]. Cancellation safe.
    ///
    /// # Errors
    /// There was no room for as long as one may wait.
    pub async fn reserve(&mut self, bytes: usize) -> Result<(), Refused> {
        poll_fn(|cx| self.poll_reserve(cx, bytes)).await
    }

    /// Notes that the given number of bytes came in, or went out.
    #[inline]
    pub fn moved(&mut self, bytes: usize) {
        if let Some((_, mark)) = &self.seat {
            self.moved += bytes;
            if self.moved >= MOVED_BYTES {
                self.moved = 0;
                mark.moved.store(self.quota.millis(Instant::now()), Ordering::Relaxed);
            }
        }
    }

    fn seat(&mut self, inside: &mut Inside, cx: &Context<'_>) -> u64 {
        if let Some((id, _)) = self.seat {
            if let Some(holder) = inside.holders.get_mut(&id) {
                holder.waker.clone_from(cx.waker());
            }
            return id;
        }
        let moved = AtomicU64::new(self.quota.millis(Instant::now()));
        let mark = Arc::new(Mark { moved, fate: AtomicU8::new(STAYS) });
        let id = inside.next;
        inside.next += 1;
        let waker = cx.waker().clone();
        let holder = Holder { held: 0, reserved: false, waits: None, waker, mark: mark.clone() };
        inside.holders.insert(id, holder);
        self.seat = Some((id, mark));
        id
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((id, _)) = self.seat.take() {
            let inside = &mut *self.quota.inside.lock();
            inside.leave(id);
            if self.quota.is_tight() {
                self.quota.admit_waiting(inside, Instant::now());
            }
        }
    }
}

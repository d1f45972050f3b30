//! A bound for the memory that all connections hold together, on its way in or on its way out.
//!
//! A connection that needs much asks first, and waits while there is no room. So that waiting ends, the connection that
//! has moved nothing for longest makes room: it is told, and closes. Small amounts need no request; they are counted,
//! and make others wait.

mod share;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

pub use share::Share;

/// A holder of memory that others wait for makes room when it has moved less than [`MOVED_BYTES`] for this long.
const PATIENCE: Duration = Duration::from_millis(250);

/// The least bytes that count as having moved: a client that only wants to look alive sends less.
const MOVED_BYTES: usize = 16 << 10;

/// A connection that has waited for this long is refused. This is no longer than a standstill after which connections
/// are closed (`cache::pauses`), for the same reason: a client that gave up may have written something newer elsewhere.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// When a connection has waited for this long, the last to come goes first: it can still get its answer in time.
const LATE: Duration = Duration::from_millis(100);

/// How often the search for a holder that must make room runs, while there is no room.
const REAP_INTERVAL: Duration = Duration::from_millis(25);

/// The bound, and how much each connection holds.
#[derive(Debug)]
pub struct Quota {
    limit: usize,
    base: Instant,
    /// Whether there is no room, for those who look before they take.
    tight: AtomicBool,
    refused: AtomicU64,
    inside: Mutex<Inside>,
    crowded: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    holders: BTreeMap<u64, Holder>,
    next: u64,
    /// The sum of all.
    held: usize,
    /// How many have asked first.
    reserved: usize,
    /// The waiting connections, in the order in which they came.
    queue: VecDeque<u64>,
}

#[derive(Debug)]
struct Holder {
    held: usize,
    reserved: bool,
    waits: Option<Waits>,
    waker: Waker,
    mark: Arc<Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Waits {
    bytes: usize,
    since: Instant,
}

/// What a holder reports, and what it is told, without a lock.
#[derive(Debug)]
struct Mark {
    /// When it moved something last: milliseconds since the quota's base.
    moved: AtomicU64,
    fate: AtomicU8,
}

const STAYS: u8 = 0;
const REFUSED: u8 = 1;
const EVICTED: u8 = 2;

/// There was no room for as long as one may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of memory for connections")]
pub struct Refused;

/// What is held, for statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Connections that hold memory.
    pub holders: usize,
    /// Bytes that they hold, or were promised.
    pub bytes: usize,
    /// Bytes that there may be; `None` is any number.
    pub limit: Option<usize>,
    /// How often a connection was refused, or closed to make room.
    pub refused: u64,
}

impl Quota {
    /// Room for `limit` bytes; 0 is no limit.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: if limit == 0 { usize::MAX } else { limit },
            base: Instant::now(),
            tight: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            inside: Mutex::default(),
            crowded: Notify::new(),
        })
    }

    /// Whether there is no room. One load.
    #[inline]
    pub fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// What is held now.
    pub fn usage(&self) -> Usage {
        let inside = self.inside.lock();
        Usage {
            holders: inside.holders.len(),
            bytes: inside.held,
            limit: (self.limit != usize::MAX).then_some(self.limit),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// Makes sure that every wait ends; the owner of the quota must run it.
    pub async fn watch(&self) {
        loop {
            self.crowded.notified().await;
            while self.is_tight() {
                sleep(REAP_INTERVAL).await;
                self.reap(&mut self.inside.lock(), Instant::now());
            }
        }
    }

    /// Refuses connections that have waited too long, and closes the slowest where others need the room.
    fn reap(&self, inside: &mut Inside, now: Instant) {
        let late = |holders: &BTreeMap<u64, Holder>, id: &u64| {
            let waits = holders.get(id).and_then(|holder| holder.waits);
            waits.is_none_or(|waits| now.saturating_duration_since(waits.since) >= WAIT_MAX)
        };
        while let Some(id) = inside.queue.front().copied().filter(|id| late(&inside.holders, id)) {
            inside.queue.pop_front();
            if let Some(holder) = inside.holders.get_mut(&id) {
                holder.waits = None;
                self.tell(holder, REFUSED);
            }
        }
        let first = inside.waits().next().map_or(0, |waits| waits.bytes);
        let all: usize = inside.waits().map(|waits| waits.bytes).sum();
        // Not all held memory is needed at once, however many wait: so the slowest half gives way, and not a connection
        // that was held up for a moment.
        let wanted = all.min(first.max(self.limit / 2));
        let leaving: usize =
            inside.holders.values().filter(|holder| holder.is_evicted()).map(|h| h.held).sum();
        let after = (inside.held - inside.alone()).saturating_add(wanted).saturating_sub(leaving);
        let mut needed = after.saturating_sub(self.limit);
        if needed > 0 {
            let patience = PATIENCE.as_millis() as u64;
            let millis = self.millis(now);
            let silent = |holder: &Holder| millis.saturating_sub(holder.mark.moved.load(Ordering::Relaxed));
            let mut slowest: Vec<_> = inside
                .holders
                .values()
                .filter(|holder| holder.held > 0 && holder.waits.is_none() && !holder.is_told())
                .filter(|holder| silent(holder) >= patience)
                .collect();
            slowest.sort_by_key(|holder| std::cmp::Reverse(silent(holder)));
            for holder in slowest {
                if needed == 0 {
                    break;
                }
                needed = needed.saturating_sub(holder.held);
                self.tell(holder, EVICTED);
            }
        }
        self.admit_waiting(inside, now);
    }

    fn tell(&self, holder: &Holder, fate: u8) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        holder.mark.fate.store(fate, Ordering::Relaxed);
        holder.waker.wake_by_ref();
    }

    /// Lets in the connections that fit.
    fn admit_waiting(&self, inside: &mut Inside, now: Instant) {
        while let Some(oldest) = inside.queue.front().and_then(|id| inside.holders.get(id)?.waits) {
            let is_late = now.saturating_duration_since(oldest.since) >= LATE;
            let place = if is_late { inside.queue.len() - 1 } else { 0 };
            let id = inside.queue[place];
            let Some(waits) = inside.holders.get(&id).and_then(|holder| holder.waits) else { break };
            if !self.fits(inside, id, waits.bytes) {
                break;
            }
            inside.queue.remove(place);
            self.grant(inside, id, waits.bytes, now);
        }
        let tight = inside.held >= self.limit || !inside.queue.is_empty();
        self.tight.store(tight, Ordering::Relaxed);
        if tight {
            self.crowded.notify_one();
        }
    }

    /// The only connection with a reservation may have all it needs: otherwise a request larger than all of the room
    /// would wait without end.
    fn fits(&self, inside: &Inside, id: u64, bytes: usize) -> bool {
        let holder = inside.holders.get(&id);
        let more = bytes.saturating_sub(holder.map_or(0, |holder| holder.held));
        let others = inside.reserved - usize::from(holder.is_some_and(|holder| holder.reserved));
        others == 0 || inside.held.saturating_add(more) <= self.limit
    }

    fn grant(&self, inside: &mut Inside, id: u64, bytes: usize, now: Instant) {
        let Some(holder) = inside.holders.get_mut(&id) else { return };
        inside.held += bytes.saturating_sub(holder.held);
        inside.reserved += usize::from(!holder.reserved);
        holder.held = holder.held.max(bytes);
        holder.reserved = true;
        holder.mark.moved.store(self.millis(now), Ordering::Relaxed);
        if holder.waits.take().is_some() {
            holder.waker.wake_by_ref();
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.base).as_millis() as u64
    }
}

impl Inside {
    /// What the only connection with a reservation holds, while nobody waits for it: it may be more than there is room.
    fn alone(&self) -> usize {
        let mut promised = self.holders.values().filter(|holder| holder.reserved && !holder.is_evicted());
        if self.reserved == 1 && self.queue.is_empty() {
            promised.next().map_or(0, |holder| holder.held)
        } else {
            0
        }
    }

    fn waits(&self) -> impl Iterator<Item = Waits> {
        self.queue.iter().filter_map(|id| self.holders.get(id)?.waits)
    }

    fn leave(&mut self, id: u64) {
        if let Some(holder) = self.holders.remove(&id) {
            self.held -= holder.held;
            self.reserved -= usize::from(holder.reserved);
            if holder.waits.is_some() {
                self.queue.retain(|waiting| *waiting != id);
            }
        }
    }
}

impl Holder {
    fn is_evicted(&self) -> bool {
        self.mark.fate.load(Ordering::Relaxed) == EVICTED
    }

    fn is_told(&self) -> bool {
        self.mark.fate.load(Ordering::Relaxed) != STAYS
    }
}
#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use std::task::{Context, Poll};

    use super::*;

    fn share(quota: &Arc<Quota>) -> Share {
        Share::new(Arc::clone(quota))
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    async fn pass(millis: u64) {
        tokio::time::advance(Duration::from_millis(millis)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_when_there_is_no_room_waits_until_there_is() {
        let quota = Quota::new(100);
        let (mut one, mut two, mut three) = (share(&quota), share(&quota), share(&quota));
        assert_eq!(one.poll_reserve(&cx(), 60), Poll::Ready(Ok(())));
        assert_eq!(two.poll_reserve(&cx(), 40), Poll::Ready(Ok(())));
        assert!(quota.is_tight());
        assert!(three.poll_reserve(&cx(), 50).is_pending());
        two.set(&cx(), 0);
        assert!(three.poll_reserve(&cx(), 50).is_pending(), "40 are free");
        drop(one);
        assert_eq!(three.poll_reserve(&cx(), 50), Poll::Ready(Ok(())));
        assert_eq!((quota.usage().bytes, quota.usage().holders, quota.is_tight()), (50, 1, false));
        drop(three);
        assert_eq!((quota.usage().bytes, quota.usage().holders, quota.usage().refused), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_all_of_the_room_comes_in_alone() {
        let quota = Quota::new(100);
        let (mut large, mut other) = (share(&quota), share(&quota));
        assert_eq!(large.poll_reserve(&cx(), 1_000), Poll::Ready(Ok(())));
        assert!(other.poll_reserve(&cx(), 1).is_pending());
        large.set(&cx(), 0);
        assert_eq!(other.poll_reserve(&cx(), 1), Poll::Ready(Ok(())));
        assert!(large.poll_reserve(&cx(), 1_000).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_larger_than_all_of_the_room_may_stand_still_while_nobody_waits() {
        let quota = Quota::new(100);
        let mut watch = pin!(quota.watch());
        let (mut large, mut other) = (share(&quota), share(&quota));
        assert!(large.poll_reserve(&cx(), 1_000).is_ready());
        let mut is_evicted_later = async || {
            for _ in 0..4 {
                assert!(watch.as_mut().poll(&mut cx()).is_pending());
                pass(PATIENCE.as_millis() as u64).await;
            }
            large.is_evicted()
        };
        assert!(!is_evicted_later().await);
        assert!(other.poll_reserve(&cx(), 1).is_pending());
        assert!(is_evicted_later().await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_asked_for_makes_others_wait_but_one() {
        let quota = Quota::new(100);
        let (mut forced, mut one, mut two) = (share(&quota), share(&quota), share(&quota));
        forced.set(&cx(), 150);
        assert!(quota.is_tight());
        assert_eq!(one.poll_reserve(&cx(), 30), Poll::Ready(Ok(())));
        assert!(two.poll_reserve(&cx(), 30).is_pending());
        forced.set(&cx(), 10);
        assert_eq!(two.poll_reserve(&cx(), 30), Poll::Ready(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_least_makes_room_for_who_waits() {
        let quota = Quota::new(100);
        let mut watch = pin!(quota.watch());
        let (mut silent, mut lively, mut waits) = (share(&quota), share(&quota), share(&quota));
        assert!(silent.poll_reserve(&cx(), 50).is_ready() && lively.poll_reserve(&cx(), 50).is_ready());
        pass(PATIENCE.as_millis() as u64 - 1).await;
        lively.moved(MOVED_BYTES);
        // A little is as good as nothing.
        silent.moved(10);
        assert!(waits.poll_reserve(&cx(), 50).is_pending());
        assert!(!silent.is_evicted(), "it still has a moment");
        assert!(watch.as_mut().poll(&mut cx()).is_pending());
        pass(REAP_INTERVAL.as_millis() as u64).await;
        assert!(watch.as_mut().poll(&mut cx()).is_pending());
        assert!(silent.is_evicted() && !lively.is_evicted());
        assert!(waits.poll_reserve(&cx(), 50).is_pending(), "it has not left yet");
        drop(silent);
        assert_eq!(waits.poll_reserve(&cx(), 50), Poll::Ready(Ok(())));
        assert_eq!(quota.usage().refused, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_closed_than_is_needed() {
        let quota = Quota::new(100);
        let mut silent: Vec<_> = (0..10).map(|_| share(&quota)).collect();
        assert!(silent.iter_mut().all(|silent| silent.poll_reserve(&cx(), 10).is_ready()));
        pass(10_000).await;
        let mut waits = share(&quota);
        assert!(waits.poll_reserve(&cx(), 25).is_pending());
        assert_eq!(silent.iter().filter(|silent| silent.is_evicted()).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_a_second() {
        let quota = Quota::new(100);
        let mut watch = pin!(quota.watch());
        let (mut lively, mut waits) = (share(&quota), share(&quota));
        assert!(lively.poll_reserve(&cx(), 100).is_ready());
        assert!(waits.poll_reserve(&cx(), 1).is_pending());
        for _ in 0..41 {
            lively.moved(MOVED_BYTES);
            assert!(watch.as_mut().poll(&mut cx()).is_pending());
            pass(REAP_INTERVAL.as_millis() as u64).await;
        }
        assert!(watch.as_mut().poll(&mut cx()).is_pending());
        assert_eq!(waits.poll_reserve(&cx(), 1), Poll::Ready(Err(Refused)));
        // Later it may try again.
        drop(lively);
        assert_eq!(waits.poll_reserve(&cx(), 1), Poll::Ready(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_last_goes_first_once_others_have_waited_too_long() {
        let quota = Quota::new(100);
        let (mut all, mut old, mut new) = (share(&quota), share(&quota), share(&quota));
        assert!(all.poll_reserve(&cx(), 100).is_ready());
        assert!(old.poll_reserve(&cx(), 100).is_pending());
        pass(LATE.as_millis() as u64).await;
        assert!(new.poll_reserve(&cx(), 100).is_pending());
        drop(all);
        assert_eq!(new.poll_reserve(&cx(), 100), Poll::Ready(Ok(())));
        assert!(old.poll_reserve(&cx(), 100).is_pending());
        // A connection that gives up leaves no trace.
        drop(old);
        drop(new);
        assert_eq!((quota.usage().holders, quota.is_tight()), (0, false));
    }
}

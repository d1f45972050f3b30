//! Generations: how any number of items are made dead at one stroke.
//!
//! An item carries the generation in which it was written, and counts as long as that is not
//! older than a floor. A flush begins a generation and raises the floor to it. An item has only
//! 24 bits for its generation; [`UNSWEPT_MAX`] and [`LAG_MAX`] see to it that of any item and
//! any floor it stays clear which is the older.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock::Seconds;

/// An item's stamp has the lower 24 bits of a generation above 8 bits of marks.
const STAMP_SHIFT: u32 = 8;

/// So many generations after the last full sweep, whoever begins one sweeps: an item that is
/// older than the floor must be gone before it seems to be newer, 8 million generations on.
pub(super) const UNSWEPT_MAX: u32 = 1 << 22;

/// The floor is never further behind the newest generation, though nobody flushes: so a full
/// sweep leaves nothing older. What was not written for so long is dead.
pub(super) const LAG_MAX: u32 = 1 << 21;

// Older than the floor by more than the two together is nothing that lies in the store.
const _: () = assert!(UNSWEPT_MAX + LAG_MAX < 1 << 23);

/// When something was written, in changes of what counts ([`Store::advance`]). Generations wrap
/// around, so they have no order but that of two which are near each other.
///
/// [`Store::advance`]: crate::store::Store::advance
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Generation(u32);

impl Generation {
    /// The generation of this number, counted from the start of the store and wrapped around.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The later of two generations, less than two thousand million apart.
    #[inline]
    pub(super) fn later(self, other: Self) -> Self {
        if (self.0.wrapping_sub(other.0) as i32) < 0 { other } else { self }
    }

    /// The earlier of two generations, less than two thousand million apart.
    pub(super) fn earlier(self, other: Self) -> Self {
        if self.later(other) == self { other } else { self }
    }

    /// As an item carries it, with no marks.
    #[inline]
    pub(super) fn stamp(self) -> u32 {
        self.0 << STAMP_SHIFT
    }

    /// That of an item with this stamp, marks and all, that is in the store while the newest
    /// generation is `current`.
    pub(super) fn of_stamp(stamp: u32, current: Self) -> Self {
        let age = (current.stamp() >> STAMP_SHIFT).wrapping_sub(stamp >> STAMP_SHIFT);
        // Both have 24 bits, and so has what lies between them.
        current.minus(age & u32::MAX >> STAMP_SHIFT)
    }

    fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    fn minus(self, generations: u32) -> Self {
        Self(self.0.wrapping_sub(generations))
    }
}

/// Whether an item with this stamp, marks and all, was written before the generation `floor`,
/// given as a stamp without marks.
#[inline]
pub(super) fn is_older(stamp: u32, floor: u32) -> bool {
    // The top 24 bits wrap as the generations do, and the marks below only add to them.
    (stamp.wrapping_sub(floor) as i32) < 0
}

/// The generations that count at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// What is older is dead.
    pub(super) floor: Generation,
    /// The newest: what is written carries it.
    pub(super) current: Generation,
}

impl Span {
    #[inline]
    fn from_word(word: u64) -> Self {
        Self { floor: Generation(word as u32), current: Generation((word >> u32::BITS) as u32) }
    }

    fn word(self) -> u64 {
        u64::from(self.current.0) << u32::BITS | u64::from(self.floor.0)
    }

    /// The span once one more generation has begun.
    fn advanced(self) -> Self {
        let current = self.current.next();
        Self { floor: self.floor.later(current.minus(LAG_MAX)), current }
    }

    /// The span once everything has been flushed.
    fn flushed(self) -> Self {
        let current = self.current.next();
        Self { floor: current, current }
    }
}

/// The generations of a store.
///
/// Floor and newest generation are one word, read at once: a command that saw the floor of
/// before a flush and the generation of after it could carry an old value over.
#[derive(Debug, Default)]
pub(super) struct Generations {
    span: AtomicU64,
    /// What `span` was when the last full sweep began.
    swept: AtomicU64,
    /// When a delayed flush is due; 0 is never.
    due: AtomicU32,
}

impl Generations {
    /// The span now. A delayed flush that has come due happens here, before the first operation
    /// after its moment. To be asked under the lock of the shard that is looked at: so whatever
    /// lies there is of a generation no newer than this.
    #[inline]
    pub(super) fn span(&self, now: Seconds) -> Span {
        let due = self.due.load(Ordering::Relaxed);
        if due != 0
            && due <= now
            && self.due.compare_exchange(due, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            self.change(Span::flushed);
        }
        Span::from_word(self.span.load(Ordering::Acquire))
    }

    /// Begins a generation, and returns it.
    pub(super) fn advance(&self) -> Generation {
        self.change(Span::advanced).current
    }

    /// Makes everything dead that carries a generation of before.
    pub(super) fn flush(&self) {
        self.due.store(0, Ordering::Release);
        self.change(Span::flushed);
    }

    /// Flushes at a moment to come.
    pub(super) fn flush_at(&self, due: Seconds) {
        self.due.store(due, Ordering::Release);
    }

    /// When a delayed flush is due; `None` where there is none.
    pub(super) fn due(&self) -> Option<Seconds> {
        Some(self.due.load(Ordering::Relaxed)).filter(|due| *due != 0)
    }

    fn change(&self, next: impl Fn(Span) -> Span) -> Span {
        let next = |word| next(Span::from_word(word));
        let before =
            self.span.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| Some(next(word).word()));
        let (Ok(before) | Err(before)) = before;
        next(before)
    }

    /// Whether a sweep has to look at every shard, so that what is older than the floor goes,
    /// or before somebody has to wait for it.
    pub(super) fn wants_full_sweep(&self) -> bool {
        let floor = Span::from_word(self.span.load(Ordering::Acquire)).floor;
        let swept = Span::from_word(self.swept.load(Ordering::Relaxed));
        floor != swept.floor || self.unswept() > UNSWEPT_MAX / 2
    }

    /// Whether nothing may begin a generation before there was a full sweep.
    pub(super) fn is_overdue(&self) -> bool {
        self.unswept() > UNSWEPT_MAX
    }

    fn unswept(&self) -> u32 {
        let span = Span::from_word(self.span.load(Ordering::Acquire));
        span.current.0.wrapping_sub(Span::from_word(self.swept.load(Ordering::Relaxed)).current.0)
    }

    /// Notes that every shard has been swept since the span was `began`. Of sweeps that overlap
    /// the earlier may be noted last: then there is one more than necessary.
    pub(super) fn note_swept(&self, began: Span) {
        self.swept.store(began.word(), Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Generations {
    /// As if this many generations had begun and nobody had swept.
    pub(super) fn skip(&self, generations: u32) {
        self.change(|span| {
            let current = Generation(span.current.0.wrapping_add(generations - 1));
            Span { current, ..span }.advanced()
        });
    }

    /// As if so many generations had begun that this is the newest, and all before was flushed
    /// and swept.
    pub(super) fn set(&self, current: u32) {
        let current = Generation(current);
        self.change(|_| Span { floor: current, current });
        self.note_swept(Span { floor: current, current });
    }
}

//! S3-FIFO: which segment or large item gives way next.
//!
//! What is new goes into a small queue. When that holds more than a tenth of the bytes, its oldest unit gives way: items that
//! were used meanwhile move to the main queue, the others go, and their keys are remembered for a while. A key that comes
//! back in that time goes to the main queue at once. There, what was used since it was put in stays for another round.
//!
//! Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.

use lru::LruCache;

use crate::store::facts::Facts;

/// The small queue gives way while it has more than this part of the bytes.
const SMALL_PART: usize = 10;

/// Bytes that a unit takes in a queue: a node of the list and its place in the table.
pub(super) const UNIT_BYTES: usize = 64;

/// What gives way as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    Segment(usize),
    Large(usize),
}

/// One of the two queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    Small,
    Main,
}

/// A queue of one partition, in which a unit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) partition: u16,
    pub(super) queue: Queue,
}

/// Items that end at about the same time share segments, which are then dead as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TtlClass(u8);

impl TtlClass {
    /// Classes there are.
    const COUNT: usize = 4;

    pub(super) fn of(facts: &Facts) -> Self {
        if facts.exptime == 0 {
            return Self(0);
        }
        Self(match facts.exptime.saturating_sub(facts.accessed) {
            ..256 => 1,
            256..8192 => 2,
            _ => 3,
        })
    }
}

/// Both queues of a partition, the oldest unit of each at its end, and the segments that are still being filled.
#[derive(Debug)]
pub(super) struct Queues {
    small: LruCache<Unit, ()>,
    main: LruCache<Unit, ()>,
    /// Bytes of all units of a queue, open segments included.
    bytes: [usize; 2],
    /// Bytes that all queues together had when somebody asked last.
    reported: usize,
    open: [[Option<usize>; TtlClass::COUNT]; 2],
    /// What was just written to, which does not give way to itself.
    newest: Option<Unit>,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self {
            small: LruCache::unbounded(),
            main: LruCache::unbounded(),
            bytes: [0; 2],
            reported: 0,
            open: [[None; TtlClass::COUNT]; 2],
            newest: None,
        }
    }

    fn list(&mut self, queue: Queue) -> &mut LruCache<Unit, ()> {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    /// Puts a unit to the front.
    pub(super) fn push(&mut self, queue: Queue, unit: Unit) {
        _ = self.list(queue).push(unit, ());
    }

    /// Takes a unit out, wherever it stands.
    pub(super) fn remove(&mut self, queue: Queue, unit: Unit) {
        _ = self.list(queue).pop(&unit);
    }

    /// Counts bytes that a queue has gained.
    pub(super) fn grow(&mut self, queue: Queue, bytes: usize) {
        self.bytes[queue as usize] += bytes;
    }

    /// Counts bytes that a queue has lost.
    pub(super) fn shrink(&mut self, queue: Queue, bytes: usize) {
        self.bytes[queue as usize] -= bytes;
    }

    /// Notes what was just written; `None`: it may give way, too.
    pub(super) fn note_newest(&mut self, unit: Option<Unit>) {
        self.newest = unit;
    }

    /// Whether this was just written.
    pub(super) fn is_newest(&self, unit: Unit) -> bool {
        self.newest == Some(unit)
    }

    /// Bytes of all units.
    #[inline]
    pub(super) fn used(&self) -> usize {
        self.bytes[0] + self.bytes[1]
    }

    /// By how many bytes that has changed since this was called last.
    pub(super) fn growth(&mut self) -> i64 {
        let used = self.used();
        used as i64 - std::mem::replace(&mut self.reported, used) as i64
    }

    /// The unit that gives way next; it stays in its queue. `None` where nothing is left but open segments, and what was
    /// just written.
    pub(super) fn next(&self) -> Option<Unit> {
        let [small, main] = self.bytes;
        let (first, second) = if small * SMALL_PART > small + main {
            (&self.small, &self.main)
        } else {
            (&self.main, &self.small)
        };
        let oldest = |list: &LruCache<Unit, ()>| {
            list.iter().rev().map(|(&unit, ())| unit).find(|&unit| Some(unit) != self.newest)
        };
        oldest(first).or_else(|| oldest(second))
    }

    /// The oldest unit of each queue.
    pub(super) fn oldest(&self) -> impl Iterator<Item = Unit> {
        [&self.small, &self.main].into_iter().filter_map(|list| list.peek_lru()).map(|(&unit, ())| unit)
    }

    /// The segment that is being filled with items of a class.
    pub(super) fn open(&mut self, queue: Queue, class: TtlClass) -> &mut Option<usize> {
        &mut self.open[queue as usize][usize::from(class.0)]
    }

    /// All segments that are being filled.
    pub(super) fn opened(&self) -> impl Iterator<Item = usize> {
        self.open.iter().flatten().copied().flatten()
    }
}

#[cfg(test)]
impl Queues {
    pub(super) fn bytes(&self) -> [usize; 2] {
        self.bytes
    }

    pub(super) fn units(&self) -> usize {
        self.small.len() + self.main.len()
    }
}

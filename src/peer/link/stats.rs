//! Counts of a node's links, for metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::command::Unavailable;
use crate::stats::histogram::{BATCH, DURATION, Distribution, Histogram};
use crate::stats::sampler::Sampler;

/// Counts of one link. Written under the link's lock alone, so that counting is a load and a
/// store; read by anyone.
#[derive(Debug)]
pub struct Stats {
    /// Operations that wait to be sent.
    pub queued: AtomicUsize,
    /// Operations that wait for their outcomes.
    pub in_flight: AtomicUsize,
    /// Whether the breaker is open: the peer is taken for unreachable.
    pub open: AtomicBool,
    /// How often the breaker has opened.
    pub opened: AtomicU64,
    /// Streams that have come about.
    pub streams: AtomicU64,
    /// Messages sent.
    pub batches: AtomicU64,
    /// Operations sent.
    pub sent: AtomicU64,
    /// Operations that their owner answered.
    pub answered: AtomicU64,
    /// Operations handed back to be sent to another owner.
    pub redirected: AtomicU64,
    /// Operations that ended at their deadline, after they had been sent.
    pub timeouts: AtomicU64,
    /// [`Unavailable::Unreachable`] answers.
    pub unreachable: AtomicU64,
    /// [`Unavailable::Unanswered`] answers.
    pub unanswered: AtomicU64,
    /// [`Unavailable::Overloaded`] answers.
    pub overloaded: AtomicU64,
    /// [`Unavailable::Moved`] answers.
    pub moved: AtomicU64,
    /// [`Unavailable::Refused`] answers: the peer refused, or the operation came too late.
    pub refused: AtomicU64,
    /// From when an operation set out until its outcome was heard, of some of them.
    durations: Sampled,
    /// Operations in a message, of some of them.
    batch_sizes: Sampled,
}

impl Stats {
    /// An operation that set out at the given time has just been answered.
    pub(super) fn heard(&self, set_out: Instant, now: Instant) {
        let duration = now.saturating_duration_since(set_out);
        self.durations.record(now, duration.as_nanos() as u64);
    }

    /// A message with the given number of operations leaves.
    pub(super) fn leaves(&self, operations: usize, now: Instant) {
        add(&self.batches, 1);
        add(&self.sent, operations as u64);
        self.batch_sizes.record(now, operations as u64);
    }

    pub(super) fn count_failed(&self, why: Unavailable) {
        match why {
            Unavailable::Unreachable | Unavailable::NoOwner => add(&self.unreachable, 1),
            Unavailable::Unanswered => add(&self.unanswered, 1),
            Unavailable::Overloaded => add(&self.overloaded, 1),
            Unavailable::Moved => add(&self.moved, 1),
            Unavailable::Refused | Unavailable::Fenced => add(&self.refused, 1),
        }
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            queued: AtomicUsize::default(),
            in_flight: AtomicUsize::default(),
            open: AtomicBool::default(),
            opened: AtomicU64::default(),
            streams: AtomicU64::default(),
            batches: AtomicU64::default(),
            sent: AtomicU64::default(),
            answered: AtomicU64::default(),
            redirected: AtomicU64::default(),
            timeouts: AtomicU64::default(),
            unreachable: AtomicU64::default(),
            unanswered: AtomicU64::default(),
            overloaded: AtomicU64::default(),
            moved: AtomicU64::default(),
            refused: AtomicU64::default(),
            durations: Sampled::new(Histogram::new(&DURATION)),
            batch_sizes: Sampled::new(Histogram::new(&BATCH)),
        }
    }
}

/// A histogram of a sample of values.
#[derive(Debug)]
struct Sampled {
    began: Instant,
    sampler: Sampler,
    histogram: Histogram,
}

impl Sampled {
    fn new(histogram: Histogram) -> Self {
        Self { began: Instant::now(), sampler: Sampler::default(), histogram }
    }

    fn record(&self, now: Instant, value: u64) {
        self.sampler.tick(now.saturating_duration_since(self.began).as_secs() as u32);
        if self.sampler.choose() {
            self.histogram.record(value);
        }
    }
}

/// Peers that are remembered when they have gone: as many as a large cluster has in weeks.
const PEERS_KEPT: usize = 1_024;

/// The counts of all links of a node, by peer.
#[derive(Debug, Default)]
pub struct AllStats(Mutex<BTreeMap<String, Peer>>);

#[derive(Debug, Default)]
struct Peer {
    /// Links that are open, or were when last looked at.
    links: Vec<Arc<Stats>>,
    /// The counts of closed links.
    closed: Totals,
}

impl AllStats {
    /// The counts of a new link.
    pub(super) fn open(&self, peer: &str) -> Arc<Stats> {
        let stats = Arc::new(Stats::default());
        let mut peers = self.0.lock();
        // Nobody may ever ask for the totals, and only the caller knows which peers to keep.
        if peers.len() > 2 * PEERS_KEPT {
            peers.retain(|_, peer| {
                peer.fold();
                !peer.links.is_empty()
            });
        }
        let peer = peers.entry(peer.to_owned()).or_default();
        peer.fold();
        peer.links.push(stats.clone());
        stats
    }

    /// The counts of the links to each `known` peer together, since the start: a peer that comes back continues its
    /// counts.
    pub fn totals(&self, known: impl Fn(&str) -> bool) -> BTreeMap<String, Totals> {
        let mut peers = self.0.lock();
        let too_many = peers.len() > PEERS_KEPT;
        peers.retain(|id, peer| {
            peer.fold();
            !too_many || known(id) || !peer.links.is_empty()
        });
        let total = |peer: &Peer| {
            let mut totals = peer.closed.clone();
            peer.links.iter().for_each(|link| {
                totals.count(link);
                totals.look(link);
            });
            totals
        };
        peers.iter().filter(|(id, _)| known(id)).map(|(id, peer)| (id.clone(), total(peer))).collect()
    }
}

impl Peer {
    /// Takes over the counts of closed links.
    fn fold(&mut self) {
        let Self { links, closed } = self;
        links.retain(|link| {
            let is_open = Arc::strong_count(link) > 1;
            if !is_open {
                closed.count(link);
            }
            is_open
        });
    }
}

/// The counts of several links together; the fields are those of [`Stats`].
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "they would only repeat those of Stats")]
pub struct Totals {
    pub queued: u64,
    pub in_flight: u64,
    /// Links whose breaker is open.
    pub open: u64,
    pub opened: u64,
    pub streams: u64,
    pub batches: u64,
    pub sent: u64,
    pub timeouts: u64,
    /// Operations by their outcome.
    pub results: [(&'static str, u64); 7],
    pub durations: Distribution,
    pub batch_sizes: Distribution,
}

impl Default for Totals {
    fn default() -> Self {
        let results = ["answered", "returned", "unreachable", "unanswered", "overloaded", "moved", "refused"];
        Self {
            queued: 0,
            in_flight: 0,
            open: 0,
            opened: 0,
            streams: 0,
            batches: 0,
            sent: 0,
            timeouts: 0,
            results: results.map(|result| (result, 0)),
            durations: Distribution::new(&DURATION),
            batch_sizes: Distribution::new(&BATCH),
        }
    }
}

impl Totals {
    /// Operations that their owner answered.
    pub fn answered(&self) -> u64 {
        self.results.iter().filter(|(result, _)| *result == "answered").map(|(_, count)| count).sum()
    }

    /// Operations that were not executed, or may not have been.
    pub fn failed(&self) -> u64 {
        let failed = |result: &str| !matches!(result, "answered" | "returned");
        self.results.iter().filter(|(result, _)| failed(result)).map(|(_, count)| count).sum()
    }

    /// Adds the present state of an open link.
    fn look(&mut self, link: &Stats) {
        self.queued += link.queued.load(Ordering::Relaxed) as u64;
        self.in_flight += link.in_flight.load(Ordering::Relaxed) as u64;
        self.open += u64::from(link.open.load(Ordering::Relaxed));
    }

    /// Adds the counts of a link.
    fn count(&mut self, link: &Stats) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.opened += count(&link.opened);
        self.streams += count(&link.streams);
        self.batches += count(&link.batches);
        self.sent += count(&link.sent);
        self.timeouts += count(&link.timeouts);
        let Stats { answered, redirected, unreachable, unanswered, overloaded, moved, refused, .. } = link;
        let results = [answered, redirected, unreachable, unanswered, overloaded, moved, refused];
        self.results.iter_mut().zip(results).for_each(|((_, sum), counter)| *sum += count(counter));
        self.durations.add(&link.durations.histogram.read());
        self.batch_sizes.add(&link.batch_sizes.histogram.read());
    }
}

/// For one writer at a time.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_closed_link_did_still_counts() {
        let all = AllStats::default();
        let (first, second) = (all.open("b"), all.open("b"));
        add(&first.answered, 2);
        add(&second.unanswered, 1);
        second.open.store(true, Ordering::Relaxed);
        let now = Instant::now();
        first.heard(now, now + Duration::from_millis(3));
        let totals = all.totals(|_| true).remove("b").unwrap();
        assert_eq!((totals.results[0], totals.failed(), totals.open), (("answered", 2), 1, 1));
        drop((first, second));
        for _ in 0..2 {
            let totals = all.totals(|_| true).remove("b").unwrap();
            assert_eq!((totals.results[0], totals.failed()), (("answered", 2), 1));
            assert_eq!(totals.open, 0, "nobody waits for its breaker any more");
            assert_eq!(totals.durations.sum(), 0.003);
        }
        assert!(all.totals(|_| false).is_empty(), "it is a member no more");
        let back = all.totals(|_| true).remove("b").unwrap();
        assert_eq!(back.results[0], ("answered", 2), "it is one again");
        (0..=PEERS_KEPT).for_each(|number| drop(all.open(&format!("c{number}"))));
        assert!(all.totals(|id| id == "b").len() == 1 && all.0.lock().len() == 1, "many have gone");
        let kept = all.open("b");
        (0..=PEERS_KEPT * 4).for_each(|number| drop(all.open(&format!("c{number}"))));
        assert!(all.0.lock().len() <= 2 * PEERS_KEPT + 1, "nobody asks");
        assert_eq!(all.totals(|id| id == "b")["b"].results[0], ("answered", 2));
        drop(kept);
    }
}

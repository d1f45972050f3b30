//! A node's activity in each of the last seconds. The node itself keeps it, so that people who look after an incident
//! still see it.
//!
//! The HTTP thread takes a sample once a second, whether somebody looks or not. Nothing is counted for it: a sample is
//! the difference of two readings of the counters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::clock::unix_seconds;
use crate::server::connections::Connections;
use crate::stats::histogram::{DURATION, Distribution};
use crate::stats::{Counter, Ending, Registry, Snapshot};
use crate::store::Store;

/// How often there is a sample.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Samples that are kept: five minutes of them.
pub const SAMPLES_MAX: usize = 300;

/// Two members' samples of the same second may differ by this much: a busy thread comes late.
const GAP_SECONDS: u64 = 3;

/// What counts as a write.
const WRITES: [Counter; 8] = [
    Counter::CmdSet,
    Counter::CmdTouch,
    Counter::DeleteHits,
    Counter::DeleteMisses,
    Counter::IncrHits,
    Counter::IncrMisses,
    Counter::DecrHits,
    Counter::DecrMisses,
];

/// A node's activity in about a second, as numbers for each second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When it ended: seconds of Unix time, by the node's clock.
    pub at: u64,
    /// Keys read in this node's memory, for its own clients and for peers.
    pub reads: f64,
    /// Commands that write in this node's memory, for its own clients and for peers.
    pub writes: f64,
    /// Keys found.
    pub hits: f64,
    /// Keys not found.
    pub misses: f64,
    /// Reads of this node's clients that were answered as a miss because no owner could be asked.
    pub unavailable_reads: f64,
    /// Writes of this node's clients that were answered with an error: their owner could not be
    /// asked, or memory is full and may not be evicted.
    pub failed_writes: f64,
    /// Items dropped for room.
    pub evictions: f64,
    /// Bytes read from clients.
    pub received: f64,
    /// Bytes written to clients.
    pub sent: f64,
    /// Memory that counts against the limit, in bytes.
    pub used_bytes: u64,
    /// That limit.
    pub limit_bytes: u64,
    /// Client connections.
    pub connections: u64,
    /// Half of the executed commands of this node's clients took no longer than this, in seconds.
    pub p50: Option<f64>,
    /// 99 of a hundred took no longer than this.
    pub p99: Option<f64>,
    /// The same of commands that failed.
    pub failed_p50: Option<f64>,
    /// The same of commands that failed.
    pub failed_p99: Option<f64>,
}

/// The last samples of this node.
#[derive(Debug, Default)]
pub struct History(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    last: Option<Reading>,
    samples: VecDeque<Sample>,
}

/// Everything that samples are made of, at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// When it was taken.
    pub taken: Instant,
    /// That in seconds of Unix time.
    pub at: u64,
    counts: Snapshot,
    /// How long commands took, by how they ended.
    durations: [Distribution; Ending::ALL.len()],
    used_bytes: u64,
    limit_bytes: u64,
    connections: u64,
}

impl Reading {
    /// As it is now.
    pub fn of(registry: &Registry, store: &Store, connections: &Connections) -> Self {
        let mut durations = Ending::ALL.map(|_| Distribution::new(&DURATION));
        for by_ending in registry.durations().as_flattened() {
            durations.iter_mut().zip(by_ending).for_each(|(sum, more)| sum.add(more));
        }
        Self {
            taken: Instant::now(),
            at: unix_seconds(),
            counts: registry.totals(),
            durations,
            used_bytes: store.used_bytes(),
            limit_bytes: store.budget_bytes(),
            connections: connections.open() as u64,
        }
    }

    /// One of the counters.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counts.get(counter)
    }

    /// What happened since an earlier reading.
    fn since(&self, before: &Self) -> Sample {
        let seconds = self.taken.saturating_duration_since(before.taken).as_secs_f64().max(1e-3);
        let rate = |counters: &[Counter]| {
            let grown = counters.iter().map(|&one| self.count(one).saturating_sub(before.count(one)));
            rounded(grown.sum::<u64>() as f64 / seconds, 10.0)
        };
        let grown =
            |ending: Ending| self.durations[ending as usize].since(&before.durations[ending as usize]);
        let (ok, failed) = (grown(Ending::Ok), grown(Ending::Failed));
        let quantile = |of: &Distribution, part| of.quantile(part).map(|seconds| rounded(seconds, 1e9));
        Sample {
            at: self.at,
            reads: rate(&[Counter::CmdGet]),
            writes: rate(&WRITES),
            hits: rate(&[Counter::GetHits]),
            misses: rate(&[Counter::GetMisses]),
            unavailable_reads: rate(&[Counter::UnavailableReads]),
            failed_writes: rate(&[Counter::UnavailableWrites, Counter::StoreNoMemory]),
            evictions: rate(&[Counter::Evictions]),
            received: rate(&[Counter::BytesRead]),
            sent: rate(&[Counter::BytesWritten]),
            used_bytes: self.used_bytes,
            limit_bytes: self.limit_bytes,
            connections: self.connections,
            p50: quantile(&ok, 0.5),
            p99: quantile(&ok, 0.99),
            failed_p50: quantile(&failed, 0.5),
            failed_p99: quantile(&failed, 0.99),
        }
    }
}

/// Rounds, so that no number has more digits than are meaningful.
fn rounded(number: f64, steps: f64) -> f64 {
    (number * steps).round() / steps
}

impl History {
    /// Adds the changes since the last reading; the first reading has nothing to compare with.
    pub fn record(&self, reading: Reading) {
        let mut inside = self.0.lock();
        if let Some(before) = &inside.last {
            let sample = reading.since(before);
            if inside.samples.len() == SAMPLES_MAX {
                inside.samples.pop_front();
            }
            inside.samples.push_back(sample);
        }
        inside.last = Some(reading);
    }

    /// The samples of the last seconds, oldest first.
    pub fn last(&self, seconds: usize) -> Vec<Sample> {
        let inside = self.0.lock();
        let skipped = inside.samples.len().saturating_sub(seconds);
        inside.samples.iter().skip(skipped).copied().collect()
    }
}

/// A member's samples, as they travel between nodes. They carry ages, so that clocks need not agree.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// The member's time as it answered, in seconds of Unix time.
    pub now: u64,
    /// Its samples, oldest first.
    pub samples: Vec<Sample>,
}

impl Told {
    /// This node's samples at this moment.
    pub fn of(history: &History, seconds: usize) -> Self {
        Self { now: unix_seconds(), samples: history.last(seconds) }
    }

    /// The same on a clock that shows `now`.
    fn on_clock(self, now: u64) -> Vec<Sample> {
        let turned =
            |sample: Sample| Sample { at: now.saturating_sub(self.now.saturating_sub(sample.at)), ..sample };
        self.samples.into_iter().map(turned).collect()
    }
}

/// What all members did together in each of the last seconds. The latency of all is not known: each member knows only
/// its own clients'.
pub fn together(members: Vec<Told>, now: u64) -> Vec<Sample> {
    let members: Vec<_> = members.into_iter().map(|told| told.on_clock(now)).collect();
    let first = members.iter().filter_map(|samples| samples.first()).map(|sample| sample.at).min();
    let last = members.iter().filter_map(|samples| samples.last()).map(|sample| sample.at).max();
    let (Some(first), Some(last)) = (first, last) else { return Vec::new() };
    let from = first.max(last.saturating_sub(SAMPLES_MAX as u64 - 1));
    let mut next = vec![0; members.len()];
    let second = |at: u64| {
        let mut sum = Sample { at, ..Sample::default() };
        for (samples, next) in members.iter().zip(&mut next) {
            while samples.get(*next).is_some_and(|sample| sample.at < at) {
                *next += 1;
            }
            // The sample that ends then or a little later covers this second; the latest one may
            // still be to come.
            let covers = samples.get(*next).filter(|sample| sample.at - at < GAP_SECONDS);
            let latest = || samples.last().filter(|sample| sample.at < at && at - sample.at < GAP_SECONDS);
            if let Some(sample) = covers.or_else(latest) {
                sum.add(sample);
            }
        }
        sum
    };
    (from..=last).map(second).collect()
}

impl Sample {
    fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.reads, other.reads),
            (&mut self.writes, other.writes),
            (&mut self.hits, other.hits),
            (&mut self.misses, other.misses),
            (&mut self.unavailable_reads, other.unavailable_reads),
            (&mut self.failed_writes, other.failed_writes),
            (&mut self.evictions, other.evictions),
            (&mut self.received, other.received),
            (&mut self.sent, other.sent),
        ] {
            *sum = rounded(*sum + more, 10.0);
        }
        self.used_bytes += other.used_bytes;
        self.limit_bytes += other.limit_bytes;
        self.connections += other.connections;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Kind, Registry, Route};

    fn reading(registry: &Registry, began: Instant, second: u64) -> Reading {
        let mut durations = Ending::ALL.map(|_| Distribution::new(&DURATION));
        for by_ending in registry.durations().as_flattened() {
            durations.iter_mut().zip(by_ending).for_each(|(sum, more)| sum.add(more));
        }
        Reading {
            taken: began + Duration::from_secs(second),
            at: 1_000 + second,
            counts: registry.totals(),
            durations,
            used_bytes: 5,
            limit_bytes: 10,
            connections: 2,
        }
    }

    #[test]
    fn samples_are_differences_and_only_so_many_are_kept() {
        let (history, registry, began) = (History::default(), Registry::default(), Instant::now());
        let counters = registry.block();
        history.record(reading(&registry, began, 0));
        assert!(history.last(10).is_empty(), "nothing to compare with");
        counters.add(Counter::CmdGet, 30);
        counters.add(Counter::UnavailableWrites, 6);
        counters.time(Kind::Set, Route::Forwarded, Ending::Failed, Duration::from_micros(2));
        counters.time(Kind::Set, Route::Forwarded, Ending::Ok, Duration::from_millis(3));
        history.record(reading(&registry, began, 2));
        let sample = history.last(10)[0];
        assert_eq!((sample.at, sample.reads, sample.failed_writes), (1_002, 15.0, 3.0), "in two seconds");
        assert!(sample.p50 > Some(0.002), "failures are fast, and told apart: {sample:?}");
        assert!(sample.failed_p50 < Some(0.000_003), "{sample:?}");
        for second in 3..=SAMPLES_MAX as u64 + 10 {
            history.record(reading(&registry, began, second));
        }
        let all = history.last(usize::MAX);
        assert_eq!((all.len(), all[0].at), (SAMPLES_MAX, 1_011));
        assert_eq!(history.last(3).len(), 3);
        assert_eq!((all[0].reads, all[0].p50), (0.0, None));
    }

    #[test]
    fn members_are_added_up_by_age_whatever_their_clocks_show() {
        let told = |now: u64, ages: &[u64]| Told {
            now,
            samples: ages
                .iter()
                .map(|age| Sample { at: now - age, reads: 1.0, ..Sample::default() })
                .collect(),
        };
        // One member has missed a second, and its next sample covers that, too; another was there for both seconds.
        let sums =
            together(vec![told(500, &[4, 3, 2, 1, 0]), told(9_000, &[4, 3, 1, 0]), told(77, &[1, 0])], 500);
        let shown: Vec<_> = sums.iter().map(|sample| (sample.at, sample.reads)).collect();
        assert_eq!(shown, [(496, 2.0), (497, 3.0), (498, 3.0), (499, 3.0), (500, 3.0)]);
        assert!(together(Vec::new(), 500).is_empty());
        let late = together(vec![told(500, &[9, 8, 7]), told(500, &[2, 1, 0])], 500);
        let all_gone = late.iter().all(|sample| sample.reads == 1.0);
        assert!(all_gone, "whose last sample is old has gone: {late:?}");
    }
}

//! Counters, kept where the work is done: each thread that executes commands owns a block and
//! is its only writer, so counting costs a plain load and store. Readers sum the blocks.

pub mod histogram;
pub mod sampler;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::stats::histogram::{AGE, DURATION, Distribution, Histogram};
use crate::stats::sampler::Sampler;

/// Declares the counters once, each with its name in `stats` and, where it is published as it is,
/// its name and labels in Prometheus.
macro_rules! counters {
    ($($variant:ident, $stats:literal, $metric:literal $([$($label:ident = $value:literal),*])?, $what:literal;)*) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $(#[doc = $what] $variant,)* }

        impl Counter {
            /// Every counter, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name in memcached's `stats`.
            pub const fn stats_name(self) -> &'static str {
                match self { $(Self::$variant => $stats,)* }
            }

            /// Its name in Prometheus; empty where others that are published add up to it.
            pub const fn metric_name(self) -> &'static str {
                match self { $(Self::$variant => $metric,)* }
            }

            /// Its labels in Prometheus.
            pub const fn labels(self) -> &'static [(&'static str, &'static str)] {
                match self { $(Self::$variant => &[$($((stringify!($label), $value)),*)?],)* }
            }
        }
    };
}

counters! {
    TotalConnections, "total_connections", "filbert_connections_accepted_total", "Connections accepted.";
    RejectedConnections, "rejected_connections", "filbert_connections_rejected_total", "Connections over the limit.";
    CmdGet, "cmd_get", "", "Keys asked for.";
    CmdSet, "cmd_set", "", "Storage commands, cas among them.";
    CmdFlush, "cmd_flush", "filbert_commands_total" [command = "flush", result = "ok"], "flush_all commands.";
    CmdTouch, "cmd_touch", "", "Keys touched: touch, gat, mg with T.";
    CmdMeta, "cmd_meta", "filbert_meta_commands_total", "Meta commands.";
    GetHits, "get_hits", "filbert_commands_total" [command = "get", result = "hit"], "Keys found.";
    GetMisses, "get_misses", "filbert_commands_total" [command = "get", result = "miss"], "Keys not found.";
    GetExpired, "get_expired", "filbert_expirations_total" [found_by = "get"], "Keys found expired.";
    GetFlushed, "get_flushed", "filbert_get_flushed_total", "Keys found flushed.";
    DeleteMisses, "delete_misses", "filbert_commands_total" [command = "delete", result = "miss"], "Deletes of absent keys.";
    DeleteHits, "delete_hits", "filbert_commands_total" [command = "delete", result = "hit"], "Deletes of present keys.";
    IncrMisses, "incr_misses", "filbert_commands_total" [command = "incr", result = "miss"], "Increments of absent keys.";
    IncrHits, "incr_hits", "filbert_commands_total" [command = "incr", result = "hit"], "Increments done.";
    DecrMisses, "decr_misses", "filbert_commands_total" [command = "decr", result = "miss"], "Decrements of absent keys.";
    DecrHits, "decr_hits", "filbert_commands_total" [command = "decr", result = "hit"], "Decrements done.";
    CasMisses, "cas_misses", "filbert_commands_total" [command = "cas", result = "miss"], "Compare-and-swaps of absent keys.";
    CasHits, "cas_hits", "filbert_commands_total" [command = "cas", result = "stored"], "Compare-and-swaps done.";
    CasBadval, "cas_badval", "filbert_commands_total" [command = "cas", result = "exists"], "Compare-and-swaps with another token.";
    TouchHits, "touch_hits", "filbert_commands_total" [command = "touch", result = "hit"], "Touches of present keys.";
    TouchMisses, "touch_misses", "filbert_commands_total" [command = "touch", result = "miss"], "Touches of absent keys.";
    StoreTooLarge, "store_too_large", "filbert_commands_total" [command = "set", result = "too_large"], "Values over the item limit.";
    StoreNoMemory, "store_no_memory", "filbert_commands_total" [command = "set", result = "no_memory"], "Values refused by a full cache that may not evict.";
    Stored, "stored", "filbert_commands_total" [command = "set", result = "stored"], "Values stored by anything but cas.";
    NotStored, "not_stored", "filbert_commands_total" [command = "set", result = "not_stored"], "Storage commands whose condition did not hold.";
    UnavailableReads, "unavailable_reads", "filbert_unavailable_commands_total" [kind = "read"], "Reads answered as a miss because no owner could be asked.";
    UnavailableWrites, "unavailable_writes", "filbert_unavailable_commands_total" [kind = "write"], "Writes answered with an error because no owner could be asked.";
    PeerOperations, "peer_operations", "filbert_peer_operations_total", "Operations executed for other nodes.";
    AuthCmds, "auth_cmds", "filbert_logins_total", "Logins tried.";
    AuthErrors, "auth_errors", "filbert_login_failures_total", "Logins that failed.";
    TlsFailures, "ssl_handshake_errors", "filbert_tls_handshake_failures_total", "Connections that did not come to agree on TLS.";
    IdleKicks, "idle_kicks", "filbert_connections_idle_closed_total", "Connections closed by the idle timeout.";
    BytesRead, "bytes_read", "filbert_network_received_bytes_total", "Bytes read from clients.";
    BytesWritten, "bytes_written", "filbert_network_sent_bytes_total", "Bytes written to clients.";
    ListenDisabled, "listen_disabled_num", "filbert_listen_disabled_total", "Times accepting stopped at the connection limit.";
    ListenDisabledMicros, "time_in_listen_disabled_us", "", "Microseconds spent not accepting.";
    ConnYields, "conn_yields", "filbert_connection_yields_total", "Times a busy connection let others go first.";
    TotalItems, "total_items", "filbert_items_stored_total", "Items stored since the start.";
    Evictions, "evictions", "filbert_evictions_total", "Live items dropped for room.";
    EvictedUnfetched, "evicted_unfetched", "filbert_evictions_unfetched_total", "Of those, the ones never asked for.";
    ExpiredUnfetched, "expired_unfetched", "filbert_expirations_unfetched_total", "Items that expired and were never asked for.";
    Reclaimed, "reclaimed", "filbert_expirations_total" [found_by = "write"], "Expired items dropped to make room.";
    DirectReclaims, "direct_reclaims", "filbert_direct_reclaims_total", "Writes that had to make room first.";
    CrawlerStarts, "lru_crawler_starts", "filbert_sweeps_total", "Sweeps for expired items.";
    CrawlerReclaimed, "crawler_reclaimed", "filbert_expirations_total" [found_by = "sweep"], "Items a sweep dropped.";
    CrawlerItemsChecked, "crawler_items_checked", "filbert_sweep_checked_items_total", "Items a sweep looked at.";
}

const COUNTERS: usize = Counter::ALL.len();

/// Kinds of commands, as their durations are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// `get`, `gat`, `touch`, `mg`.
    Get,
    /// `set`, `cas`, `ms` and their like.
    Set,
    /// `delete`, `md`.
    Delete,
    /// `incr`, `decr`, `ma`.
    Arithmetic,
    /// `me`.
    Inspect,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Get, Self::Set, Self::Delete, Self::Arithmetic, Self::Inspect];

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Arithmetic => "arithmetic",
            Self::Inspect => "inspect",
        }
    }
}

/// Where a command was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Route {
    /// In this node's memory.
    Local,
    /// By another node.
    Forwarded,
}

impl Route {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Local, Self::Forwarded];

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Whether a command was executed. Failures are fast: among the others they would make a cluster in
/// trouble look quick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Ending {
    /// Yes; a miss is an answer, too.
    Ok,
    /// No: no owner could be asked, or the item could not be changed or stored.
    Failed,
}

impl Ending {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Ok, Self::Failed];

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

/// Each kind of command on each route, by how it ended.
type ByKind<T> = [[[T; Ending::ALL.len()]; Route::ALL.len()]; Kind::ALL.len()];

/// One thread's counters, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    counts: [AtomicU64; COUNTERS],
    /// Which commands are timed.
    pub sampler: Sampler,
    durations: ByKind<Histogram>,
    eviction_ages: Histogram,
}

impl Default for Counters {
    /// Of a node that times commands.
    fn default() -> Self {
        Self::new(true)
    }
}

impl Counters {
    /// All zero.
    fn new(samples: bool) -> Self {
        let duration = || Histogram::new(&DURATION);
        Self {
            counts: [const { AtomicU64::new(0) }; COUNTERS],
            sampler: Sampler::new(samples),
            durations: Kind::ALL.map(|_| Route::ALL.map(|_| Ending::ALL.map(|_| duration()))),
            eviction_ages: Histogram::new(&AGE),
        }
    }

    /// Counts how long a command that was chosen by the sampler took. Only the owning thread may
    /// call this, and the next one.
    pub fn time(&self, kind: Kind, route: Route, ending: Ending, duration: Duration) {
        let histogram = &self.durations[kind as usize][route as usize][ending as usize];
        histogram.record(duration.as_nanos() as u64);
    }

    /// Counts for how long an item had not been used when it was evicted.
    pub fn eviction_age(&self, seconds: u32) {
        self.eviction_ages.record(seconds.into());
    }

    /// Counts `n` more. Only the owning thread may call this: it is a load and a store, not
    /// one atomic step.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        let cell = &self.counts[counter as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Counts one more; see [`Counters::add`].
    #[inline]
    pub fn bump(&self, counter: Counter) {
        self.add(counter, 1);
    }
}

/// Every block of counters of a node.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<Blocks>);

#[derive(Debug, Default)]
struct Blocks {
    samples: bool,
    blocks: Mutex<Vec<Arc<Counters>>>,
    /// What `stats reset` took as its zero; the counters themselves never go back.
    baseline: Mutex<Snapshot>,
}

impl Registry {
    /// No block yet. `samples` says whether commands are timed, which is for nothing where nobody
    /// can ask how long they took.
    pub fn new(samples: bool) -> Self {
        Self(Arc::new(Blocks { samples, ..Blocks::default() }))
    }

    /// A new block, for one thread to count in.
    pub fn block(&self) -> Arc<Counters> {
        let block = Arc::new(Counters::new(self.0.samples));
        self.0.blocks.lock().push(block.clone());
        block
    }

    /// Sums since the start.
    pub fn totals(&self) -> Snapshot {
        let mut sums = Snapshot::default();
        for block in self.0.blocks.lock().iter() {
            for (sum, value) in sums.0.iter_mut().zip(&block.counts) {
                *sum += value.load(Ordering::Relaxed);
            }
        }
        sums
    }

    /// How long the commands that were timed took, since the start.
    pub fn durations(&self) -> ByKind<Distribution> {
        let mut sums =
            Kind::ALL.map(|_| Route::ALL.map(|_| Ending::ALL.map(|_| Distribution::new(&DURATION))));
        for block in self.0.blocks.lock().iter() {
            let sums = sums.as_flattened_mut().as_flattened_mut();
            let all = block.durations.as_flattened().as_flattened();
            sums.iter_mut().zip(all).for_each(|(sum, histogram)| sum.add(&histogram.read()));
        }
        sums
    }

    /// For how long evicted items had not been used, of some of them, since the start.
    pub fn eviction_ages(&self) -> Distribution {
        let mut sum = Distribution::new(&AGE);
        self.0.blocks.lock().iter().for_each(|block| sum.add(&block.eviction_ages.read()));
        sum
    }

    /// Sums since the last [`Registry::reset`], as `stats` shows them.
    pub fn since_reset(&self) -> Snapshot {
        // The zero before the sums: a reset in between would make it the larger.
        let baseline = *self.0.baseline.lock();
        let mut sums = self.totals();
        for (sum, base) in sums.0.iter_mut().zip(baseline.0) {
            *sum -= base;
        }
        sums
    }

    /// `stats reset`: from now on `since_reset` counts from zero.
    pub fn reset(&self) {
        *self.0.baseline.lock() = self.totals();
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot([u64; COUNTERS]);

impl Default for Snapshot {
    fn default() -> Self {
        Self([0; COUNTERS])
    }
}

impl Snapshot {
    /// One counter's value.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// memcached's `reclaimed`: dead items dropped for their memory, whoever found them. There the
    /// thread that looks after each LRU's end finds most of them, here the sweep does.
    pub fn reclaimed(&self) -> u64 {
        self.get(Counter::Reclaimed) + self.get(Counter::CrawlerReclaimed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_shows_zero_and_keeps_the_totals() {
        let registry = Registry::default();
        let (one, two) = (registry.block(), registry.block());
        one.add(Counter::GetHits, 3);
        two.bump(Counter::GetHits);
        assert_eq!(registry.since_reset().get(Counter::GetHits), 4);
        registry.reset();
        one.bump(Counter::GetHits);
        assert_eq!(registry.since_reset().get(Counter::GetHits), 1);
        assert_eq!(registry.totals().get(Counter::GetHits), 5);
    }

    #[test]
    fn what_a_sweep_drops_is_reclaimed_too() {
        let registry = Registry::default();
        let block = registry.block();
        block.add(Counter::Reclaimed, 2);
        block.add(Counter::CrawlerReclaimed, 3);
        assert_eq!(registry.totals().reclaimed(), 5);
    }

    #[test]
    fn names_are_unique() {
        let metric = |counter: Counter| (counter.metric_name(), counter.labels());
        for (i, a) in Counter::ALL.iter().enumerate() {
            for b in &Counter::ALL[i + 1..] {
                assert_ne!(a.stats_name(), b.stats_name());
                assert!(a.metric_name().is_empty() || metric(*a) != metric(*b), "{a:?} and {b:?}");
            }
        }
    }
}

//! Counters, kept where the work is done: each thread that executes commands owns a block and
//! is its only writer, so counting costs a plain load and store. Readers sum the blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Declares the counters once, each with its name in `stats` and its name in Prometheus.
macro_rules! counters {
    ($($variant:ident, $stats:literal, $prometheus:literal, $what:literal;)*) => {
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

            /// Its name and labels in Prometheus.
            pub const fn prometheus_name(self) -> &'static str {
                match self { $(Self::$variant => $prometheus,)* }
            }
        }
    };
}

counters! {
    TotalConnections, "total_connections", "filbert_connections_total", "Connections accepted.";
    RejectedConnections, "rejected_connections", "filbert_connections_rejected_total", "Connections over the limit.";
    CmdGet, "cmd_get", "filbert_commands_total{command=\"get\"}", "Keys asked for.";
    CmdSet, "cmd_set", "filbert_commands_total{command=\"set\"}", "Storage commands, cas among them.";
    CmdFlush, "cmd_flush", "filbert_commands_total{command=\"flush\"}", "flush_all commands.";
    CmdTouch, "cmd_touch", "filbert_commands_total{command=\"touch\"}", "Keys touched: touch, gat, mg with T.";
    CmdMeta, "cmd_meta", "filbert_commands_total{command=\"meta\"}", "Meta commands.";
    GetHits, "get_hits", "filbert_get_total{result=\"hit\"}", "Keys found.";
    GetMisses, "get_misses", "filbert_get_total{result=\"miss\"}", "Keys not found.";
    GetExpired, "get_expired", "filbert_get_expired_total", "Keys found expired.";
    GetFlushed, "get_flushed", "filbert_get_flushed_total", "Keys found flushed.";
    DeleteMisses, "delete_misses", "filbert_delete_total{result=\"miss\"}", "Deletes of absent keys.";
    DeleteHits, "delete_hits", "filbert_delete_total{result=\"hit\"}", "Deletes of present keys.";
    IncrMisses, "incr_misses", "filbert_incr_total{result=\"miss\"}", "Increments of absent keys.";
    IncrHits, "incr_hits", "filbert_incr_total{result=\"hit\"}", "Increments done.";
    DecrMisses, "decr_misses", "filbert_decr_total{result=\"miss\"}", "Decrements of absent keys.";
    DecrHits, "decr_hits", "filbert_decr_total{result=\"hit\"}", "Decrements done.";
    CasMisses, "cas_misses", "filbert_cas_total{result=\"miss\"}", "Compare-and-swaps of absent keys.";
    CasHits, "cas_hits", "filbert_cas_total{result=\"hit\"}", "Compare-and-swaps done.";
    CasBadval, "cas_badval", "filbert_cas_total{result=\"badval\"}", "Compare-and-swaps with another token.";
    TouchHits, "touch_hits", "filbert_touch_total{result=\"hit\"}", "Touches of present keys.";
    TouchMisses, "touch_misses", "filbert_touch_total{result=\"miss\"}", "Touches of absent keys.";
    StoreTooLarge, "store_too_large", "filbert_store_too_large_total", "Values over the item limit.";
    StoreNoMemory, "store_no_memory", "filbert_store_no_memory_total", "Values refused by a full cache that may not evict.";
    AuthCmds, "auth_cmds", "filbert_auth_total", "Logins tried.";
    AuthErrors, "auth_errors", "filbert_auth_failed_total", "Logins that failed.";
    IdleKicks, "idle_kicks", "filbert_connections_idle_closed_total", "Connections closed by the idle timeout.";
    BytesRead, "bytes_read", "filbert_network_received_bytes_total", "Bytes read from clients.";
    BytesWritten, "bytes_written", "filbert_network_sent_bytes_total", "Bytes written to clients.";
    ListenDisabled, "listen_disabled_num", "filbert_listen_disabled_total", "Times accepting stopped at the connection limit.";
    ListenDisabledMicros, "time_in_listen_disabled_us", "filbert_listen_disabled_microseconds_total", "Microseconds spent not accepting.";
    ConnYields, "conn_yields", "filbert_connection_yields_total", "Times a busy connection let others go first.";
    TotalItems, "total_items", "filbert_items_stored_total", "Items stored since the start.";
    Evictions, "evictions", "filbert_evictions_total", "Live items dropped for room.";
    EvictedUnfetched, "evicted_unfetched", "filbert_evictions_unfetched_total", "Of those, the ones never asked for.";
    ExpiredUnfetched, "expired_unfetched", "filbert_expired_unfetched_total", "Items that expired and were never asked for.";
    Reclaimed, "reclaimed", "filbert_expired_reclaimed_total", "Expired items dropped to make room.";
    DirectReclaims, "direct_reclaims", "filbert_direct_reclaims_total", "Writes that had to make room first.";
    CrawlerStarts, "lru_crawler_starts", "filbert_sweeps_total", "Sweeps for expired items.";
    CrawlerReclaimed, "crawler_reclaimed", "filbert_sweep_reclaimed_total", "Items a sweep dropped.";
    CrawlerItemsChecked, "crawler_items_checked", "filbert_sweep_checked_total", "Items a sweep looked at.";
}

const COUNTERS: usize = Counter::ALL.len();

/// One thread's counters, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters([AtomicU64; COUNTERS]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; COUNTERS])
    }
}

impl Counters {
    /// Counts `n` more. Only the owning thread may call this: it is a load and a store, not
    /// one atomic step.
    #[inline]
    pub fn add(&self, counter: Counter, n: u64) {
        let cell = &self.0[counter as usize];
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
    blocks: Mutex<Vec<Arc<Counters>>>,
    /// What `stats reset` took as its zero; the counters themselves never go back.
    baseline: Mutex<Snapshot>,
}

impl Registry {
    /// A new block, for one thread to count in.
    pub fn block(&self) -> Arc<Counters> {
        let block = Arc::new(Counters::default());
        self.0.blocks.lock().push(block.clone());
        block
    }

    /// Sums since the start.
    pub fn totals(&self) -> Snapshot {
        let mut sums = Snapshot::default();
        for block in self.0.blocks.lock().iter() {
            for (sum, value) in sums.0.iter_mut().zip(&block.0) {
                *sum += value.load(Ordering::Relaxed);
            }
        }
        sums
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
    fn names_are_unique() {
        for (i, a) in Counter::ALL.iter().enumerate() {
            for b in &Counter::ALL[i + 1..] {
                assert_ne!(a.stats_name(), b.stats_name());
                assert_ne!(a.prometheus_name(), b.prometheus_name());
            }
        }
    }
}

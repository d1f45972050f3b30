//! The store against a model of it, and what a model does not see: bytes, order, threads.

mod budget;
mod edges;
mod expected;
mod expires;
mod flush;
mod full;
mod generations;
mod loading;
mod min_generation;
mod min_generations;
mod model;
mod moving;
mod partitions;
mod steps;

use std::ops::ControlFlow;

use super::*;
use crate::command::{Delete, Get, Set, Verb};
use crate::item::Exptime;
use crate::stats::Counters;

/// Unix time at which the clocks of these tests start.
const UNIX_START: u64 = 1_700_000_000;

/// A store with a clock that the test sets, and the one thread that uses it.
struct Rig {
    store: Store,
    clock: Clock,
    events: Events,
    counters: Counters,
}

impl Rig {
    fn new(options: &Options) -> Self {
        let (clock, events) = (Clock::manual(UNIX_START), Events::default());
        let store = Store::new(options, clock.clone(), events.clone());
        Self { store, clock, events, counters: Counters::default() }
    }

    /// A store of one shard, whose order is the order of the whole.
    fn one_shard(options: &Options) -> Self {
        Self::with_shards(options, 1)
    }

    fn with_shards(options: &Options, count: usize) -> Self {
        let (clock, events) = (Clock::manual(UNIX_START), Events::default());
        let store = Store::of(Shards::with_count(options, clock.clone(), events.clone(), count));
        Self { store, clock, events, counters: Counters::default() }
    }

    fn caller(&self) -> Caller<'_> {
        Caller::new(self.clock.now(), &self.counters, 1)
    }

    fn run<R>(&self, key: &[u8], verb: Verb<'_>, reply: impl FnOnce(Outcome<'_>) -> R) -> R {
        self.run_from(None, key, verb, reply)
    }

    /// As a node does for which this key's items count from a generation on.
    fn run_from<R>(
        &self,
        min_generation: Option<Generation>,
        key: &[u8],
        verb: Verb<'_>,
        reply: impl FnOnce(Outcome<'_>) -> R,
    ) -> R {
        let caller = Caller { min_generation, ..self.caller() };
        self.store.execute(&caller, &Command { key, key_binary: false, verb }, reply)
    }

    fn set(&self, key: &[u8], value: &[u8], exptime: Exptime) -> &'static str {
        self.run(key, Verb::Set(Set { value, exptime, ..SET }), |outcome| outcome.name())
    }

    /// The name of the outcome of a plain get.
    fn get(&self, key: &[u8]) -> &'static str {
        self.run(key, Verb::Get(Get::PLAIN), |outcome| outcome.name())
    }

    /// Whether the item is there; touches nothing.
    fn holds(&self, key: &[u8]) -> bool {
        self.run(key, Verb::Inspect, |outcome| matches!(outcome, Outcome::Found(_)))
    }

    /// Likewise, where items count from this generation on.
    fn holds_from(&self, min_generation: Generation, key: &[u8]) -> bool {
        self.run_from(Some(min_generation), key, Verb::Inspect, |outcome| {
            matches!(outcome, Outcome::Found(_))
        })
    }

    fn delete(&self, key: &[u8]) -> &'static str {
        self.run(key, Verb::Delete(Delete::default()), |outcome| outcome.name())
    }

    fn flush(&self, delay: Exptime) {
        self.store.flush_all(&self.caller(), delay);
    }

    fn sweep(&self) -> bool {
        self.store.sweep(&self.caller(), |_| ControlFlow::Continue(()))
    }
}

/// A key longer than what fits in an entry, so that it is allocated for itself.
fn long_key(number: usize) -> Vec<u8> {
    format!("{number:0>200}").into_bytes()
}

/// A plain set of nothing.
const SET: Set<'static> = Set::PLAIN;

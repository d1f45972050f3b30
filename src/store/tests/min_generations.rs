//! Sweeps, dumps and evictions where a cluster says which keys count.

use std::collections::HashMap;

use super::*;
use crate::events::Kinds;
use crate::stats::{Counter, Registry};

/// The floor of each key; others are another node's.
struct Table(HashMap<Vec<u8>, Generation>);

impl MinGenerations for Table {
    fn min_generation(&self, key: &[u8]) -> Option<Generation> {
        self.0.get(key).copied()
    }
}

fn table<const N: usize>(floors: [(&[u8], Generation); N]) -> Option<Arc<dyn MinGenerations>> {
    Some(Arc::new(Table(floors.into_iter().map(|(key, floor)| (key.to_vec(), floor)).collect())))
}

/// Every key counts, from this generation on.
struct All(Generation);

impl MinGenerations for All {
    fn min_generation(&self, _: &[u8]) -> Option<Generation> {
        Some(self.0)
    }
}

/// No key is this node's.
struct Nothing;

impl MinGenerations for Nothing {
    fn min_generation(&self, _: &[u8]) -> Option<Generation> {
        None
    }
}

fn shown(rig: &Rig) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for shard in 0..rig.store.part_count() {
        rig.store.walk(&rig.caller(), shard, |item| keys.push(item.key.to_vec()));
    }
    keys.sort();
    keys
}

/// Shards that a sweep looked at.
fn visited(rig: &Rig) -> usize {
    let mut visited = 0;
    assert!(rig.store.sweep(&rig.caller(), |_| {
        visited += 1;
        ControlFlow::Continue(())
    }));
    visited
}

#[test]
fn a_walk_shows_and_a_sweep_leaves_what_counts() {
    let rig = Rig::new(&Options::default());
    rig.set(b"old", b"", Exptime::Never);
    rig.set(b"kept", b"", Exptime::Never);
    rig.set(b"lost", b"", Exptime::Never);
    let since = rig.store.advance();
    rig.set(b"came", b"", Exptime::Never);
    rig.store.set_min_generations(table([
        (b"old", since),
        (b"came", since),
        (b"kept", Generation::default()),
    ]));
    assert_eq!(shown(&rig), [&b"came"[..], b"kept"]);
    assert_eq!(rig.store.len(), 4);
    assert!(rig.sweep());
    assert_eq!(rig.store.len(), 2);
    assert_eq!(shown(&rig), [&b"came"[..], b"kept"]);

    rig.flush(Exptime::Never);
    assert!(shown(&rig).is_empty(), "a flush counts whatever the floors say");
    assert!(rig.sweep() && rig.store.is_empty());
}

#[test]
fn a_key_that_counts_still_ends_in_its_time() {
    let rig = Rig::one_shard(&Options::default());
    rig.store.set_min_generations(Some(Arc::new(All(Generation::default()))));
    rig.set(b"brief", b"", Exptime::In(1));
    rig.set(b"k", b"", Exptime::Never);
    rig.clock.advance(1);
    assert_eq!(shown(&rig), [b"k"]);
    assert!(rig.sweep());
    assert_eq!(rig.store.len(), 1);
}

#[test]
fn only_the_first_sweep_after_a_change_visits_every_segment() {
    let rig = Rig::one_shard(&Options { budget_bytes: 1 << 20, ..Options::default() });
    let fill = || (0..100).for_each(|number| _ = rig.set(&long_key(number), &[b'x'; 1000], Exptime::Never));
    fill();
    assert_eq!(visited(&rig), 0);
    let floors = || Some(Arc::new(All(Generation::default())) as Arc<dyn MinGenerations>);
    let all = 8;
    for floors in [floors(), floors(), None] {
        rig.store.set_min_generations(floors);
        assert_eq!(visited(&rig), all);
        assert_eq!(visited(&rig), 0);
        rig.store.advance();
        assert_eq!(visited(&rig), 0);
    }
    rig.flush(Exptime::Never);
    assert_eq!((visited(&rig), visited(&rig)), (all, 0));
    assert!(rig.store.is_empty());
}

#[test]
fn a_sweep_that_broke_off_or_was_overtaken_is_made_good() {
    let rig = Rig::one_shard(&Options { budget_bytes: 1 << 20, ..Options::default() });
    let all = || Some(Arc::new(All(Generation::default())) as Arc<dyn MinGenerations>);
    (0..100).for_each(|number| _ = rig.set(&long_key(number), &[b'x'; 1000], Exptime::Never));
    rig.store.set_min_generations(all());
    assert!(!rig.store.sweep(&rig.caller(), |_| ControlFlow::Break(())));
    assert_eq!(visited(&rig), 8);

    rig.store.set_min_generations(all());
    let mut first = true;
    rig.store.sweep(&rig.caller(), |_| {
        if std::mem::take(&mut first) {
            rig.store.set_min_generations(all());
        }
        ControlFlow::Continue(())
    });
    assert_eq!(visited(&rig), 8, "it saw older floors in some");
}

/// What is written once a change is in force is judged by the floors of that change, also by a
/// sweep that began before.
#[test]
fn a_sweep_asks_the_floors_of_the_moment() {
    let rig = Rig::new(&Options::default());
    rig.set(b"one to begin with", b"", Exptime::Never);
    rig.store.set_min_generations(Some(Arc::new(Nothing)));
    let key = |number: usize| format!("key{number}").into_bytes();
    let mut began = false;
    rig.store.sweep(&rig.caller(), |_| {
        if !std::mem::replace(&mut began, true) {
            rig.store.set_min_generations(Some(Arc::new(All(rig.store.advance()))));
            (0..1000).for_each(|number| _ = rig.set(&key(number), b"", Exptime::Never));
        }
        ControlFlow::Continue(())
    });
    assert!(began && (0..1000).all(|number| rig.holds(&key(number))));
}

#[test]
fn without_floors_everything_counts_again() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"k", b"", Exptime::Never);
    rig.store.set_min_generations(Some(Arc::new(Nothing)));
    assert!(shown(&rig).is_empty());
    rig.store.set_min_generations(None);
    assert_eq!(shown(&rig), [b"k"]);
}

#[test]
fn what_does_not_count_is_no_eviction() {
    let rig = Rig::one_shard(&Options { budget_bytes: 64 << 10, ..Options::default() });
    let registry = Registry::default();
    let counters = registry.block();
    let caller = Caller::new(rig.clock.now(), &counters, 1);
    let mut watcher = rig.events.watch(Kinds::EVICTIONS).unwrap();
    let fill = |from: usize| {
        for number in from..from + 100 {
            let verb = Verb::Set(Set { value: &[b'x'; 1000], ..SET });
            rig.store.execute(&caller, &Command { key: &long_key(number), key_binary: false, verb }, |_| ());
        }
    };
    rig.store.set_min_generations(Some(Arc::new(Nothing)));
    fill(0);
    assert_eq!(registry.totals().get(Counter::Evictions), 0);
    assert!(registry.totals().get(Counter::Reclaimed) > 40);
    assert!(watcher.try_recv().is_err());
    rig.store.set_min_generations(Some(Arc::new(All(Generation::default()))));
    fill(100);
    assert!(registry.totals().get(Counter::Evictions) > 40);
    assert!(watcher.try_recv().is_ok());
}

#[test]
fn a_full_cache_that_may_not_evict_takes_the_room_of_keys_that_went() {
    let rig = Rig::one_shard(&Options { budget_bytes: 64 << 10, evict: false, ..Options::default() });
    let fill = |from: usize| {
        (from..).take_while(|&n| rig.set(&long_key(n), &[b'x'; 1000], Exptime::Never) == "stored").count()
    };
    let first = fill(0);
    assert_eq!(fill(1000), 0);
    rig.store.set_min_generations(Some(Arc::new(All(rig.store.advance()))));
    assert!(fill(2000).abs_diff(first) <= 2);
}

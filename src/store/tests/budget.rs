//! Bytes: the count is exact, the budget holds, and the right items give way.

use std::sync::Barrier;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use proptest::prelude::*;

use super::*;
use crate::events::Kinds;
use crate::stats::Registry;

/// An item's entry, its neighbours in the list and the allocator's rounding: generously.
const ITEM_OVERHEAD: u64 = 1024;

/// A table of this few items grows by at most this much in one step.
const TABLE_STEP: u64 = 64 << 10;

fn options(budget_bytes: u64, evict: bool) -> Options {
    Options { budget_bytes, evict, ..Options::default() }
}

/// One operation whose memory is watched; it allocates nothing itself.
#[derive(Debug, Clone)]
enum Op {
    Set { key: usize, len: usize, exptime: Exptime, mode: SetMode },
    Get { key: usize, vivify: bool },
    Delete { key: usize, invalidate: bool, clear: bool },
    Incr { key: usize },
    Unstored { key: usize },
    Flush,
    Advance,
    Sweep,
}

fn op(keys: usize) -> impl Strategy<Value = Op> {
    let mode = prop_oneof![
        4 => Just(SetMode::Set),
        1 => Just(SetMode::Add),
        1 => Just(SetMode::Replace),
        1 => Just(SetMode::Append),
        1 => Just(SetMode::Prepend),
    ];
    let exptime =
        prop_oneof![3 => Just(Exptime::Never), 1 => Just(Exptime::In(2)), 1 => Just(Exptime::At(0))];
    prop_oneof![
        12 => (0..keys, prop_oneof![0..40_usize, 0..6000_usize], exptime, mode)
            .prop_map(|(key, len, exptime, mode)| Op::Set { key, len, exptime, mode }),
        4 => (0..keys, any::<bool>()).prop_map(|(key, vivify)| Op::Get { key, vivify }),
        3 => (0..keys, any::<bool>(), any::<bool>())
            .prop_map(|(key, invalidate, clear)| Op::Delete { key, invalidate, clear }),
        1 => (0..keys).prop_map(|key| Op::Incr { key }),
        1 => (0..keys).prop_map(|key| Op::Unstored { key }),
        1 => Just(Op::Flush),
        2 => Just(Op::Advance),
        1 => Just(Op::Sweep),
    ]
}

fn apply(rig: &Rig, op: &Op, keys: &[Vec<u8>], bytes: &[u8]) {
    let run = |key: usize, verb| rig.run(&keys[key], verb, |_| ());
    match *op {
        Op::Set { key, len, exptime, mode } => {
            run(key, Verb::Set(Set { mode, value: &bytes[..len], exptime, ..SET }));
        }
        Op::Get { key, vivify } => {
            run(key, Verb::Get(Get { vivify: vivify.then_some(Exptime::In(1)), ..Get::PLAIN }));
        }
        Op::Delete { key, invalidate, clear } => {
            run(key, Verb::Delete(Delete { invalidate, clear, ..Delete::default() }));
        }
        Op::Incr { key } => run(
            key,
            Verb::Arithmetic(crate::command::Arithmetic {
                decrement: false,
                delta: u64::MAX / 2,
                vivify: Some(Exptime::Never),
                initial: 9,
                ..crate::command::Arithmetic::PLAIN
            }),
        ),
        Op::Unstored { key } => rig.store.drop_unstored(&keys[key], SetMode::Set),
        Op::Flush => rig.flush(Exptime::Never),
        Op::Advance => rig.clock.advance(1),
        Op::Sweep => _ = rig.sweep(),
    }
}

proptest! {
    #[test]
    fn counts_every_byte_and_keeps_the_budget(
        ops in proptest::collection::vec(op(60), 1..250),
        evict: bool,
        sharded: bool,
    ) {
        // An empty store of 16 shards takes some 9 KiB.
        let options = options(96 << 10, evict);
        let rig = if sharded { Rig::new(&options) } else { Rig::one_shard(&options) };
        let bytes = vec![b'1'; 6000];
        let keys: Vec<_> =
            (0..60).map(|i| if i % 2 == 0 { long_key(i) } else { i.to_string().into_bytes() }).collect();
        for op in &ops {
            let (used, balance) = (rig.store.used_bytes() as i64, table::balance());
            apply(&rig, op, &keys, &bytes);
            let really = table::balance() - balance;
            prop_assert_eq!(rig.store.used_bytes() as i64 - used, really, "{:?} is not counted exactly", op);

            // Appends make items larger than any one value.
            let largest = (0..rig.store.shard_count()).map(|shard| {
                let mut largest = 0;
                rig.store.walk(&rig.caller(), shard, |item| largest = largest.max(item.value.len()));
                largest as u64
            }).max().unwrap_or(0);
            let step = if evict { 0 } else { TABLE_STEP };
            let most = rig.store.budget_bytes() + largest + ITEM_OVERHEAD + step;
            prop_assert!(rig.store.used_bytes() <= most, "{} after {:?}", rig.store.used_bytes(), op);
        }
    }
}

#[test]
fn nothing_is_left_when_everything_is_gone() {
    let rig = Rig::one_shard(&options(1 << 20, true));
    let fill_and_empty = |round: usize| {
        for i in 0..300 {
            assert_eq!(rig.set(&long_key(i), &vec![b'x'; i * round], Exptime::Never), "stored");
        }
        for i in 0..300 {
            assert_eq!(rig.delete(&long_key(i)), "deleted");
        }
        assert!(rig.store.is_empty());
        rig.store.used_bytes()
    };
    // The table stays as large as it has become.
    let table = fill_and_empty(1);
    for round in 2..6 {
        assert_eq!(fill_and_empty(round), table);
    }
}

#[test]
fn an_unstored_value_gives_its_bytes_back() {
    let rig = Rig::one_shard(&options(1 << 20, true));
    rig.set(b"k", b"", Exptime::Never);
    rig.delete(b"k");
    let empty = rig.store.used_bytes();
    for _ in 0..10 {
        rig.set(b"k", &[b'x'; 5000], Exptime::Never);
        rig.store.drop_unstored(b"k", SetMode::Add);
        assert!(rig.holds(b"k"), "a failed add leaves what is there");
        rig.store.drop_unstored(b"k", SetMode::Set);
        assert!(!rig.holds(b"k"));
        assert_eq!(rig.store.used_bytes(), empty);
    }
}

#[test]
fn watching_costs_the_budget_nothing() {
    let rig = Rig::one_shard(&options(1 << 20, true));
    rig.set(b"k", b"", Exptime::Never);
    rig.delete(b"k");
    let empty = rig.store.used_bytes();
    let all = Kinds::DELETIONS.with(Kinds::MUTATIONS).with(Kinds::FETCHERS).with(Kinds::EVICTIONS);
    let _watcher = rig.events.watch(all).unwrap();
    for _ in 0..100 {
        rig.set(b"k", b"value", Exptime::Never);
        rig.get(b"k");
        rig.delete(b"k");
    }
    assert_eq!(rig.store.used_bytes(), empty);
}

#[test]
fn evicting_flushed_items_counts_their_keys() {
    let rig = Rig::one_shard(&options(200 << 10, true));
    for i in 0..100 {
        rig.set(&long_key(i), &[b'x'; 1000], Exptime::Never);
    }
    rig.flush(Exptime::Never);
    let (used, balance) = (rig.store.used_bytes() as i64, table::balance());
    rig.set(b"large", &[b'x'; 100 << 10], Exptime::Never);
    assert_eq!(rig.store.used_bytes() as i64 - used, table::balance() - balance);
}

#[test]
fn the_least_recently_used_go_first() {
    let rig = Rig::one_shard(&options(128 << 10, true));
    let key = |i: usize| format!("key{i}").into_bytes();
    for i in 0..80 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
    }
    rig.clock.advance(1);
    // Used again, from the last to the first of these.
    for i in (0..10).rev() {
        assert_eq!(rig.get(&key(i)), "found");
    }
    let mut order: Vec<_> = (10..80).chain((0..10).rev()).collect();
    for i in 80..200 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
        order.push(i);
        let lost = order.iter().position(|&i| rig.holds(&key(i))).unwrap();
        order.drain(..lost);
        assert!(order.iter().all(|&i| rig.holds(&key(i))), "the oldest went first, and no other");
        assert!(rig.store.used_bytes() <= rig.store.budget_bytes());
    }
    assert!(order.len() > 50 && order[0] > 80, "{order:?}");
}

#[test]
fn a_get_moves_an_item_once_a_second_and_a_quiet_one_never() {
    let rig = Rig::one_shard(&options(1 << 20, true));
    let oldest = || {
        let mut oldest = Vec::new();
        rig.store.walk(&rig.caller(), 0, |item| oldest = item.key.to_vec());
        oldest
    };
    rig.set(b"a", b"", Exptime::Never);
    rig.set(b"b", b"", Exptime::Never);
    rig.get(b"a");
    assert_eq!(oldest(), b"a", "used in this second already");
    rig.clock.advance(1);
    rig.run(b"a", Verb::Get(Get { bump: false, ..Get::PLAIN }), |_| ());
    assert_eq!(oldest(), b"a", "asked for without a bump");
    rig.get(b"a");
    assert_eq!(oldest(), b"b");
}

#[test]
fn expired_items_go_before_live_ones() {
    let rig = Rig::one_shard(&options(128 << 10, true));
    let key = |i: usize| format!("key{i}").into_bytes();
    for i in 0..40 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
    }
    for i in 40..90 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::In(5));
    }
    rig.clock.advance(5);
    for i in 100..140 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
    }
    assert!((0..40).all(|i| rig.holds(&key(i))), "the older ones, which live");
    assert!((100..140).all(|i| rig.holds(&key(i))));
}

#[test]
fn a_value_over_the_whole_budget_is_kept_alone() {
    let rig = Rig::one_shard(&options(64 << 10, true));
    rig.set(b"small", b"x", Exptime::Never);
    assert_eq!(rig.set(b"large", &vec![b'x'; 100 << 10], Exptime::Never), "stored");
    assert!(rig.holds(b"large") && !rig.holds(b"small"));
}

#[test]
fn shards_fill_evenly_and_stay_small() {
    let rig = Rig::new(&options(64 << 20, true));
    // Twice as many as fit.
    for i in 0..1_200_000_u32 {
        rig.set(format!("{i:x}").as_bytes(), b"1", Exptime::Never);
    }
    assert!(rig.store.used_bytes() <= rig.store.budget_bytes());
    let lens: Vec<_> = rig.store.shards.tables.iter().map(|shard| shard.lock().len()).collect();
    let (least, most) = (*lens.iter().min().unwrap(), *lens.iter().max().unwrap());
    let mean = rig.store.len() / lens.len();
    assert!(most <= 7000, "{most} items in one shard");
    assert!(least > mean / 2 && most < mean * 3 / 2, "{least} to {most}, {mean} on average");
}

#[test]
fn a_smaller_limit_is_reached_in_steps() {
    let rig = Rig::new(&options(8 << 20, true));
    for i in 0..8000 {
        rig.set(&long_key(i), &[b'x'; 1000], Exptime::Never);
    }
    assert!(rig.store.set_budget(2 << 20));
    while rig.store.shrink(&rig.caller()) {}
    assert!(rig.store.used_bytes() <= 2 << 20);
    assert!(rig.store.len() > 500);
}

#[test]
fn threads_together_count_exactly() {
    let rig = Rig::new(&options(1 << 20, true));
    let (store, clock, registry) = (&rig.store, &rig.clock, &Registry::default());
    let start = &Barrier::new(4);
    let before = store.used_bytes() as i64;
    let real: i64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4_usize)
            .map(|thread| {
                scope.spawn(move || {
                    let counters = registry.block();
                    let caller = Caller::new(clock.now(), &counters, 1);
                    let value = [b'x'; 3000];
                    let mut real = 0;
                    // Who has waited once has what a lock's waiting list needs.
                    Condvar::new().wait_for(&mut Mutex::new(()).lock(), Duration::from_millis(1));
                    start.wait();
                    for i in 0..20_000_usize {
                        let number = i.wrapping_mul(2_654_435_761).wrapping_add(thread) % 1500;
                        let key = long_key(number);
                        let verb = match (i + thread) % 5 {
                            0 => Verb::Get(Get { vivify: Some(Exptime::In(1)), ..Get::PLAIN }),
                            1 => Verb::Delete(Delete::default()),
                            _ => Verb::Set(Set { value: &value[..number * 2], ..SET }),
                        };
                        let command = Command { key: &key, key_binary: false, verb };
                        let balance = table::balance();
                        store.execute(&caller, &command, |_| ());
                        real += table::balance() - balance;
                    }
                    real
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(store.used_bytes() as i64 - before, real);
    let shards: i64 = store.shards.tables.iter().map(|shard| shard.lock().used()).sum();
    let boxed = (store.shard_count() * size_of::<Mutex<Table>>()) as i64;
    assert!((store.used_bytes() as i64 - shards - boxed).abs() <= boxed / 4, "the shards' own counts agree");
    assert!(store.used_bytes() <= store.budget_bytes() + 4 * (3000 + ITEM_OVERHEAD));
}

#[test]
fn no_write_waits_for_all_of_a_lower_limit() {
    let rig = Rig::new(&options(8 << 20, true));
    for i in 0..8000 {
        rig.set(&long_key(i), &[b'x'; 1000], Exptime::Never);
    }
    assert!(rig.store.set_budget(2 << 20));
    let before = rig.store.used_bytes();
    rig.set(b"one more", &[b'x'; 1000], Exptime::Never);
    let freed = before - rig.store.used_bytes();
    assert!((1..256 << 10).contains(&freed), "{freed} bytes freed by one write");
    for i in 0..200 {
        rig.set(&long_key(i), &[b'x'; 1000], Exptime::Never);
    }
    assert!(rig.store.used_bytes() <= 2 << 20, "writes alone get there too");
}

#[test]
fn a_limit_below_the_empty_tables_is_refused() {
    let rig = Rig::new(&options(8 << 20, true));
    assert!(!rig.store.set_budget(1000));
    assert_eq!(rig.store.budget_bytes(), 8 << 20);
}

/// A table that was made for many items is no reason to keep none.
#[test]
fn a_lower_budget_is_not_all_taken_by_empty_tables() {
    const HIGH: u64 = 4 << 20;
    const LOW: u64 = 256 << 10;
    let rig = Rig::one_shard(&options(HIGH, true));
    for number in 0..30_000 {
        rig.set(format!("k{number}").as_bytes(), b"12345678", Exptime::Never);
    }
    assert!(rig.store.set_budget(LOW));
    while rig.store.shrink(&rig.caller()) {}
    for number in 0..100 {
        rig.set(format!("n{number}").as_bytes(), b"12345678", Exptime::Never);
    }
    assert!(rig.store.used_bytes() <= LOW, "{} bytes are used", rig.store.used_bytes());
    assert!(rig.store.len() >= 100, "{} items are kept", rig.store.len());
}

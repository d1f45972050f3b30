//! Bytes: the count is exact, the budget holds, and the right items give way.

use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::events::Kinds;
use crate::stats::Registry;
use crate::store::budget::SLICE_BYTES;
use crate::store::evict::{ITEMS_AHEAD, ITEMS_MISSING};

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

/// What all shards take by their own count, once each has been audited.
fn audited(store: &Store) -> u64 {
    let used = store.shards.tables.iter().map(|table| {
        let table = table.lock();
        table.audit();
        table.used() as u64
    });
    used.sum()
}

proptest! {
    #[test]
    fn counts_every_byte_and_keeps_the_budget(
        ops in proptest::collection::vec(op(60), 1..250),
        evict: bool,
        sharded: bool,
    ) {
        let options = options(96 << 10, evict);
        let count = if sharded { 4 } else { 1 };
        let rig = Rig::with_shards(&options, count);
        let bytes = vec![b'1'; 6000];
        let keys: Vec<_> =
            (0..60).map(|i| if i % 2 == 0 { long_key(i) } else { i.to_string().into_bytes() }).collect();
        for op in &ops {
            apply(&rig, op, &keys, &bytes);
            prop_assert_eq!(rig.store.used_bytes(), audited(&rig.store), "after {:?}", op);

            // Appends make items larger than any one value, and where nothing is evicted they are stored all the same.
            let largest = (0..rig.store.part_count()).map(|part| {
                let mut largest = 0;
                rig.store.walk(&rig.caller(), part, |item| largest = largest.max(item.value.len()));
                largest as u64
            }).max().unwrap_or(0);
            let most = rig.store.budget_bytes() + 2 * largest + (8 << 10);
            prop_assert!(rig.store.used_bytes() <= most, "{} after {:?}", rig.store.used_bytes(), op);
        }
    }
}

#[test]
fn nothing_is_left_when_everything_is_gone() {
    let rig = Rig::one_shard(&options(1 << 20, true));
    let empty = rig.store.used_bytes();
    for round in 1..6 {
        for i in 0..300 {
            assert_eq!(rig.set(&long_key(i), &vec![b'x'; i * round], Exptime::Never), "stored");
        }
        for i in 0..300 {
            rig.delete(&long_key(i));
        }
        assert!(rig.store.is_empty());
        rig.store.shards.tables[0].lock().audit();
        assert!(rig.store.used_bytes() <= empty + 1024, "what is left is the ghost");
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
fn what_is_used_outlives_a_flood() {
    let rig = Rig::one_shard(&options(1 << 20, true));
    let key = |i: usize| format!("key{i}").into_bytes();
    for i in 0..50 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
    }
    for i in 50..5000 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
        rig.get(&key(i % 50));
        assert!(rig.store.used_bytes() <= rig.store.budget_bytes());
    }
    assert!((0..50).all(|i| rig.holds(&key(i))));
    assert!(rig.store.len() > 850, "{} items", rig.store.len());
}

/// Everything was used, so that whatever is taken apart stays for the time being.
#[test]
fn the_budget_holds_where_known_keys_get_larger_values() {
    let rig = Rig::one_shard(&options(8 << 20, true));
    let key = |i: usize| format!("key{i}").into_bytes();
    for i in 0..40_000 {
        rig.set(&key(i), &[b'x'; 100], Exptime::Never);
        (0..3).for_each(|_| _ = rig.get(&key(i)));
    }
    let mut most = 0;
    for i in 0..40_000 {
        rig.set(&key(i), &[b'y'; 1000], Exptime::Never);
        most = most.max(rig.store.used_bytes());
    }
    assert!(most < rig.store.budget_bytes() + (400 << 10), "{most} bytes");
    assert!(rig.store.len() > 6500, "{} items", rig.store.len());
}

/// An expiry time where there was none needs room in another segment.
#[test]
fn the_budget_holds_where_items_get_expiry_times() {
    let rig = Rig::one_shard(&options(8 << 20, true));
    let key = |i: usize| format!("key{i}").into_bytes();
    for i in 0..9_000 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
    }
    let touch = Get { touch: Some(Exptime::In(60)), ..Get::PLAIN };
    for i in (0..9_000).map(|i| i * 7 % 9_000) {
        rig.run(&key(i), Verb::Get(touch), |_| ());
        let most = rig.store.budget_bytes() + (200 << 10);
        assert!(rig.store.used_bytes() <= most, "{} bytes at {i}", rig.store.used_bytes());
    }
}

#[test]
fn a_quiet_get_is_no_use() {
    let rig = Rig::one_shard(&options(1 << 20, true));
    let quiet = |key: &[u8]| rig.run(key, Verb::Get(Get { bump: false, ..Get::PLAIN }), |_| ());
    for i in 0..2000_usize {
        rig.set(&i.to_be_bytes(), &[b'x'; 1000], Exptime::Never);
        (0..3).for_each(|_| quiet(&1_usize.to_be_bytes()));
    }
    assert!(!rig.holds(&1_usize.to_be_bytes()));
}

#[test]
fn expired_items_go_before_live_ones() {
    let rig = Rig::one_shard(&options(1 << 20, true));
    let key = |i: usize| format!("key{i}").into_bytes();
    for i in 0..400 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
    }
    for i in 400..900 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::In(5));
    }
    rig.clock.advance(5);
    for i in 1000..1400 {
        rig.set(&key(i), &[b'x'; 1000], Exptime::Never);
    }
    assert!((0..400).all(|i| rig.holds(&key(i))), "the older ones, which live");
    assert!((1000..1400).all(|i| rig.holds(&key(i))));
}

/// One shard is written to with large items alone: the others keep what they have, but for their share.
#[test]
fn a_flood_of_one_shard_does_not_empty_the_others() {
    let rig = Rig::with_shards(&options(4 << 20, true), 4);
    let shard = |key: &[u8]| rig.store.shards.locate(key).1;
    for i in 0..30_000_usize {
        rig.set(&i.to_be_bytes(), &[b'x'; 100], Exptime::Never);
    }
    let len = |index: usize| rig.store.shards.lock(index).len();
    let before: Vec<_> = (0..4).map(len).collect();
    for i in (0..4000_u32).filter(|i| shard(&i.to_be_bytes()) == 0) {
        rig.set(&i.to_be_bytes(), &[b'x'; 50_000], Exptime::Never);
    }
    for (index, before) in before.into_iter().enumerate().skip(1) {
        assert!(len(index) > before / 2, "{} of {before} items", len(index));
    }
}

#[test]
fn a_value_over_the_whole_budget_is_kept_alone() {
    let rig = Rig::one_shard(&options(64 << 10, true));
    rig.set(b"small", b"x", Exptime::Never);
    assert_eq!(rig.set(b"large", &vec![b'x'; 100 << 10], Exptime::Never), "stored");
    assert!(rig.holds(b"large") && !rig.holds(b"small"));
}

#[test]
fn shards_fill_evenly() {
    let rig = Rig::new(&options(64 << 20, true));
    // Twice as many as fit.
    for i in 0..3_000_000_u32 {
        rig.set(format!("{i:x}").as_bytes(), b"1", Exptime::Never);
    }
    assert!(rig.store.used_bytes() <= rig.store.budget_bytes());
    let lens: Vec<_> = rig.store.shards.tables.iter().map(|shard| shard.lock().len()).collect();
    let (least, most) = (*lens.iter().min().unwrap(), *lens.iter().max().unwrap());
    // The pieces of an index grow by a fifth, in some shards before others.
    assert!(least > most * 8 / 10, "{least} to {most}");
    assert!(rig.store.len() > 1_500_000, "{} items", rig.store.len());
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
    let rig = Rig::with_shards(&options(1 << 20, true), 4);
    let (store, clock, registry) = (&rig.store, &rig.clock, &Registry::default());
    let start = &Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            scope.spawn(move || {
                let counters = registry.block();
                let caller = Caller::new(clock.now(), &counters, 1);
                let value = [b'x'; 3000];
                start.wait();
                for i in 0..20_000_usize {
                    let number = i.wrapping_mul(2_654_435_761).wrapping_add(thread) % 1500;
                    let key = long_key(number);
                    let verb = match (i + thread) % 5 {
                        0 => Verb::Get(Get { vivify: Some(Exptime::In(1)), ..Get::PLAIN }),
                        1 => Verb::Delete(Delete::default()),
                        _ => Verb::Set(Set { value: &value[..number * 2], ..SET }),
                    };
                    store.execute(&caller, &Command { key: &key, key_binary: false, verb }, |_| ());
                }
            });
        }
    });
    assert_eq!(store.used_bytes(), audited(store));
    assert!(store.used_bytes() <= store.budget_bytes() + (64 << 10));
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
    assert!(freed < 512 << 10, "{freed} bytes freed by one write");
    for i in 0..8000 {
        rig.set(&long_key(i), &[b'x'; 1000], Exptime::Never);
    }
    assert!(rig.store.used_bytes() <= 2 << 20, "writes alone get there too");
}

/// Segments hold some 1,200 of them.
#[test]
fn no_write_waits_until_a_whole_segment_of_small_items_has_gone() {
    let rig = Rig::new(&options(64 << 20, true));
    let (mut before, mut all, mut most, mut often, mut over) = (0, 0, 0, 0, 0);
    for number in 0..1_200_000_u32 {
        rig.set(&number.to_be_bytes(), &[b'x'; 40], Exptime::Never);
        let went = before + 1 - rig.store.len();
        (before, all, most) = (rig.store.len(), all + went, most.max(went));
        often += u32::from(went > ITEMS_AHEAD);
        over = over.max(rig.store.used_bytes().saturating_sub(rig.store.budget_bytes()));
    }
    assert!(all > 100_000, "{all} have gone");
    assert!(most <= ITEMS_MISSING, "{most} with one write");
    assert!(often < 500, "many with {often} writes");
    assert!(over < SLICE_BYTES as u64, "{over} bytes above the budget");
}

#[test]
fn a_limit_below_the_empty_tables_is_refused() {
    let rig = Rig::new(&options(8 << 20, true));
    assert!(!rig.store.set_budget(100));
    assert_eq!(rig.store.budget_bytes(), 8 << 20);
}

#[test]
fn a_limit_for_which_segments_have_no_numbers_is_refused() {
    let rig = Rig::one_shard(&options(64 << 20, true));
    assert!(!rig.store.set_budget(2 << 30));
    assert!(rig.store.set_budget(1 << 30));
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

//! What an operation on the store costs, for one thread and for two: `cargo bench --bench store`.

use std::cell::Cell;
use std::sync::LazyLock;

use divan::Bencher;
use divan::counter::ItemsCount;
use filbert::clock::Clock;
use filbert::command::{Arithmetic, Command, Get, Outcome, Set, Verb};
use filbert::events::Events;
use filbert::item::Exptime;
use filbert::stats::Counters;
use filbert::store::{Caller, Options, Store};

/// Keys that lie in the store, more than any CPU cache holds.
const KEYS: u64 = 200_000;

/// Operations in one sample, so that its clock does not show.
const BATCH: u64 = 100;

const VALUE: [u8; 100] = [b'x'; 100];

const SET: Set<'static> = Set { value: &VALUE, ..Set::PLAIN };

const INCR: Arithmetic = Arithmetic { vivify: Some(Exptime::Never), initial: 1000, ..Arithmetic::PLAIN };

/// Room for every key.
static ROOMY: LazyLock<Store> = LazyLock::new(|| filled(256 << 20, KEYS));

/// Full: each new item drives an old one out.
static FULL: LazyLock<Store> = LazyLock::new(|| filled(16 << 20, KEYS));

/// Counters instead of values.
static NUMBERS: LazyLock<Store> = LazyLock::new(|| filled(64 << 20, 0));

thread_local! {
    static COUNTERS: Counters = Counters::default();
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

fn main() {
    LazyLock::force(&ROOMY);
    LazyLock::force(&FULL);
    LazyLock::force(&NUMBERS);
    divan::main();
}

fn filled(budget_bytes: u64, keys: u64) -> Store {
    let store = Store::new(
        &Options { budget_bytes, ..Options::default() },
        Clock::manual(1 << 30),
        Events::default(),
    );
    (0..keys).for_each(|number| run(&store, "key", number, Verb::Set(SET)));
    store
}

fn run(store: &Store, prefix: &str, number: u64, verb: Verb<'_>) {
    let mut key = [0; 32];
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(number);
    let len = prefix.len() + digits.len();
    key[..prefix.len()].copy_from_slice(prefix.as_bytes());
    key[prefix.len()..len].copy_from_slice(digits.as_bytes());
    let command = Command { key: &key[..len], key_binary: false, verb };
    COUNTERS.with(|counters| {
        let caller = Caller::new(2, counters, 1);
        store.execute(&caller, &command, |outcome| {
            if let Outcome::Found(found) = outcome {
                divan::black_box(found.item.value);
            }
        });
    });
}

/// A number that no other thread draws soon (SplitMix64).
fn random() -> u64 {
    RANDOM.with(|state| {
        let here = std::ptr::from_ref(state) as u64;
        state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mixed = (state.get() ^ here).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
    })
}

fn bench(bencher: Bencher, operation: impl Fn() + Sync) {
    bencher.counter(ItemsCount::new(BATCH)).bench(|| (0..BATCH).for_each(|_| operation()));
}

#[divan::bench(threads = [1, 2])]
fn get_hit(bencher: Bencher) {
    bench(bencher, || run(&ROOMY, "key", random() % KEYS, Verb::Get(Get::PLAIN)));
}

#[divan::bench(threads = [1, 2])]
fn get_one_hot_key(bencher: Bencher) {
    bench(bencher, || run(&ROOMY, "key", 7, Verb::Get(Get::PLAIN)));
}

#[divan::bench(threads = [1, 2])]
fn get_miss(bencher: Bencher) {
    bench(bencher, || run(&ROOMY, "absent", random() % KEYS, Verb::Get(Get::PLAIN)));
}

#[divan::bench(threads = [1, 2])]
fn set_overwrite(bencher: Bencher) {
    bench(bencher, || run(&ROOMY, "key", random() % KEYS, Verb::Set(SET)));
}

#[divan::bench(threads = [1, 2])]
fn set_new_with_eviction(bencher: Bencher) {
    bench(bencher, || run(&FULL, "new", random(), Verb::Set(SET)));
}

#[divan::bench(threads = [1, 2])]
fn incr(bencher: Bencher) {
    bench(bencher, || run(&NUMBERS, "number", random() % 10_000, Verb::Arithmetic(INCR)));
}

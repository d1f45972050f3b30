//! Items that count only from a generation on, and what becomes of flushes then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::command::Arithmetic;

const APPEND: Set<'static> = Set { mode: SetMode::Append, value: b"0", ..SET };

const INCR: Arithmetic = Arithmetic::PLAIN;

#[test]
fn only_what_was_written_since_counts() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"old", b"1", Exptime::Never);
    let since = rig.store.advance();
    rig.set(b"new", b"1", Exptime::Never);
    assert!(rig.holds(b"old") && rig.holds(b"new"), "a new generation alone makes nothing dead");
    assert!(rig.holds_from(Generation::new(since.number() - 1), b"old") && rig.holds_from(since, b"new"));
    assert!(!rig.holds_from(since, b"old"));

    let verbs = [
        (Verb::Get(Get::PLAIN), "not_found"),
        (Verb::Set(Set { mode: SetMode::Replace, ..SET }), "not_stored"),
        (Verb::Set(APPEND), "not_stored"),
        (Verb::Set(Set { compare: Some(1), ..SET }), "not_found"),
        (Verb::Delete(Delete::default()), "not_found"),
        (Verb::Arithmetic(INCR), "not_found"),
        (Verb::Inspect, "not_found"),
        (Verb::Set(Set { mode: SetMode::Add, ..SET }), "stored"),
    ];
    for (verb, outcome) in verbs {
        assert_eq!(rig.run_from(Some(since), b"old", verb, |outcome| outcome.name()), outcome, "{verb:?}");
    }
    assert!(rig.holds_from(since, b"old"), "it was added anew");
}

#[test]
fn a_flush_counts_whatever_the_caller_says() {
    let rig = Rig::one_shard(&Options::default());
    let since = rig.store.advance();
    rig.set(b"k", b"", Exptime::Never);
    rig.flush(Exptime::Never);
    assert!(!rig.holds_from(since, b"k") && !rig.holds(b"k"));
    rig.set(b"k", b"", Exptime::Never);
    assert!(rig.holds_from(since, b"k"));
}

#[test]
fn a_delayed_flush_takes_every_generation_of_before() {
    let rig = Rig::one_shard(&Options::default());
    rig.flush(Exptime::In(2));
    rig.set(b"a", b"", Exptime::Never);
    let since = rig.store.advance();
    rig.set(b"b", b"", Exptime::Never);
    rig.clock.advance(2);
    assert!(!rig.holds(b"a") && !rig.holds_from(since, b"b"));
    rig.set(b"c", b"", Exptime::Never);
    assert!(rig.holds_from(since, b"c"));
}

/// A node may begin a generation and tell its threads a moment later that items count from there
/// on. What they do meanwhile must not carry an old value over.
#[test]
fn what_is_made_out_of_an_old_item_dies_with_it() {
    let rig = Rig::one_shard(&Options::default());
    let invalidate = Delete { invalidate: true, ..Delete::default() };
    let verbs = [
        Verb::Set(Set { mode: SetMode::Replace, ..SET }),
        Verb::Set(APPEND),
        Verb::Set(Set { mode: SetMode::Prepend, ..APPEND }),
        Verb::Set(Set { compare: Some(7), ..SET }),
        Verb::Set(Set { compare: Some(6), invalidate: true, ..SET }),
        Verb::Arithmetic(INCR),
        Verb::Delete(invalidate),
        Verb::Delete(Delete { clear: true, ..Delete::default() }),
        Verb::Delete(Delete { clear: true, ..invalidate }),
        Verb::Get(Get { touch: Some(Exptime::In(9)), ..Get::PLAIN }),
    ];
    for verb in verbs {
        rig.run(b"k", Verb::Set(Set { value: b"1", new_cas: Some(7), ..SET }), |_| ());
        let since = rig.store.advance();
        let outcome = rig.run(b"k", verb, |outcome| outcome.name());
        assert!(["stored", "found", "deleted"].contains(&outcome), "{outcome} {verb:?}");
        assert!(rig.holds(b"k"));
        assert!(!rig.holds_from(since, b"k"), "{verb:?}");
    }
    let since = rig.store.advance();
    rig.set(b"k", b"1", Exptime::Never);
    assert!(rig.holds_from(since, b"k"), "a set asks for no old item");
}

#[test]
fn one_keys_generation_says_nothing_of_its_neighbours() {
    for evict in [true, false] {
        let rig = Rig::one_shard(&Options { budget_bytes: 64 << 10, evict, ..Options::default() });
        rig.set(b"neighbour", b"", Exptime::Never);
        rig.set(b"brief", b"", Exptime::In(1));
        // Enough for a write to look for what is dead, too little to need the neighbour's room.
        let mut stored = 0;
        while rig.store.used_bytes() + 2000 < 64 << 10 {
            rig.set(&long_key(stored), &[b'x'; 1000], Exptime::In(1));
            stored += 1;
        }
        rig.clock.advance(1);
        let set = Verb::Set(Set { value: &[b'x'; 4000], ..SET });
        let since = Some(rig.store.advance());
        assert_eq!(rig.run_from(since, b"large", set, |outcome| outcome.name()), "stored", "{evict}");
        assert!(rig.holds(b"neighbour"), "evict: {evict}");
        rig.store.sweep(&Caller { min_generation: since, ..rig.caller() }, |_| ControlFlow::Continue(()));
        let mut shown = 0;
        for part in 0..rig.store.part_count() {
            rig.store.walk(&Caller { min_generation: since, ..rig.caller() }, part, |_| shown += 1);
        }
        assert_eq!(shown, 2, "evict: {evict}");
    }
}

/// Runs a command as one of several threads; the number that was found.
fn run(
    store: &Store,
    counters: &Counters,
    since: Option<Generation>,
    key: &[u8],
    verb: Verb<'_>,
) -> Option<u64> {
    let caller = Caller { min_generation: since, ..Caller::new(store.clock().now(), counters, 1) };
    store.execute(&caller, &Command { key, key_binary: false, verb }, |outcome| match outcome {
        Outcome::Found(found) => std::str::from_utf8(found.item.value).unwrap().trim().parse().ok(),
        _ => None,
    })
}

#[test]
fn nothing_of_before_a_flush_is_there_after_it() {
    const FLUSHES: usize = 3_000;
    let rig = Rig::one_shard(&Options::default());
    let (written, done) = (AtomicU64::new(0), AtomicBool::new(false));
    // Makes a new item of what is there, and the number stays the same.
    let append = Verb::Set(Set { value: b" ", ..APPEND });
    let until_done = |turn: &mut dyn FnMut(&Counters)| {
        let counters = Counters::default();
        while !done.load(Ordering::Relaxed) {
            turn(&counters);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u64;
            until_done(&mut |counters| {
                number += 1;
                let value = number.to_string();
                let set = Verb::Set(Set { value: value.as_bytes(), ..SET });
                run(&rig.store, counters, None, b"k", set);
                written.store(number, Ordering::Release);
            });
        });
        scope.spawn(|| until_done(&mut |counters| _ = run(&rig.store, counters, None, b"k", append)));
        scope.spawn(|| until_done(&mut |_| _ = rig.store.advance()));
        let counters = Counters::default();
        for _ in 0..FLUSHES {
            let before = written.load(Ordering::Acquire);
            rig.store.flush_all(&Caller::new(rig.clock.now(), &counters, 1), Exptime::Never);
            if let Some(found) = run(&rig.store, &counters, None, b"k", Verb::Inspect) {
                assert!(found > before, "{found} was written before, like {before}");
            }
            run(&rig.store, &counters, None, b"after", Verb::Set(Set { value: b"7", ..SET }));
            assert_eq!(run(&rig.store, &counters, None, b"after", Verb::Inspect), Some(7));
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_set_after_a_generation_began_counts_in_it() {
    const TURNS: usize = 10_000;
    let rig = Rig::one_shard(&Options::default());
    let since = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let (store, since) = (&rig.store, &since);
            scope.spawn(move || {
                let counters = Counters::default();
                for turn in 0..TURNS {
                    // One's own generation, or another thread's.
                    if turn % 2 == 0 {
                        since.store(store.advance().number().into(), Ordering::Release);
                    }
                    let since = Some(Generation::new(since.load(Ordering::Acquire) as u32));
                    run(store, &counters, since, &[thread], Verb::Set(Set { value: b"7", ..SET }));
                    assert_eq!(run(store, &counters, since, &[thread], Verb::Inspect), Some(7));
                }
            });
        }
    });
}

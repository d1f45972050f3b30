//! Generations come round again: items have 24 bits for theirs, the store has 32.

use proptest::prelude::*;

use super::*;
use crate::command::Arithmetic;
use crate::store::generation::{LAG_MAX, UNSWEPT_MAX, is_older};

/// Newest generations after which something wraps: an item's bits, half of them, the store's.
const EDGES: [u32; 6] = [0, 1 << 23, (1 << 24) - 1, (1 << 31) - 1, u32::MAX - 1, u32::MAX];

#[test]
fn the_older_of_two_is_told_across_every_edge() {
    for edge in EDGES {
        for distance in [1, 2, 1000, UNSWEPT_MAX + LAG_MAX] {
            let (before, after) = (Generation::new(edge), Generation::new(edge.wrapping_add(distance)));
            assert_eq!((before.later(after), after.later(before)), (after, after));
            for marks in [0, 1, 0xff] {
                assert!(is_older(before.stamp() | marks, after.stamp()), "{edge} is {distance} older");
                assert!(!is_older(after.stamp() | marks, before.stamp()), "{edge} is {distance} older");
                assert!(!is_older(before.stamp() | marks, before.stamp()));
            }
        }
    }
}

#[test]
fn a_flush_after_years_takes_the_old_and_leaves_the_new() {
    for edge in EDGES {
        let rig = Rig::new(&Options::default());
        rig.store.shards.shared.generations.0.set(edge);
        rig.set(b"old", b"", Exptime::Never);
        rig.flush(Exptime::Never);
        assert!(!rig.holds(b"old"));
        rig.set(b"new", b"", Exptime::Never);
        let since = rig.store.advance();
        rig.set(b"newer", b"", Exptime::Never);
        assert!(rig.holds(b"new") && rig.holds(b"newer"));
        assert!(!rig.holds_from(since, b"new") && rig.holds_from(since, b"newer"));
        assert_eq!(rig.store.len(), 3, "nothing has been swept yet");
    }
}

#[test]
fn an_old_generation_is_gone_before_its_number_comes_again() {
    for (edge, flushes) in EDGES.into_iter().flat_map(|edge| [(edge, false), (edge, true)]) {
        let rig = Rig::new(&Options::default());
        let generations = &rig.store.shards.shared.generations.0;
        generations.set(edge);
        rig.set(b"old", b"", Exptime::Never);
        rig.flush(Exptime::Never);
        generations.skip(UNSWEPT_MAX - 2);
        rig.store.advance();
        assert_eq!(rig.store.len(), 1, "nothing has been swept yet");
        if flushes {
            rig.flush(Exptime::Never);
        } else {
            rig.store.advance();
        }
        assert!(rig.store.is_empty(), "who began this one has swept");
        assert!(!generations.is_overdue() && !generations.wants_full_sweep());
    }
}

#[test]
fn a_delayed_flush_waits_for_the_sweep_too() {
    let rig = Rig::new(&Options::default());
    rig.set(b"old", b"", Exptime::Never);
    rig.flush(Exptime::Never);
    rig.store.shards.shared.generations.0.skip(UNSWEPT_MAX);
    rig.flush(Exptime::In(100));
    assert!(rig.store.is_empty());
}

#[test]
fn a_sweep_that_rests_holds_up_none_that_must_be() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"old", b"", Exptime::Never);
    rig.flush(Exptime::Never);
    let mut rests = 0;
    let through = rig.store.sweep(&rig.caller(), |_| {
        rests += 1;
        rig.set(b"another", b"", Exptime::Never);
        rig.store.shards.shared.generations.0.skip(UNSWEPT_MAX);
        rig.flush(Exptime::Never);
        assert!(rig.store.is_empty());
        ControlFlow::Continue(())
    });
    assert!(through && rests == 1);
}

#[test]
fn a_new_generation_is_no_reason_to_sweep() {
    let rig = Rig::new(&Options::default());
    rig.set(b"k", b"", Exptime::Never);
    rig.flush(Exptime::Never);
    assert!(rig.sweeps());
    rig.store.advance();
    assert!(!rig.sweeps());
    rig.set(b"k", b"", Exptime::Never);
    rig.store.shards.shared.generations.0.skip(UNSWEPT_MAX / 2);
    assert!(rig.sweeps(), "before anybody has to wait for it");
    assert!(!rig.sweeps());
}

#[test]
fn what_nobody_writes_for_two_million_generations_is_dead() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"k", b"", Exptime::Never);
    rig.store.shards.shared.generations.0.skip(LAG_MAX);
    assert!(rig.holds(b"k"));
    rig.store.advance();
    assert!(!rig.holds(b"k"));
    assert!(rig.sweep() && rig.store.is_empty());
}

impl Rig {
    /// Sweeps; whether there was any shard to look at.
    fn sweeps(&self) -> bool {
        let mut any = false;
        assert!(self.store.sweep(&self.caller(), |_| {
            any = true;
            ControlFlow::Continue(())
        }));
        any
    }
}

const KEYS: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Step {
    Set(usize),
    /// Made out of the item that is there.
    Incr(usize),
    Flush,
    Advance,
    /// As if so many generations had gone by.
    Skip(u32),
    /// From now on only what comes counts under this key.
    Since(usize),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KEYS).prop_map(Step::Set),
        2 => (0..KEYS).prop_map(Step::Incr),
        1 => Just(Step::Flush),
        2 => Just(Step::Advance),
        3 => (1..=UNSWEPT_MAX / 4).prop_map(Step::Skip),
        2 => (0..KEYS).prop_map(Step::Since),
        1 => Just(Step::Sweep),
    ]
}

/// Generations that never come to an end, and of each key the one of its item and the one from
/// which on its items count.
#[derive(Debug, Default)]
struct Endless {
    current: u64,
    floor: u64,
    items: [Option<u64>; KEYS],
    since: [u64; KEYS],
}

impl Endless {
    fn holds(&self, key: usize) -> bool {
        let floor = self.floor.max(self.since[key]).max(self.current.saturating_sub(LAG_MAX.into()));
        self.items[key].is_some_and(|generation| generation >= floor)
    }
}

proptest! {
    #[test]
    fn generations_that_wrap_do_what_endless_ones_do(
        steps in proptest::collection::vec(step(), 1..120),
        edge in prop::sample::select(&EDGES[..]),
    ) {
        let rig = Rig::one_shard(&Options::default());
        let generations = &rig.store.shards.shared.generations.0;
        generations.set(edge);
        // Nothing lies there from before that could be dead of age.
        let mut model = Endless { current: u64::from(edge) + (1 << 32), ..Endless::default() };
        model.floor = model.current;
        let mut since = [None; KEYS];
        let name = |key: usize| [b'a' + key as u8];
        for step in steps {
            match step {
                Step::Set(key) => {
                    let set = Verb::Set(Set { value: b"1", ..SET });
                    rig.run_from(since[key], &name(key), set, |_| ());
                    model.items[key] = Some(model.current);
                }
                Step::Incr(key) => {
                    let found = rig.run_from(since[key], &name(key), Verb::Arithmetic(INCR), |outcome| {
                        matches!(outcome, Outcome::Found(_))
                    });
                    prop_assert_eq!(found, model.holds(key));
                }
                Step::Flush => {
                    rig.flush(Exptime::Never);
                    model.current += 1;
                    model.floor = model.current;
                }
                Step::Advance => {
                    rig.store.advance();
                    model.current += 1;
                }
                Step::Skip(skipped) => {
                    generations.skip(skipped);
                    rig.store.advance();
                    model.current += u64::from(skipped) + 1;
                }
                Step::Since(key) => {
                    since[key] = Some(rig.store.advance());
                    model.current += 1;
                    model.since[key] = model.current;
                }
                Step::Sweep => prop_assert!(rig.sweep()),
            }
            for (key, &since) in since.iter().enumerate() {
                let held = rig.run_from(since, &name(key), Verb::Inspect, |outcome| {
                    matches!(outcome, Outcome::Found(_))
                });
                prop_assert_eq!(held, model.holds(key), "key {} after {:?}", key, step);
            }
        }
    }
}

const INCR: Arithmetic = Arithmetic::PLAIN;

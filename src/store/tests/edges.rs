//! Tokens and times at their edges.

use super::*;
use crate::command::{Arithmetic, Found};

fn token(rig: &Rig, key: &[u8]) -> u64 {
    rig.run(key, Verb::Inspect, |outcome| match outcome {
        Outcome::Found(Found { item, .. }) => item.cas,
        other => panic!("{other:?}"),
    })
}

fn cas(rig: &Rig, compare: u64) -> &'static str {
    let set = Set { compare: Some(compare), ..SET };
    rig.run(b"k", Verb::Set(set), |outcome| outcome.name())
}

const INCR: Arithmetic = Arithmetic::PLAIN;

#[test]
fn every_write_changes_the_token_and_a_touch_does_not() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"k", b"1", Exptime::Never);
    let mut last = token(&rig, b"k");
    let mut changed = |what: &str| {
        let now = token(&rig, b"k");
        assert!(now > last, "{what}");
        last = now;
    };
    rig.set(b"k", b"1", Exptime::Never);
    changed("set");
    rig.run(b"k", Verb::Set(Set { mode: SetMode::Append, value: b"0", ..SET }), |_| ());
    changed("append");
    rig.run(b"k", Verb::Arithmetic(INCR), |_| ());
    changed("incr");
    rig.run(b"k", Verb::Delete(Delete { invalidate: true, ..Delete::default() }), |_| ());
    changed("invalidate");
    let before = token(&rig, b"k");
    rig.run(b"k", Verb::Get(Get { touch: Some(Exptime::In(9)), ..Get::PLAIN }), |_| ());
    rig.run(b"k", Verb::Set(Set { mode: SetMode::Add, ..SET }), |_| ());
    assert_eq!(token(&rig, b"k"), before);
}

#[test]
fn compare_takes_the_token_and_no_other() {
    let rig = Rig::one_shard(&Options::default());
    assert_eq!(cas(&rig, 1), "not_found");
    rig.set(b"k", b"", Exptime::Never);
    let held = token(&rig, b"k");
    for other in [0, held - 1, held + 1, u64::MAX] {
        assert_eq!(cas(&rig, other), "exists");
    }
    assert_eq!(cas(&rig, held), "stored");
    assert_eq!(cas(&rig, held), "exists", "it was used");
}

#[test]
fn a_token_of_the_clients_own_is_kept_to_its_last_bit() {
    let rig = Rig::one_shard(&Options::default());
    rig.run(b"k", Verb::Set(Set { new_cas: Some(u64::MAX), ..SET }), |_| ());
    assert_eq!(token(&rig, b"k"), u64::MAX);
    assert_eq!(cas(&rig, u64::MAX), "stored");
}

#[test]
fn without_tokens_every_item_has_none() {
    let rig = Rig::one_shard(&Options { cas: false, ..Options::default() });
    rig.set(b"k", b"1", Exptime::Never);
    rig.run(b"k", Verb::Arithmetic(INCR), |_| ());
    assert_eq!(token(&rig, b"k"), 0);
    rig.store.raise_cas(1 << 40);
    rig.set(b"k", b"1", Exptime::Never);
    assert_eq!(token(&rig, b"k"), 0);
}

#[test]
fn raised_tokens_are_greater_and_never_go_back() {
    let rig = Rig::one_shard(&Options::default());
    let drawn = || {
        rig.set(b"k", b"", Exptime::Never);
        token(&rig, b"k")
    };
    let first = drawn();
    rig.store.raise_cas(1 << 40);
    assert_eq!(drawn(), (1 << 40) + 1);
    rig.store.raise_cas(first);
    rig.store.raise_cas(1 << 40);
    assert_eq!(drawn(), (1 << 40) + 2, "a lower bound changes nothing");
    rig.store.raise_cas((1 << 40) + 2);
    assert_eq!(drawn(), (1 << 40) + 3);
}

#[test]
fn raising_tokens_leaves_those_that_are_there_and_those_that_clients_choose() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"k", b"", Exptime::Never);
    let held = token(&rig, b"k");
    rig.store.raise_cas(1 << 40);
    assert_eq!(token(&rig, b"k"), held);
    assert_eq!(cas(&rig, held), "stored");
    rig.run(b"k", Verb::Set(Set { new_cas: Some(5), ..SET }), |_| ());
    assert_eq!(token(&rig, b"k"), 5);
}

#[test]
fn an_item_ends_with_its_last_second() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"k", b"", Exptime::In(3));
    rig.clock.advance(2);
    assert_eq!(rig.get(b"k"), "found");
    rig.clock.advance(1);
    assert!(!rig.holds(b"k"));
    assert_eq!(rig.get(b"k"), "not_found");
    assert!(rig.store.is_empty(), "who meets it buries it");
}

#[test]
fn a_past_time_is_stored_and_at_once_a_miss() {
    let rig = Rig::one_shard(&Options::default());
    for exptime in [Exptime::At(0), Exptime::At(UNIX_START - 1), Exptime::At(UNIX_START)] {
        assert_eq!(rig.set(b"k", b"", exptime), "stored");
        assert_eq!(rig.get(b"k"), "not_found", "{exptime:?}");
    }
    assert_eq!(rig.set(b"k", b"", Exptime::At(UNIX_START + 1)), "stored");
    assert_eq!(rig.get(b"k"), "found");
}

#[test]
fn the_farthest_times_are_times() {
    let rig = Rig::one_shard(&Options::default());
    // Far beyond what 32 bits of seconds hold, on a clock that has run for long.
    rig.clock.advance(u32::MAX - 100);
    for exptime in [Exptime::In(2_592_000), Exptime::At(u64::MAX), Exptime::from_wire(i64::MAX)] {
        assert_eq!(rig.set(b"k", b"", exptime), "stored");
        assert_eq!(rig.get(b"k"), "found", "{exptime:?}");
        let recache = Get { recache: Some(exptime), touch: Some(exptime), ..Get::PLAIN };
        rig.run(b"k", Verb::Get(recache), |_| ());
        rig.flush(exptime);
    }
}

#[test]
fn an_appended_value_may_not_grow_over_the_limit() {
    let rig = Rig::one_shard(&Options { item_size_max: 1024, ..Options::default() });
    rig.set(b"k", &[b'x'; 500], Exptime::Never);
    let append = Set { mode: SetMode::Append, value: &[b'y'; 500], ..SET };
    assert_eq!(rig.run(b"k", Verb::Set(append), |outcome| outcome.name()), "not_stored");
    rig.run(b"k", Verb::Inspect, |outcome| match outcome {
        Outcome::Found(found) => assert_eq!(found.item.value, [b'x'; 500]),
        other => panic!("{other:?}"),
    });
    assert_eq!(rig.set(b"k", &[b'x'; 1000], Exptime::Never), "too_large");
    assert!(!rig.holds(b"k"), "the old value is not the last one written");
}

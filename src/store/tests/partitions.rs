//! Groups of keys: counted apart, and memory of their own.

use super::*;
use crate::store::table::KeyGroup;

const BUDGET: u64 = 8 << 20;

fn group(prefix: &str, max_bytes: Option<u64>) -> KeyGroup {
    KeyGroup { prefix: prefix.into(), max_bytes }
}

fn rig(shards: usize, groups: &[KeyGroup]) -> Rig {
    let rig = Rig::with_shards(&Options { budget_bytes: BUDGET, ..Options::default() }, shards);
    rig.store.set_groups(groups);
    rig
}

fn fill(rig: &Rig, prefix: &str, numbers: std::ops::Range<usize>, len: usize) {
    for number in numbers {
        assert_eq!(
            rig.set(format!("{prefix}{number}").as_bytes(), &vec![b'x'; len], Exptime::Never),
            "stored"
        );
    }
}

fn held(rig: &Rig, prefix: &str, numbers: std::ops::Range<usize>) -> usize {
    numbers.filter(|number| rig.holds(format!("{prefix}{number}").as_bytes())).count()
}

fn uses(rig: &Rig, prefix: &str) -> GroupUse {
    rig.store.group_uses()[prefix.as_bytes()]
}

#[test]
fn a_group_keeps_to_its_bound_and_makes_room_among_its_own() {
    for (shards, len) in [(1, 100), (4, 100), (4, 1000), (2, 200_000)] {
        let rig = rig(shards, &[group("a:", Some(1 << 20)), group("b:", None)]);
        fill(&rig, "b:", 0..100, 100);
        fill(&rig, "c", 0..100, 100);
        let many = (4 << 20) / len;
        fill(&rig, "a:", 0..many, len);
        let a = uses(&rig, "a:");
        assert!(a.bytes <= 1 << 20, "{} bytes of {len} in {shards} shards", a.bytes);
        assert!(a.bytes >= 1 << 19, "{} bytes of {len} in {shards} shards", a.bytes);
        assert_eq!(a.items, held(&rig, "a:", 0..many) as u64);
        assert_eq!(a.evictions, many as u64 - a.items);
        assert_eq!((held(&rig, "b:", 0..100), held(&rig, "c", 0..100)), (100, 100), "nobody else gave way");
        assert_eq!((uses(&rig, "b:").items, uses(&rig, "b:").evictions), (100, 0));
    }
}

#[test]
fn a_flood_of_others_leaves_a_group_what_is_its_own() {
    let rig = rig(4, &[group("a:", Some(2 << 20)), group("b:", Some(2 << 20)), group("b:x", None)]);
    fill(&rig, "a:", 0..8_000, 100);
    let before = (uses(&rig, "a:"), held(&rig, "a:", 0..8_000));
    fill(&rig, "b:", 0..100_000, 100);
    fill(&rig, "b:x", 0..100_000, 100);
    fill(&rig, "c", 0..100_000, 100);
    assert_eq!((uses(&rig, "a:"), held(&rig, "a:", 0..8_000)), before);
    assert_eq!(before.1, 8_000);
    let b = uses(&rig, "b:").bytes;
    assert!((1 << 20..=2 << 20).contains(&b), "{b}");
    assert!(rig.store.used_bytes() <= BUDGET, "{}", rig.store.used_bytes());
    assert!(uses(&rig, "b:x").items > 0, "it shares the rest");
}

/// Though nobody else is above its share while there is room yet.
#[test]
fn a_group_that_has_all_of_its_bound_keeps_it() {
    for bound in (8..24).map(|part| (part << 20) / 8) {
        let rig = rig(4, &[group("a:", Some(bound))]);
        fill(&rig, "a:", 0..40_000, 100);
        let before = uses(&rig, "a:");
        assert!(before.evictions > 0);
        fill(&rig, "c", 0..60_000, 100);
        assert_eq!(uses(&rig, "a:"), before, "with a bound of {bound}");
    }
}

#[test]
fn bounds_that_are_more_than_there_is_are_cut_alike() {
    let rig = rig(2, &[group("a:", Some(BUDGET)), group("b:", Some(BUDGET))]);
    fill(&rig, "a:", 0..100_000, 100);
    assert!(uses(&rig, "a:").bytes > BUDGET * 3 / 4, "nobody else wants it");
    fill(&rig, "b:", 0..100_000, 100);
    for prefix in ["a:", "b:"] {
        let bytes = uses(&rig, prefix).bytes;
        assert!((BUDGET / 3..BUDGET * 5 / 8).contains(&bytes), "{prefix} {bytes}");
    }
    assert!(rig.store.used_bytes() <= BUDGET + (64 << 10), "{}", rig.store.used_bytes());
}

#[test]
fn other_groups_take_effect_item_by_item() {
    let rig = rig(2, &[]);
    fill(&rig, "a:", 0..20_000, 100);
    rig.store.set_groups(&[group("a:", Some(1 << 20))]);
    assert_eq!(uses(&rig, "a:").items, 20_000, "they are counted");
    fill(&rig, "a:", 0..20_000, 110);
    let bounded = uses(&rig, "a:");
    assert!(bounded.bytes <= 1 << 20, "what was written anew lies in the group's memory: {bounded:?}");
    rig.store.set_groups(&[]);
    assert!(rig.store.group_uses().is_empty());
    assert_eq!(held(&rig, "a:", 0..20_000) as u64, bounded.items, "nothing goes with the group");
    // What is left of it gives way before anything else.
    fill(&rig, "c", 0..100_000, 100);
    assert_eq!(held(&rig, "a:", 0..20_000), 0);
    assert!(held(&rig, "c", 0..100_000) > 60_000);
    rig.store.set_groups(&[group("d:", Some(4 << 20))]);
    fill(&rig, "d:", 0..10_000, 100);
    assert_eq!(uses(&rig, "d:").items, 10_000);
}

#[test]
fn reads_are_counted_by_group_and_once() {
    let rig = rig(2, &[group("a:", None)]);
    fill(&rig, "a:", 0..1, 10);
    rig.get(b"a:0");
    rig.get(b"a:1");
    rig.get(b"b");
    let read = Verb::Get(Get::PLAIN);
    let command = Command { key: b"a:0", key_binary: false, verb: read };
    rig.store.execute(&Caller { repeats: true, ..rig.caller() }, &command, |_| ());
    let counted = uses(&rig, "a:");
    assert_eq!((counted.hits, counted.misses), (1, 1));
    rig.store.set_groups(&[group("b", None), group("a:", Some(1 << 20))]);
    assert_eq!((uses(&rig, "a:").hits, uses(&rig, "a:").items), (1, 1), "they stay with the prefix");
}

#[test]
fn where_nothing_may_be_evicted_a_full_group_refuses() {
    let options = Options { budget_bytes: BUDGET, evict: false, ..Options::default() };
    let rig = Rig::with_shards(&options, 2);
    rig.store.set_groups(&[group("a:", Some(1 << 20))]);
    let set = |key: String| rig.set(key.as_bytes(), &[b'x'; 100], Exptime::In(10));
    let first = (0..20_000).find(|number| set(format!("a:{number}")) != "stored").expect("it is full");
    assert!((6_000..9_500).contains(&first), "{first}");
    assert_eq!(set("b".into()), "stored", "all others have room");
    rig.clock.advance(20);
    assert_eq!(set("a:again".into()), "stored", "what is dead makes room");
    assert_eq!(held(&rig, "a:", 0..first), 0);
}

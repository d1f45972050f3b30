//! `flush_all`: at once for any number of items, and nothing ever comes back.

use super::*;

fn key(number: usize) -> Vec<u8> {
    format!("key{number}").into_bytes()
}

#[test]
fn a_full_store_is_flushed_at_once_and_for_good() {
    let rig = Rig::new(&Options { budget_bytes: 16 << 20, ..Options::default() });
    for i in 0..50_000 {
        rig.set(&key(i), b"1", Exptime::Never);
    }
    rig.flush(Exptime::Never);
    assert_eq!(rig.store.len(), 50_000, "no item was visited, so it costs the same for any number");
    assert_eq!(rig.set(&key(7), b"new", Exptime::Never), "stored", "of the same second, and after it");
    for i in 0..50_000 {
        assert_eq!(rig.holds(&key(i)), i == 7);
        assert_eq!(rig.get(&key(i)), if i == 7 { "found" } else { "not_found" });
    }
    assert!(rig.sweep());
    assert_eq!(rig.store.len(), 1);
}

#[test]
fn a_delayed_flush_takes_also_what_was_set_before_its_moment() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"a", b"", Exptime::Never);
    rig.flush(Exptime::In(2));
    rig.clock.advance(1);
    rig.set(b"b", b"", Exptime::Never);
    assert!(rig.holds(b"a") && rig.holds(b"b"));
    rig.clock.advance(1);
    assert!(!rig.holds(b"a") && !rig.holds(b"b"));
    rig.set(b"c", b"", Exptime::Never);
    rig.clock.advance(10);
    assert!(rig.holds(b"c"), "it happens once");
}

#[test]
fn a_flush_that_came_due_unseen_is_not_replaced_by_a_later_one() {
    let rig = Rig::one_shard(&Options::default());
    rig.set(b"a", b"", Exptime::Never);
    rig.flush(Exptime::In(1));
    rig.clock.advance(2);
    rig.flush(Exptime::In(100));
    assert!(!rig.holds(b"a"));
}

#[test]
fn a_sweep_brings_the_memory_of_a_due_flush_back() {
    let rig = Rig::new(&Options::default());
    rig.set(b"a", b"", Exptime::Never);
    rig.flush(Exptime::In(1));
    rig.clock.advance(1);
    assert!(rig.sweep());
    assert!(rig.store.is_empty(), "though nobody has asked for anything since");
}

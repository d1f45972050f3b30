//! A full cache that may not evict (`-M`).

use super::*;
use crate::command::Failure;

fn options(budget_bytes: u64, evict: bool) -> Options {
    Options { budget_bytes, evict, ..Options::default() }
}

#[test]
fn a_cache_that_may_not_evict_refuses_and_drops_the_old_value() {
    let rig = Rig::one_shard(&options(64 << 10, false));
    let value = &[b'x'; 1000];
    let mut stored = 0;
    while rig.set(&long_key(stored), value, Exptime::Never) == "stored" {
        stored += 1;
    }
    assert!(stored > 30);
    let used = rig.store.used_bytes();
    rig.run(&long_key(0), Verb::Set(Set { mode: SetMode::Replace, value, ..SET }), |outcome| {
        assert!(matches!(outcome, Outcome::Failed(Failure::OutOfMemory)), "{outcome:?}");
    });
    assert!(rig.holds(&long_key(0)), "a failed replace keeps the old value");
    assert_eq!(rig.set(&long_key(0), value, Exptime::Never), "no_memory");
    assert!(!rig.holds(&long_key(0)), "a failed set does not");
    assert!(rig.store.used_bytes() < used - 1000);
    assert_eq!(rig.set(b"new", value, Exptime::Never), "stored");
}

#[test]
fn a_full_cache_that_may_not_evict_takes_the_room_of_the_dead() {
    for flushed in [false, true] {
        let rig = Rig::one_shard(&options(64 << 10, false));
        let exptime = if flushed { Exptime::Never } else { Exptime::In(1) };
        let empty = rig.store.used_bytes();
        let fill = || {
            let mut stored = 0;
            while rig.set(&long_key(stored), &[b'x'; 1000], exptime) == "stored" {
                stored += 1;
            }
            stored
        };
        let first = fill();
        for _ in 0..5 {
            if flushed {
                rig.flush(Exptime::Never)
            } else {
                rig.clock.advance(1)
            }
            assert!(fill().abs_diff(first) <= 2, "flushed: {flushed}");
            assert!(rig.store.used_bytes() > empty + 32 * 1000, "flushed: {flushed}");
        }
    }
}

//! Items that move between two stores, with all that belongs to them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::tests::model::Seen;

/// What one store shows of an item, and another one is brought.
fn carry(from: &Rig, key: &[u8], to: &Rig, generation: Option<Generation>) -> Option<Arrival> {
    let mut arrival = None;
    for shard in 0..from.store.part_count() {
        let show = |moving: MovingItem<'_>| {
            let generation = generation.unwrap_or(moving.generation);
            arrival = Some(to.store.receive(&to.caller(), &MovingItem { generation, ..moving }));
        };
        from.store.scan(&from.caller(), shard, |other| other == key, show);
    }
    arrival
}

fn look(rig: &Rig, key: &[u8]) -> Seen {
    rig.run(key, Verb::Inspect, |outcome| Seen::from(outcome))
}

#[test]
fn an_item_arrives_as_it_was() {
    let (here, there) = (Rig::new(&Options::default()), Rig::new(&Options::default()));
    let set = Set { value: b"value", flags: 7, exptime: Exptime::In(9), new_cas: Some(5), ..SET };
    here.run(b"k", Verb::Set(set), |_| ());
    here.get(b"k");
    here.run(b"k", Verb::Delete(Delete { invalidate: true, new_cas: Some(6), ..Delete::default() }), |_| ());
    here.run(b"k", Verb::Get(Get { wins: true, ..Get::PLAIN }), |_| ());
    here.clock.advance(3);
    there.clock.advance(100);
    assert_eq!(carry(&here, b"k", &there, None), Some(Arrival::Stored));
    assert_eq!(look(&there, b"k"), look(&here, b"k"));
    there.clock.advance(6);
    assert!(!there.holds(b"k"), "its time went on");
}

#[test]
fn what_lies_there_stays_and_what_is_dead_gives_way() {
    let (here, there) = (Rig::new(&Options::default()), Rig::new(&Options::default()));
    here.set(b"k", b"moved", Exptime::Never);
    there.set(b"k", b"mine", Exptime::In(1));
    let mine = look(&there, b"k");
    assert_eq!(carry(&here, b"k", &there, None), Some(Arrival::Present));
    assert_eq!(look(&there, b"k"), mine);
    there.clock.advance(1);
    assert_eq!(carry(&here, b"k", &there, None), Some(Arrival::Stored));
    assert_eq!(there.store.len(), 1);
}

#[test]
fn a_flush_on_the_way_drops_it() {
    let (here, there) = (Rig::new(&Options::default()), Rig::new(&Options::default()));
    here.set(b"k", b"", Exptime::Never);
    let asked = there.store.advance();
    assert_eq!(carry(&here, b"k", &there, Some(asked)), Some(Arrival::Stored));
    there.delete(b"k");
    there.flush(Exptime::Never);
    assert_eq!(carry(&here, b"k", &there, Some(asked)), Some(Arrival::Dead));
    assert!(there.store.is_empty());
}

#[test]
fn a_later_floor_makes_an_arrival_dead() {
    let (here, there) = (Rig::new(&Options::default()), Rig::new(&Options::default()));
    here.set(b"k", b"", Exptime::Never);
    let asked = there.store.advance();
    carry(&here, b"k", &there, Some(asked));
    assert!(there.holds_from(asked, b"k"));
    let since = there.store.advance();
    assert!(!there.holds_from(since, b"k"), "it kept its generation");
}

#[test]
fn what_is_too_large_or_finds_no_room_is_refused() {
    let here = Rig::new(&Options::default());
    here.set(b"k", &[b'x'; 2000], Exptime::Never);
    let small = Rig::new(&Options { item_size_max: 1024, ..Options::default() });
    assert_eq!(carry(&here, b"k", &small, None), Some(Arrival::Refused(Failure::TooLarge)));
    let full = Rig::one_shard(&Options { budget_bytes: 64 << 10, evict: false, ..Options::default() });
    (0..).take_while(|&n| full.set(&long_key(n), &[b'x'; 1000], Exptime::Never) == "stored").count();
    assert_eq!(carry(&here, b"k", &full, None), Some(Arrival::Refused(Failure::OutOfMemory)));
}

proptest! {
    /// All items of one kind of keys, carried over: as many and the same, and no other.
    #[test]
    fn a_slot_is_carried_whole(
        items in proptest::collection::btree_map(0..200_u32, (0..60_usize, any::<u32>(), 0..4_u32), 0..80),
        slot in 0..4_u32,
    ) {
        let (here, there) = (Rig::new(&Options::default()), Rig::new(&Options::default()));
        let key = |number: u32| number.to_be_bytes();
        let slot_of = |key: &[u8]| u32::from(key[3]) % 4;
        for (&number, &(len, flags, seconds)) in &items {
            let exptime = if seconds == 0 { Exptime::Never } else { Exptime::In(seconds) };
            let set = Set { value: &vec![b'v'; len], flags, exptime, ..SET };
            here.run(&key(number), Verb::Set(set), |_| ());
        }
        here.clock.advance(2);
        there.clock.advance(2);
        for shard in 0..here.store.part_count() {
            here.store.scan(&here.caller(), shard, |key| slot_of(key) == slot, |moving| {
                assert_eq!(there.store.receive(&there.caller(), &moving), Arrival::Stored);
            });
        }
        let expected: BTreeMap<_, _> = items.keys().map(|&number| key(number))
            .filter(|key| slot_of(key) == slot && here.holds(key))
            .map(|key| (key, look(&here, &key)))
            .collect();
        prop_assert_eq!(there.store.len(), expected.len());
        for (key, seen) in expected {
            prop_assert_eq!(look(&there, &key), seen);
        }
    }
}

//! Room for what is on its way.

use super::*;
use crate::store::expected::STEP_ITEMS;

const BUDGET: u64 = 4 << 20;
const VALUE: usize = 256 << 10;
const PIECE: usize = 64 << 10;

/// Makes all room for what is expected; how many items each step took.
fn reach(rig: &Rig, store: &Store, expected: &mut Expected, bytes: usize) -> Vec<usize> {
    expected.reach(bytes);
    let mut left = store.len();
    let step = || {
        let before = left;
        let made = expected.step(&rig.caller());
        left = store.len();
        made.then_some(before - left)
    };
    std::iter::from_fn(step).collect()
}

/// A full store, and how many items it has.
fn full() -> (Rig, Arc<Store>, usize) {
    let mut rig = Rig::with_shards(&Options { budget_bytes: BUDGET, ..Options::default() }, 2);
    let empty = Store::new(&Options::default(), rig.clock.clone(), rig.events.clone());
    for number in 0..60_000 {
        rig.set(&number.to_string().into_bytes(), &[b'x'; 80], Exptime::Never);
    }
    let store = Arc::new(std::mem::replace(&mut rig.store, empty));
    let items = store.len();
    assert!(items < 60_000, "{items}");
    (rig, store, items)
}

#[test]
fn room_is_made_while_a_value_comes_in() {
    let (rig, store, _) = full();
    let mut expected = Expected::nothing(store.clone());
    let pieces = (1..=VALUE / PIECE).map(|piece| reach(&rig, &store, &mut expected, piece * PIECE));
    let steps: Vec<usize> = pieces.flatten().collect();
    let segment = 64 << 10;
    assert!(steps.iter().all(|&items| items <= STEP_ITEMS), "a portion in each step: {steps:?}");
    assert!(store.used_bytes() + VALUE as u64 <= BUDGET + segment as u64, "{} bytes", store.used_bytes());
    drop(expected);
    let before = store.len();
    let verb = Verb::Set(Set { value: &[b'x'; VALUE], ..SET });
    store.execute(&rig.caller(), &Command { key: b"large", key_binary: false, verb }, |_| ());
    let went = before + 1 - store.len();
    assert!(went <= segment / 80, "{went} besides {}", steps.iter().sum::<usize>());
}

#[test]
fn what_does_not_come_whole_takes_no_room() {
    let (rig, store, items) = full();
    for _ in 0..100 {
        reach(&rig, &store, &mut Expected::nothing(store.clone()), PIECE);
    }
    assert_eq!(store.shards.shared.budget.expected(), 0);
    // Each of them found the room of the first.
    let went = items - store.len();
    assert!((1..=2 * PIECE / 80).contains(&went), "{went} items went");
    let before = store.len();
    let verb = Verb::Set(Set { value: &[b'x'; 80], ..SET });
    store.execute(&rig.caller(), &Command { key: b"small", key_binary: false, verb }, |_| ());
    assert_eq!(store.len(), before + 1);
}

#[test]
fn who_announces_much_empties_no_cache() {
    let (rig, store, items) = full();
    let mut all: Vec<_> = (0..100).map(|_| Expected::nothing(store.clone())).collect();
    for piece in 1..=VALUE / PIECE {
        all.iter_mut().for_each(|expected| _ = reach(&rig, &store, expected, piece * PIECE));
    }
    assert!(store.len() > items * 3 / 4, "{} of {items}", store.len());
    // What counted when the budget was larger does not fill a small one.
    assert!(store.set_budget(BUDGET / 4));
    while store.shrink(&rig.caller()) {}
    assert!(store.len() > items / 8, "{} of {items}", store.len());
    drop(all);
    assert_eq!(store.shards.shared.budget.expected(), 0);
}

#[test]
fn memory_of_its_own_is_not_made_room_in() {
    let (rig, store, items) = full();
    store.set_groups(&[KeyGroup { prefix: b"own:".to_vec(), max_bytes: Some(1 << 20) }]);
    reach(&rig, &store, &mut Expected::nothing(store.clone()), VALUE);
    assert_eq!(store.len(), items);
}

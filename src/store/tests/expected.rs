//! Room for what is on its way.

use super::*;

const BUDGET: u64 = 4 << 20;
const VALUE: usize = 256 << 10;
const PIECE: usize = 64 << 10;

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
    let steps: Vec<usize> = (0..VALUE / PIECE)
        .map(|_| {
            let before = store.len();
            expected.add(&rig.caller(), PIECE);
            before - store.len()
        })
        .collect();
    let segment = 64 << 10;
    assert!(steps.iter().all(|&items| items <= segment / 80), "one segment in each step: {steps:?}");
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
        Expected::nothing(store.clone()).add(&rig.caller(), VALUE);
    }
    // Each of them found the room of the first.
    let went = items - store.len();
    assert!((1..=2 * VALUE / 80).contains(&went), "{went} items went");
    let before = store.len();
    let verb = Verb::Set(Set { value: &[b'x'; 80], ..SET });
    store.execute(&rig.caller(), &Command { key: b"small", key_binary: false, verb }, |_| ());
    assert_eq!(store.len(), before + 1);
}

#[test]
fn who_announces_much_empties_no_cache() {
    let (rig, store, items) = full();
    let mut all: Vec<_> = (0..100).map(|_| Expected::nothing(store.clone())).collect();
    for _ in 0..10 {
        all.iter_mut().for_each(|expected| expected.add(&rig.caller(), VALUE));
    }
    assert!(store.len() > items * 3 / 4, "{} of {items}", store.len());
    drop(all);
    assert_eq!(store.shards.shared.budget.expected(), 0);
}

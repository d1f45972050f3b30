//! The table against a list of items in the order of their use, and the allocator's count.

use proptest::prelude::*;

use super::*;
use crate::store::facts::{Dead, FETCHED};

const KEYS: u8 = 6;

#[derive(Debug, Clone)]
enum Op {
    Insert(u8, Facts, usize),
    Update(u8, Facts),
    /// Found as used; then a value of this many bytes in one of four ways.
    Rewrite(u8, Facts, usize, u8),
    Promote(u8),
    Remove(u8),
    /// Whatever ends by then is dead.
    Sweep(Seconds),
    Evict,
}

fn facts() -> impl Strategy<Value = Facts> {
    let numbers = (any::<u64>(), any::<u32>(), 0..9_u32, any::<u32>(), any::<u32>());
    numbers.prop_map(|(cas, flags, exptime, accessed, stamp)| Facts { cas, flags, exptime, accessed, stamp })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..KEYS, facts(), 0..300_usize).prop_map(|(key, facts, len)| Op::Insert(key, facts, len)),
        2 => (0..KEYS, facts()).prop_map(|(key, facts)| Op::Update(key, facts)),
        4 => (0..KEYS, facts(), 0..300_usize, 0..4_u8)
            .prop_map(|(key, facts, len, how)| Op::Rewrite(key, facts, len, how)),
        1 => (0..KEYS).prop_map(Op::Promote),
        2 => (0..KEYS).prop_map(Op::Remove),
        1 => (0..9_u32).prop_map(Op::Sweep),
        1 => Just(Op::Evict),
    ]
}

/// Short and long ones: every other key does not fit into an entry.
fn key(number: u8) -> Vec<u8> {
    vec![b'a' + number; if number.is_multiple_of(2) { 5 } else { 100 }]
}

#[derive(Debug, Clone, PartialEq)]
struct Held {
    key: Vec<u8>,
    facts: Facts,
    value: Vec<u8>,
}

/// The items, the one that was used last in front.
#[derive(Default)]
struct Model(Vec<Held>);

impl Model {
    fn position(&self, number: u8) -> Option<usize> {
        self.0.iter().position(|held| held.key == key(number))
    }

    fn bring_front(&mut self, at: usize) -> &mut Held {
        let held = self.0.remove(at);
        self.0.insert(0, held);
        &mut self.0[0]
    }
}

fn rewritten(old: &[u8], new: &[u8], how: u8) -> Vec<u8> {
    match how {
        0 => new.to_vec(),
        1 => [old, new].concat(),
        2 => [new, old].concat(),
        _ => {
            let mut value = new.to_vec();
            value.resize(old.len().max(new.len()), b' ');
            value
        }
    }
}

fn new_value(bytes: &[u8], how: u8) -> NewValue<'_> {
    match how {
        0 => NewValue::Bytes(bytes),
        1 => NewValue::Appended(bytes),
        2 => NewValue::Prepended(bytes),
        _ => NewValue::Padded(bytes),
    }
}

fn is_dead(facts: &Facts, now: Seconds) -> Option<Dead> {
    (facts.exptime != 0 && facts.exptime <= now).then_some(Dead::Expired)
}

/// Runs one change of the table and holds its count against the allocator's.
fn counted<R>(table: &mut Table, change: impl FnOnce(&mut Table) -> R) -> R {
    let (used, balance) = (table.used(), meter::balance());
    let result = change(table);
    assert_eq!(table.used() - used, meter::balance() - balance);
    result
}

fn apply(table: &mut Table, model: &mut Model, hash: &KeyHash, op: &Op) {
    let bytes = [b'1'; 300];
    match *op {
        Op::Insert(number, facts, len) => {
            if model.position(number).is_none() {
                let key = key(number);
                counted(table, |table| table.insert(&hash.lookup(&key), facts, &bytes[..len]));
                model.0.insert(0, Held { key, facts, value: bytes[..len].to_vec() });
            }
        }
        Op::Update(number, facts) => {
            let key = key(number);
            let there = counted(table, |table| {
                table.find(&hash.lookup(&key)).map(|mut entry| entry.update(facts)).is_some()
            });
            let at = model.position(number);
            assert_eq!(there, at.is_some());
            at.into_iter().for_each(|at| model.0[at].facts = facts);
        }
        Op::Rewrite(number, facts, len, how) => {
            let (key, new) = (key(number), &bytes[..len]);
            let there = counted(table, |table| {
                let entry = table.find_used(&hash.lookup(&key));
                entry.map(|mut entry| entry.rewrite(facts, new_value(new, how))).is_some()
            });
            let at = model.position(number);
            assert_eq!(there, at.is_some());
            if let Some(at) = at {
                let held = model.bring_front(at);
                held.facts = facts;
                assert_eq!(new_value(new, how).len(held.value.len()), rewritten(&held.value, new, how).len());
                held.value = rewritten(&held.value, new, how);
            }
        }
        Op::Promote(number) => {
            let key = key(number);
            counted(table, |table| table.promote(&hash.lookup(&key)));
            model.position(number).into_iter().for_each(|at| _ = model.bring_front(at));
        }
        Op::Remove(number) => {
            let key = key(number);
            counted(table, |table| table.remove(&hash.lookup(&key)));
            model.0.retain(|held| held.key != key);
        }
        Op::Sweep(now) => {
            let swept = counted(table, |table| table.sweep(|_, facts| is_dead(facts, now)));
            let dead = |held: &&Held| is_dead(&held.facts, now).is_some();
            let unfetched = model.0.iter().filter(dead).filter(|held| !held.facts.is(FETCHED)).count() as u64;
            assert_eq!((swept.checked, swept.expired_unfetched), (model.0.len() as u64, unfetched));
            model.0.retain(|held| !dead(&held));
            assert_eq!(swept.checked - swept.dropped, model.0.len() as u64);
        }
        Op::Evict => {
            let oldest = model.0.pop().map(|held| (held.facts, held.value.len()));
            assert_eq!(counted(table, |table| table.evict(|_, facts, len| (*facts, len))), oldest);
        }
    }
}

proptest! {
    #[test]
    fn the_table_does_what_its_model_does(ops in proptest::collection::vec(op(), 1..200)) {
        let hash = KeyHash::default();
        let (mut table, mut model) = (Table::new(hash.clone()), Model::default());
        for op in &ops {
            apply(&mut table, &mut model, &hash, op);
            let mut shown = Vec::new();
            table.walk(|key, facts, value| {
                shown.push(Held { key: key.to_vec(), facts: *facts, value: value.to_vec() });
            });
            prop_assert_eq!(&shown, &model.0, "after {:?}", op);
            prop_assert_eq!(table.len(), model.0.len());
            prop_assert_eq!(table.oldest().map(|(_, facts)| *facts), model.0.last().map(|held| held.facts));
            let ends = model.0.iter().map(|held| held.facts.exptime).filter(|&exptime| exptime != 0).min();
            prop_assert!(ends.is_none_or(|ends| table.next_expiry() <= ends), "after {:?}", op);
            for held in &model.0 {
                let entry = table.find(&hash.lookup(&held.key)).expect("the model has it");
                prop_assert_eq!((entry.facts(), entry.value()), (&held.facts, &*held.value));
            }
        }
    }
}

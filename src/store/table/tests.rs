//! The table against a map, in an arena so small that segments are begun, taken apart and freed all the time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::clock::Seconds;
use crate::store::facts::{Dead, FETCHED, NewValue};
use crate::store::table::segment::Reason;

const SEGMENT_BYTES: usize = 1 << 10;

const KEYS: u8 = 40;

#[derive(Debug, Clone)]
enum Op {
    Insert(u8, Facts, usize),
    Update(u8, Facts),
    /// A value of this many bytes in one of five ways.
    Rewrite(u8, Facts, usize, u8),
    Promote(u8),
    Remove(u8),
    /// Whatever ends by then is dead; of all items, or where something may be.
    Sweep(Seconds, bool),
    /// Likewise, and a unit of one of these partitions is taken apart, or so many of its items; first what was begun.
    Reclaim(Seconds, bool, usize, usize),
    ReclaimWaste(Seconds),
    /// Other groups: one of some sets.
    Group(usize),
}

/// Groups of which some have memory of their own, in segments of the usual size or smaller ones.
const GROUPS: [&[(&str, Option<u64>)]; 5] = [
    &[],
    &[("B", Some(SEGMENT_BYTES as u64)), ("I", None)],
    &[("B", Some(512)), ("BB", None), ("C", Some(512))],
    &[("B", None), ("I", Some(512))],
    &[("C", Some(SEGMENT_BYTES as u64))],
];

fn groups(number: usize) -> Vec<KeyGroup> {
    let group = |&(prefix, max_bytes): &(&str, _)| KeyGroup { prefix: prefix.into(), max_bytes };
    GROUPS[number].iter().map(group).collect()
}

fn facts() -> impl Strategy<Value = Facts> {
    let exptime = prop_oneof![2 => Just(0), 3 => 1..9_u32, 1 => 300..20_000_u32];
    let flags = prop_oneof![3 => Just(0), 1 => any::<u32>()];
    let cas = prop_oneof![1 => Just(0), 6 => 1..1_u64 << 30, 1 => any::<u64>()];
    let stamp = prop_oneof![4 => 0..16_u32, 1 => 0x100..0x40f_u32].prop_map(|stamp| stamp & !0xf0);
    (cas, flags, exptime, 0..2000_u32, stamp).prop_map(|(cas, flags, exptime, accessed, stamp)| Facts {
        cas,
        flags,
        exptime,
        accessed,
        stamp,
    })
}

/// Bytes of a value: most often it fits into a segment.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..60_usize, 1 => 0..300_usize]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..KEYS, facts(), len()).prop_map(|(key, facts, len)| Op::Insert(key, facts, len)),
        2 => (0..KEYS, facts()).prop_map(|(key, facts)| Op::Update(key, facts)),
        4 => (0..KEYS, facts(), len(), 0..5_u8)
            .prop_map(|(key, facts, len, how)| Op::Rewrite(key, facts, len, how)),
        2 => (0..KEYS).prop_map(Op::Promote),
        3 => (0..KEYS).prop_map(Op::Remove),
        1 => (0..9_u32, any::<bool>()).prop_map(|(now, all)| Op::Sweep(now, all)),
        2 => (0..9_u32, prop::bool::weighted(0.1), 0..3_usize, prop_oneof![Just(usize::MAX), 1..30_usize])
            .prop_map(|(now, force, partition, most)| Op::Reclaim(now, force, partition, most)),
        1 => (0..GROUPS.len()).prop_map(Op::Group),
        1 => (0..9_u32).prop_map(Op::ReclaimWaste),
    ]
}

/// Short and long ones.
fn key(number: u8) -> Vec<u8> {
    vec![b'A' + number; if number.is_multiple_of(8) { 60 } else { 5 }]
}

type Model = BTreeMap<Vec<u8>, (Facts, Vec<u8>)>;

fn new_value(memory: &Bytes, len: usize, how: u8) -> NewValue<'_> {
    let bytes = &memory[..len];
    match how {
        0 => NewValue::Bytes(bytes),
        1 => NewValue::Appended(bytes),
        2 => NewValue::Prepended(bytes),
        3 => NewValue::Received(bytes, memory),
        _ => NewValue::Padded(bytes),
    }
}

fn is_dead(facts: &Facts, now: Seconds) -> Option<Dead> {
    (facts.exptime != 0 && facts.exptime <= now).then_some(Dead::Expired)
}

/// Notes what goes.
struct Witness<'a> {
    now: Seconds,
    model: &'a mut Model,
    /// Whether nothing that lives may go.
    spares: bool,
}

impl Judge for Witness<'_> {
    fn dead(&self, _: &[u8], facts: &Facts) -> Option<Dead> {
        is_dead(facts, self.now)
    }

    fn gone(&mut self, item: Gone<'_>) {
        let (facts, value) = self.model.remove(item.key).expect("it was there");
        assert_eq!((&facts, value.len()), (item.facts, item.value_len));
        assert_eq!(is_dead(&facts, self.now), item.why);
        assert!(item.why.is_some() || !self.spares, "it lives");
    }
}

fn whole(now: Seconds) -> Portion {
    Portion { horizon: Horizon { now, floor: 0 }, force: false, most: usize::MAX }
}

fn reclaim(table: &mut Table, model: &mut Model, mut portion: Portion, partition: usize) -> bool {
    let spares = table.begun.is_some_and(|begun| begun.reason == Reason::Waste);
    let mut witness = Witness { now: portion.horizon.now, model, spares };
    // At times one that was begun is left as it is.
    if !portion.most.is_multiple_of(8) && table.reclaim_begun(partition, &mut portion, &mut witness).is_some()
    {
        return true;
    }
    witness.spares = true;
    table.reclaim_waste(Some(partition), 4, &mut portion, &mut witness).is_some() || {
        witness.spares = false;
        table.reclaim(partition, &mut portion, &mut witness).is_some()
    }
}

fn reclaim_waste(table: &mut Table, model: &mut Model, now: Seconds) {
    let mut witness = Witness { now, model, spares: true };
    while table.reclaim_waste(None, 4, &mut whole(now), &mut witness).is_some() {}
}

fn sweep(table: &mut Table, model: &mut Model, now: Seconds, all: bool) {
    let (mut cursor, mut dropped, mut unfetched) = (Cursor::default(), 0, 0);
    let horizon = Horizon { now, floor: 0 };
    while let Some(swept) = table.sweep(&mut cursor, horizon, all, |_, facts| is_dead(facts, now)) {
        dropped += swept.dropped;
        unfetched += swept.expired_unfetched;
    }
    let dead: Vec<_> = model.values().filter(|(facts, _)| is_dead(facts, now).is_some()).collect();
    assert_eq!(dropped, dead.len() as u64);
    assert_eq!(unfetched, dead.iter().filter(|(facts, _)| !facts.is(FETCHED)).count() as u64);
    model.retain(|_, (facts, _)| is_dead(facts, now).is_none());
}

fn apply(table: &mut Table, model: &mut Model, hash: &KeyHash, op: &Op) {
    let bytes = Bytes::from_static(&[b'1'; 300]);
    match *op {
        Op::Insert(number, facts, len) => {
            let key = key(number);
            if model.get(&key).is_none() {
                let (used, growth) = (table.used(), table.growth(&facts, &key, len) as i64);
                let before = (table.index.bytes() + table.ghost.bytes()) as i64;
                table.insert(&hash.lookup(&key), facts, NewValue::Bytes(&bytes[..len]));
                let around = (table.index.bytes() + table.ghost.bytes()) as i64 - before;
                let extra = 256;
                assert!(table.used() - used - around <= growth.max(SEGMENT_BYTES as i64) + extra);
                model.insert(key, (facts, bytes[..len].to_vec()));
            }
        }
        Op::Update(number, facts) => {
            let key = key(number);
            let there = table.find(&hash.lookup(&key)).map(|mut entry| entry.update(facts)).is_some();
            assert_eq!(there, model.contains_key(&key));
            model.entry(key).and_modify(|(old, _)| *old = facts);
        }
        Op::Rewrite(number, facts, len, how) => {
            let (key, value) = (key(number), new_value(&bytes, len, how));
            let entry = table.find(&hash.lookup(&key));
            assert_eq!(entry.is_some(), model.contains_key(&key));
            let Some(mut entry) = entry else { return };
            let rewritten = value.made_of(entry.value());
            assert_eq!(rewritten.len(), value.len(entry.value().len()));
            entry.rewrite(facts, value);
            assert_eq!((entry.facts(), entry.value()), (&facts, &*rewritten));
            assert_eq!(entry.into_value(), rewritten);
            model.insert(key, (facts, rewritten));
        }
        Op::Promote(number) => _ = table.find(&hash.lookup(&key(number))).map(|mut entry| entry.promote()),
        Op::Remove(number) => {
            table.remove(&hash.lookup(&key(number)));
            model.remove(&key(number));
        }
        Op::Sweep(now, all) => sweep(table, model, now, all),
        Op::Reclaim(now, force, partition, most) => {
            let portion = Portion { most, force, ..whole(now) };
            _ = reclaim(table, model, portion, partition);
        }
        Op::ReclaimWaste(now) => reclaim_waste(table, model, now),
        Op::Group(number) => {
            let made = KeyGroups::new(&groups(number), &table.groups, |bytes| Pool::new(bytes as usize));
            table.set_groups(Arc::new(made));
        }
    }
}

fn check(table: &mut Table, model: &Model, hash: &KeyHash) {
    table.audit();
    let mut shown = Model::new();
    for piece in 0..table.index.pieces() {
        table.walk(piece, |key, facts, value, _| {
            assert!(shown.insert(key.to_vec(), (*facts, value.to_vec())).is_none());
        });
    }
    assert_eq!(&shown, model);
    assert_eq!(table.len(), model.len());
    for (key, (facts, value)) in model {
        let entry = table.find(&hash.lookup(key)).expect("the model has it");
        assert_eq!((entry.facts(), entry.value()), (facts, &**value));
    }
    table.report_growth();
    for (number, queues) in table.partitions.iter().enumerate().skip(1) {
        assert_eq!(table.groups.partition(number).used(), queues.used() as i64);
    }
    for (prefix, uses) in table.groups.prefixes().zip(table.group_uses()) {
        let longer = |key: &[u8]| {
            table.groups.prefixes().any(|other| other.len() > prefix.len() && key.starts_with(other))
        };
        let items = model.keys().filter(|key| key.starts_with(prefix) && !longer(key)).count();
        assert_eq!((uses.items, uses.bytes > 0), (items as u64, items > 0), "{}", prefix.escape_ascii());
    }
}

fn tiny(pieces: usize) -> (Table, KeyHash) {
    let hash = KeyHash::default();
    let groups = Arc::new(KeyGroups::none(Arc::new(Pool::new(SEGMENT_BYTES))));
    (Table::new(hash.clone(), groups, pieces), hash)
}

proptest! {
    #[test]
    fn the_table_is_a_map(ops in proptest::collection::vec(op(), 1..400), pieces in 1..4_usize) {
        let (mut table, hash) = tiny(pieces);
        let mut model = Model::new();
        for op in &ops {
            apply(&mut table, &mut model, &hash, op);
            check(&mut table, &model, &hash);
        }
        // What is left can be taken apart, but for the units that were written to last; and those, too, in the end.
        let units = |table: &Table| table.memory.segments().count() + table.memory.larges.iter().count();
        for (is_last, most) in [(false, table.partitions.len()), (true, 0)] {
            if is_last {
                table.spare_nothing();
            }
            // What lives on may move to another partition.
            while (0..table.partitions.len()).any(|number| reclaim(&mut table, &mut model, whole(0), number)) {
                check(&mut table, &model, &hash);
            }
            prop_assert!(units(&table) <= most);
        }
    }
}

const PLAIN: Facts = Facts { cas: 1, flags: 0, exptime: 0, accessed: 5, stamp: 0 };

struct Count(Vec<Vec<u8>>);

impl Judge for Count {
    fn dead(&self, _: &[u8], _: &Facts) -> Option<Dead> {
        None
    }

    fn gone(&mut self, item: Gone<'_>) {
        self.0.push(item.key.to_vec());
    }
}

#[test]
fn what_was_used_twice_outlives_what_was_not() {
    let (mut table, hash) = tiny(1);
    let name = |number: usize| format!("{number:04}").into_bytes();
    for number in 0..200 {
        table.insert(&hash.lookup(&name(number)), PLAIN, NewValue::Bytes(&[b'x'; 20]));
        if number % 10 == 0 {
            let name = name(number);
            let mut entry = table.find(&hash.lookup(&name)).unwrap();
            entry.promote();
            entry.promote();
        }
    }
    let mut gone = Count(Vec::new());
    while gone.0.len() < 150 {
        table.reclaim(0, &mut whole(0), &mut gone);
    }
    assert!((0..20).all(|tenth| table.find(&hash.lookup(&name(tenth * 10))).is_some()));
    assert!(gone.0.is_sorted(), "first in, first out");
    // A key that comes back soon goes where it stays longer.
    let again = gone.0.last().unwrap();
    table.insert(&hash.lookup(again), PLAIN, NewValue::Bytes(b""));
    let place = table.find(&hash.lookup(again)).unwrap().place();
    assert_eq!(table.memory.line(place).queue, Queue::Main);
}

/// Counts what has gone at a moment, of which so much at most may have lived.
struct At(Seconds, usize, usize);

impl Judge for At {
    fn dead(&self, _: &[u8], facts: &Facts) -> Option<Dead> {
        is_dead(facts, self.0)
    }

    fn gone(&mut self, item: Gone<'_>) {
        self.1 += 1;
        if item.why.is_none() {
            self.2 = self.2.checked_sub(1).expect("nothing that lives gives way");
        }
    }
}

#[test]
fn segments_of_what_ends_soon_are_freed_whole() {
    let (mut table, hash) = tiny(1);
    for number in 0..100_u32 {
        let exptime = if number.is_multiple_of(2) { 0 } else { 100 };
        table.insert(
            &hash.lookup(&number.to_be_bytes()),
            Facts { exptime, ..PLAIN },
            NewValue::Bytes(&[b'x'; 30]),
        );
    }
    let segments = table.memory.segments().count();
    let mut judge = At(100, 0, 0);
    while table.reclaim_waste(None, 1000, &mut whole(100), &mut judge).is_some() {
        if judge.1 == 50 {
            break;
        }
    }
    assert_eq!((judge.1, table.len()), (50, 50));
    assert!(table.memory.segments().count() <= segments / 2 + 1);
    table.audit();
}

#[test]
fn what_dies_goes_before_the_rest_of_what_was_begun() {
    let (mut table, hash) = tiny(1);
    for number in 0..100_u32 {
        let facts = Facts { exptime: if number < 50 { 0 } else { 100 }, ..PLAIN };
        table.insert(&hash.lookup(&number.to_be_bytes()), facts, NewValue::Bytes(&[b'x'; 30]));
    }
    let mut judge = At(99, 0, 3);
    table.reclaim(0, &mut Portion { most: 3, ..whole(99) }, &mut judge);
    assert_eq!((judge.1, table.len()), (3, 97));
    // None of the others that live.
    let mut judge = At(100, 0, 0);
    table.reclaim_begun(0, &mut whole(100), &mut judge);
    assert!(judge.1 > 10 && table.len() == 97 - judge.1, "{} have gone", judge.1);
    table.audit();
    let mut judge = At(100, 0, 100);
    while table.reclaim(0, &mut whole(100), &mut judge).is_some() {}
    assert!(table.len() < 50);
}

#[test]
fn a_flush_frees_segments_without_asking_what_ends() {
    let (mut table, hash) = tiny(1);
    for number in 0..100_u32 {
        let stamp = if number < 50 { 0x100 } else { 0x200 };
        table.insert(
            &hash.lookup(&number.to_be_bytes()),
            Facts { stamp, ..PLAIN },
            NewValue::Bytes(&[b'x'; 30]),
        );
    }
    assert!(table.dead_unit(Horizon { now: 0, floor: 0x100 }, None).is_none());
    assert!(table.dead_unit(Horizon { now: 0, floor: 0x200 }, None).is_some());
}

/// Stands for the hash of a key of this number (the mixer of SplitMix64).
pub(super) fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

impl Table {
    /// Holds everything against everything: the index, the segments, the queues and the counts.
    pub(in crate::store) fn audit(&self) {
        let mut live: BTreeMap<usize, usize> = BTreeMap::new();
        let mut larges = 0;
        for piece in 0..self.index.pieces() {
            for slot in self.index.slots(piece) {
                match slot.place() {
                    Place::Segment(number, at) => {
                        let form = self.memory.segment(number).form_at(at);
                        assert!(!form.is_dead());
                        *live.entry(number).or_default() += form.item_len();
                    }
                    Place::Large(_) => larges += 1,
                }
            }
        }
        let mut counts = vec![[0; 2]; self.partitions.len()];
        let mut count = |line: Line, bytes| {
            counts[usize::from(line.partition)][line.queue as usize] += bytes;
        };
        let opened: Vec<usize> = self.partitions.iter().flat_map(Queues::opened).collect();
        for (number, segment) in self.memory.segments() {
            assert_eq!(segment.live_bytes(), live.remove(&number).unwrap_or(0), "segment {number}");
            assert!(!segment.is_empty(), "segment {number} holds nothing");
            assert_eq!(segment.open, opened.contains(&number), "segment {number}");
            assert!(!(segment.open && segment.reclaiming), "segment {number}");
            count(segment.line, segment.capacity());
        }
        if let Some(begun) = self.begun {
            let segment = self.memory.segment(begun.number);
            assert!(
                segment.reclaiming && segment.next(0) == segment.next(begun.next),
                "nothing is left before it"
            );
        }
        assert!(live.is_empty(), "every item lies in a segment that is in use");
        let mut bytes = 0;
        for (_, item) in self.memory.larges.iter() {
            bytes += item.bytes();
            count(item.line, item.bytes());
        }
        assert_eq!(self.memory.larges.iter().count(), larges);
        assert_eq!(self.memory.larges.bytes(), bytes);
        for (queues, counted) in self.partitions.iter().zip(counts) {
            assert_eq!(queues.bytes(), counted);
        }
        let units = self.memory.segments().count() - opened.len() + larges;
        let queued: usize = self.partitions.iter().map(Queues::units).sum();
        assert_eq!(queued, units, "each unit stands in one queue");
    }
}

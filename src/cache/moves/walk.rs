//! The order in which a source hands out what a taker has not asked for by key: what was used last comes first, roughly.

use std::ops::ControlFlow;

use crate::clock::Seconds;
use crate::store::{Caller, MovingItem, Store};

/// What one step does, in items looked at or parts begun: some tenths of a millisecond. A lock is held for each part alone.
const STEP_WORK: usize = 1_000;

/// Parts into which items are divided by the time of their last use. Each takes a walk over the whole memory.
const AGES: usize = 4;

/// How often an item was asked for that comes before the others of its age, in the newest part.
const USES_OFTEN: u8 = 3;

/// Items that come before others.
#[derive(Debug, Clone, Copy)]
struct Class {
    /// They were used since then,
    since: Seconds,
    /// and so often.
    uses: u8,
}

/// A walk over the memory for one taker: one to count, then one for each class.
#[derive(Debug)]
pub(super) struct Walk {
    /// By the bits of the seconds since their last use.
    counted: [u64; Seconds::BITS as usize + 1],
    pub(super) items: u64,
    pub(super) bytes: u64,
    /// What comes first, first; empty while items are counted.
    classes: Vec<Class>,
    part: usize,
}

impl Default for Walk {
    fn default() -> Self {
        let counted = [0; Seconds::BITS as usize + 1];
        Self { counted, items: 0, bytes: 0, classes: Vec::new(), part: 0 }
    }
}

/// Bytes of an item as it travels.
pub(super) fn item_bytes(moving: &MovingItem<'_>) -> usize {
    moving.item.key.len() + moving.item.value.len()
}

impl Walk {
    /// Takes items out whose keys are `wanted` until they have so many bytes, or enough was looked at, and gives each to `give`.
    /// Whether there are no more.
    pub(super) fn step(
        &mut self,
        store: &Store,
        caller: &Caller<'_>,
        wanted: impl Fn(&[u8]) -> bool,
        bytes: usize,
        mut give: impl FnMut(&MovingItem<'_>),
    ) -> bool {
        let (mut given, mut work) = (0, 0);
        while work < STEP_WORK {
            if self.part == store.part_count() {
                self.part = 0;
                match self.classes.is_empty() {
                    true => self.classes = self.divide(caller.now),
                    false => _ = self.classes.remove(0),
                }
                if self.classes.is_empty() {
                    return true;
                }
            }
            let Some(&class) = self.classes.first() else {
                work += 1 + self.count(store, caller, &wanted);
                self.part += 1;
                continue;
            };
            let mut is_full = false;
            work += 1 + store.take_part(caller, self.part, class.since, |moving| {
                if moving.uses < class.uses || !wanted(moving.item.key) {
                    return ControlFlow::Continue(false);
                }
                if given >= bytes {
                    is_full = true;
                    return ControlFlow::Break(());
                }
                given += item_bytes(moving);
                give(moving);
                ControlFlow::Continue(true)
            });
            if is_full {
                break;
            }
            self.part += 1;
        }
        false
    }

    /// Counts what is wanted in one part; returns how many items were looked at.
    fn count(&mut self, store: &Store, caller: &Caller<'_>, wanted: impl Fn(&[u8]) -> bool) -> usize {
        let (mut items, mut bytes) = (0, 0);
        let counted = &mut self.counted;
        let looked_at = store.scan(caller, self.part, wanted, |moving| {
            items += 1;
            bytes += item_bytes(&moving) as u64;
            counted[(Seconds::BITS - moving.item.idle_seconds.leading_zeros()) as usize] += 1;
        });
        self.items += items;
        self.bytes += bytes;
        looked_at
    }

    /// The classes, by what was counted; the last one has everything.
    fn divide(&self, now: Seconds) -> Vec<Class> {
        let mut ages = Vec::new();
        let mut items = 0;
        for (bits, counted) in (0..).zip(self.counted) {
            items += counted;
            if items * AGES as u64 >= self.items * (ages.len() as u64 + 1) && ages.len() + 1 < AGES {
                let idle = Seconds::MAX.checked_shr(Seconds::BITS - bits).unwrap_or_default();
                ages.push(now.saturating_sub(idle));
            }
        }
        ages.push(0);
        ages.dedup();
        let often = Class { since: ages[0], uses: USES_OFTEN };
        std::iter::once(often).chain(ages.into_iter().map(|since| Class { since, uses: 0 })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::command::{Command, Get, Set, Verb};
    use crate::events::Events;
    use crate::stats::Counters;
    use crate::store;

    /// Items of one age, and how many of them are asked for often.
    const ITEMS: usize = 2_000;
    const OFTEN: usize = 50;

    fn run(store: &Store, key: &str, verb: Verb<'_>) {
        let counters = Counters::default();
        let caller = Caller::new(store.clock().now(), &counters, 0);
        store.execute(&caller, &Command { key: key.as_bytes(), key_binary: false, verb }, |_| ());
    }

    /// The keys in the order in which they are handed out, by steps of so many bytes; those that begin with a `-` stay.
    fn handed_out(store: &Store, bytes: usize) -> Vec<String> {
        let counters = Counters::default();
        let caller = Caller::new(store.clock().now(), &counters, 0);
        let (mut walk, mut keys) = (Walk::default(), Vec::new());
        loop {
            let mut step = 0;
            let is_over = walk.step(
                store,
                &caller,
                |key| key[0] != b'-',
                bytes,
                |moving| {
                    step += item_bytes(moving);
                    keys.push(String::from_utf8_lossy(moving.item.key).into_owned());
                },
            );
            // The last one may go beyond.
            assert!(step < bytes + 20, "{step}");
            if is_over {
                return keys;
            }
        }
    }

    #[test]
    fn what_was_used_last_comes_first_and_of_that_what_is_asked_for_often() {
        let clock = Clock::manual(1_700_000_000);
        let store = Store::new(&store::Options::default(), clock.clone(), Events::default());
        for age in ["old", "new"] {
            for number in 0..ITEMS {
                run(&store, &format!("{age}-{number}"), Verb::Set(Set { value: b"value", ..Set::PLAIN }));
                run(&store, &format!("-{age}-{number}"), Verb::Set(Set { value: b"value", ..Set::PLAIN }));
            }
            for _ in 0..4 {
                (0..OFTEN).for_each(|number| run(&store, &format!("{age}-{number}"), Verb::Get(Get::PLAIN)));
            }
            clock.advance(1_000);
        }
        let keys = handed_out(&store, 4_096);
        assert_eq!(keys.len(), 2 * ITEMS);
        let number = |key: &str| key.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
        assert!(keys[..OFTEN].iter().all(|key| key.starts_with("new") && number(key) < Some(OFTEN)));
        assert!(keys[..ITEMS].iter().all(|key| key.starts_with("new")));
        assert!(handed_out(&store, 4_096).is_empty(), "they lie there no more");
    }
}

//! The order in which a source hands out what a taker has not asked for by key: what was used last comes first, roughly.

use std::ops::ControlFlow;

use crate::clock::Seconds;
use crate::store::{Caller, MovingItem, Store, Usage};

/// What one step does, in items looked at or parts begun: some tenths of a millisecond. A lock is held for each part alone.
const STEP_WORK: usize = 500;

/// Items that are looked at before the first one is handed out: which of them are wanted, and when those were used, tells how
/// it is with all. Keys lie in parts by their hashes, so that any part is like all others.
const SAMPLE: usize = 2_000;

/// More of them while fewer are wanted than this,
const WANTED_LEAST: u64 = 100;

/// up to so many.
const SAMPLE_MAX: usize = 50_000;

/// Parts into which items are divided by the time of their last use. Each takes a walk over the whole memory.
const AGES: usize = 4;

/// How often an item was asked for that comes before the others of its age, in the newest part.
const USES_OFTEN: u8 = 3;

/// A walk over the memory for one taker: over a sample of it, then one for each class.
#[derive(Debug, Default)]
pub(super) struct Walk {
    sample: Sample,
    /// About how many are left, and their bytes.
    pub(super) items: u64,
    pub(super) bytes: u64,
    /// What comes first, first; empty until there is a sample.
    classes: Vec<Usage>,
    part: usize,
}

#[derive(Debug)]
struct Sample {
    looked_at: usize,
    /// Those that are wanted, by the bits of the seconds since their last use.
    wanted: [u64; Seconds::BITS as usize + 1],
    bytes: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self { looked_at: 0, wanted: [0; Seconds::BITS as usize + 1], bytes: 0 }
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
                self.classes.remove(0);
                if self.classes.is_empty() {
                    return true;
                }
            }
            let Some(class) = self.classes.first() else {
                work += 1 + self.look_at_part(store, caller, &wanted);
                continue;
            };
            let mut is_full = false;
            work += 1 + store.take_part(caller, self.part, class, &wanted, |moving| {
                if given >= bytes {
                    is_full = true;
                    return ControlFlow::Break(());
                }
                given += item_bytes(moving);
                give(moving);
                ControlFlow::Continue(())
            });
            if is_full {
                break;
            }
            self.part += 1;
        }
        false
    }

    /// Adds one part to the sample; returns how many items were looked at. With the last one it knows the classes.
    fn look_at_part(&mut self, store: &Store, caller: &Caller<'_>, wanted: impl Fn(&[u8]) -> bool) -> usize {
        let sample = &mut self.sample;
        // From the last part on: a walk that was broken off has handed out what lay in the first ones.
        let part = store.part_count() - 1 - self.part;
        let looked_at = store.scan(caller, part, wanted, |moving| {
            sample.wanted[(Seconds::BITS - moving.item.idle_seconds.leading_zeros()) as usize] += 1;
            sample.bytes += item_bytes(&moving) as u64;
        });
        sample.looked_at += looked_at;
        self.part += 1;
        let wanted = sample.wanted.iter().sum::<u64>();
        let enough = if wanted < WANTED_LEAST { SAMPLE_MAX } else { SAMPLE };
        if sample.looked_at >= enough || self.part == store.part_count() {
            let (len, looked_at) = (store.len() as u64, sample.looked_at.max(1) as u64);
            self.items = wanted * len / looked_at;
            self.bytes = sample.bytes * len / looked_at;
            self.classes = sample.classes(caller.now);
            self.part = 0;
        }
        looked_at
    }
}

impl Sample {
    /// Classes that have about as many items each; the last one has everything.
    fn classes(&self, now: Seconds) -> Vec<Usage> {
        let total: u64 = self.wanted.iter().sum();
        let mut ages = Vec::new();
        let (mut items, mut newest) = (0, Seconds::MAX);
        for (bits, wanted) in (0..).zip(self.wanted).filter(|(_, wanted)| *wanted > 0) {
            items += wanted;
            if items < total && items * AGES as u64 >= total * (ages.len() as u64 + 1) {
                let idle = Seconds::MAX.checked_shr(Seconds::BITS - bits).unwrap_or_default();
                let oldest = now.saturating_sub(idle);
                ages.push(Usage { last: oldest..=newest, uses: 0 });
                newest = oldest.saturating_sub(1);
            }
        }
        ages.push(Usage { last: 0..=Seconds::MAX, uses: 0 });
        let often = Usage { uses: USES_OFTEN, ..ages[0].clone() };
        std::iter::once(often).chain(ages).collect()
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

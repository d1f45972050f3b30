//! Loads: what was written since one began is never replaced by what it brings.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::command::Arithmetic;

const KEYS: [&[u8]; 4] = [b"a:1", b"a:2", b"b:1", b"b:2"];

#[derive(Debug, Clone)]
enum Step {
    Begin(usize),
    /// Renews what is there.
    Refresh(usize),
    /// Ends one of those that have begun, with the value that its origin had then.
    Finish(prop::sample::Index),
    /// Likewise, but an origin that has still the value that is to be replaced only says so.
    Renew(prop::sample::Index),
    /// Ends one that found nothing.
    Abandon(prop::sample::Index),
    Set(usize),
    Add(usize),
    Delete(usize),
    Increment(usize),
    Touch(usize),
    /// A touch with a time that is past, where there is something.
    Expire(usize),
    Read(usize),
    Flush,
    FlushPrefix(&'static [u8]),
    Sweep,
    /// Seconds pass.
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => key().prop_map(Step::Begin),
        4 => key().prop_map(Step::Refresh),
        6 => index().prop_map(Step::Finish),
        4 => index().prop_map(Step::Renew),
        1 => index().prop_map(Step::Abandon),
        3 => key().prop_map(Step::Set),
        2 => key().prop_map(Step::Add),
        3 => key().prop_map(Step::Delete),
        1 => key().prop_map(Step::Increment),
        1 => key().prop_map(Step::Touch),
        1 => key().prop_map(Step::Expire),
        2 => key().prop_map(Step::Read),
        1 => Just(Step::Flush),
        1 => prop_oneof![Just(&b"a:"[..]), Just(&b"b:1"[..])].prop_map(Step::FlushPrefix),
        1 => Just(Step::Sweep),
        1 => (1..20_u32).prop_map(Step::Wait),
    ]
}

/// An origin whose values only grow, and a store in front of it.
struct World {
    rig: Rig,
    /// The origin's value of every key. Each write of a client raises it.
    now: u64,
    /// For each key, what a reader may not be shown less than.
    floors: [u64; KEYS.len()],
    /// Loads that have begun, of which key, and what the origin said.
    begun: Vec<(usize, Load, u64)>,
    next: u64,
    /// What loads have stored, by the CAS tokens of the items.
    stored: HashMap<u64, u64>,
}

impl World {
    fn new() -> Self {
        let rig = Rig::one_shard(&Options::default());
        Self { rig, now: 100, floors: [0; KEYS.len()], begun: Vec::new(), next: 0, stored: HashMap::new() }
    }

    fn begin(&mut self, key: usize, replaces: Option<u64>) {
        let caller = self.rig.caller();
        match self.rig.store.begin_load(&caller, KEYS[key], self.next, replaces) {
            LoadStart::Begun(load) => {
                assert_eq!(load.number, self.next);
                self.next += 1;
                self.begun.push((key, load, self.now));
            }
            // Whoever joins it must not be shown anything older than what was written before.
            LoadStart::Running(number) => {
                let (_, _, value) =
                    self.begun.iter().find(|(_, load, _)| load.number == number).expect("runs");
                assert!(*value >= self.floors[key], "a load from before a write is joined");
            }
            LoadStart::Present => assert!(self.rig.holds(KEYS[key])),
        }
    }

    fn cas(&self, key: usize) -> Option<u64> {
        self.rig.run(KEYS[key], Verb::Inspect, |outcome| match outcome {
            Outcome::Found(found) => Some(found.item.cas),
            _ => None,
        })
    }

    fn finish(&mut self, index: usize) {
        let (key, load, number) = self.begun.swap_remove(index);
        let value = number.to_string();
        let item = ItemView {
            key: KEYS[key],
            value: value.as_bytes(),
            value_len: value.len(),
            ttl_seconds: Some(30),
            loaded: true,
            ..ItemView::default()
        };
        if let LoadEnd::Stored { cas } = self.rig.store.finish_load(&self.rig.caller(), &load, &item) {
            assert_eq!(self.cas(key), Some(cas));
            self.stored.insert(cas, number);
        }
    }

    /// Ends a load whose origin is asked only whether it has another value than that which is to be replaced. Whether what
    /// is there lives on.
    fn renew(&mut self, index: usize) -> bool {
        let (key, load, value) = self.begun[index];
        if load.replaces.and_then(|cas| self.stored.get(&cas)) != Some(&value) {
            self.finish(index);
            return false;
        }
        self.begun.swap_remove(index);
        let is_renewed = self.rig.store.renew_load(&self.rig.caller(), KEYS[key], &load, Some(30), true);
        if is_renewed {
            assert_eq!((self.value(key), self.cas(key)), (Some(value), load.replaces));
            assert_eq!(self.ttl(key), Some(30));
        }
        is_renewed
    }

    fn ttl(&self, key: usize) -> Option<u32> {
        self.rig.run(KEYS[key], Verb::Inspect, |outcome| match outcome {
            Outcome::Found(found) => found.item.ttl_seconds,
            _ => None,
        })
    }

    /// A client changes something: nothing from before may be shown from now on.
    fn change(&mut self, key: usize, verb: Verb<'_>) {
        self.now += 1;
        self.rig.run(KEYS[key], verb, |_| ());
        self.floors[key] = self.now;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin(key) => self.begin(key, None),
            Step::Refresh(key) => {
                if let Some(cas) = self.cas(key) {
                    self.begin(key, Some(cas));
                }
            }
            Step::Finish(index) if !self.begun.is_empty() => self.finish(index.index(self.begun.len())),
            Step::Abandon(index) if !self.begun.is_empty() => {
                let (key, load, _) = self.begun.swap_remove(index.index(self.begun.len()));
                self.rig.store.end_load(&self.rig.caller(), KEYS[key], &load, false);
            }
            Step::Renew(index) if !self.begun.is_empty() => _ = self.renew(index.index(self.begun.len())),
            Step::Finish(_) | Step::Renew(_) | Step::Abandon(_) => {}
            Step::Set(key) => {
                let value = (self.now + 1).to_string();
                self.change(key, Verb::Set(Set { value: value.as_bytes(), ..SET }));
            }
            Step::Add(key) if !self.rig.holds(KEYS[key]) => {
                let value = (self.now + 1).to_string();
                self.change(key, Verb::Set(Set { mode: SetMode::Add, value: value.as_bytes(), ..SET }));
            }
            Step::Add(_) => {}
            Step::Delete(key) => self.change(key, Verb::Delete(Delete::default())),
            Step::Increment(key) => {
                // To something that the origin says later, if at all.
                let value = self.now + 1;
                let delta = value.saturating_sub(self.value(key).unwrap_or(value));
                self.change(key, Verb::Arithmetic(Arithmetic { delta, ..Arithmetic::PLAIN }));
            }
            Step::Touch(key) => {
                let get = Get { touch: Some(Exptime::In(60)), ..Get::PLAIN };
                self.rig.run(KEYS[key], Verb::Get(get), |_| ());
            }
            Step::Expire(key) if self.rig.holds(KEYS[key]) => {
                self.change(key, Verb::Get(Get { touch: Some(Exptime::At(0)), ..Get::PLAIN }));
            }
            Step::Expire(_) => {}
            Step::Read(key) => _ = self.rig.get(KEYS[key]),
            Step::Flush => {
                self.now += 1;
                self.rig.flush(Exptime::Never);
                self.floors = [self.now; KEYS.len()];
            }
            Step::FlushPrefix(prefix) => {
                self.now += 1;
                self.rig.store.flush_prefix(prefix).expect("there are not many");
                for (floor, key) in self.floors.iter_mut().zip(KEYS) {
                    if key.starts_with(prefix) {
                        *floor = self.now;
                    }
                }
            }
            Step::Sweep => _ = self.rig.sweep(),
            Step::Wait(seconds) => self.rig.clock.advance(seconds),
        }
    }

    fn value(&self, key: usize) -> Option<u64> {
        self.rig.run(KEYS[key], Verb::Inspect, |outcome| match outcome {
            Outcome::Found(found) => std::str::from_utf8(found.item.value).ok()?.parse().ok(),
            _ => None,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_older_than_a_write_comes_back(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            for key in 0..KEYS.len() {
                if let Some(value) = world.value(key) {
                    prop_assert!(value >= world.floors[key], "{value} under {key}, not {}", world.floors[key]);
                }
            }
        }
    }
}

#[test]
fn a_load_is_stored_with_its_mark_and_loses_it_when_changed() {
    let mut world = World::new();
    let loaded = |world: &World| {
        world.rig.run(KEYS[0], Verb::Inspect, |outcome| match outcome {
            Outcome::Found(found) => Some(found.item.loaded),
            _ => None,
        })
    };
    for change in [Step::Set(0), Step::Touch(0), Step::Increment(0)] {
        world.step(Step::Delete(0));
        world.begin(0, None);
        world.finish(0);
        assert_eq!(loaded(&world), Some(true));
        world.step(Step::Read(0));
        assert_eq!(loaded(&world), Some(true), "reading changes nothing");
        world.step(change);
        assert_eq!(loaded(&world), Some(false));
    }
}

/// A world in which a load has stored a value under the first key, and another one renews it, 20 seconds later.
fn renewing() -> World {
    let mut world = World::new();
    world.begin(0, None);
    world.finish(0);
    world.step(Step::Read(0));
    world.step(Step::Wait(20));
    assert_eq!(world.ttl(0), Some(10));
    world.step(Step::Refresh(0));
    world
}

#[test]
fn a_value_that_its_origin_still_has_lives_on_as_it_is() {
    let mut world = renewing();
    let cas = world.cas(0);
    assert!(world.renew(0));
    world.rig.run(KEYS[0], Verb::Inspect, |outcome| {
        let Outcome::Found(found) = outcome else { panic!("{}", outcome.name()) };
        let item = found.item;
        assert_eq!((item.value, Some(item.cas), item.ttl_seconds), (&b"100"[..], cas, Some(30)));
        assert!(item.loaded && item.fetched);
        assert_eq!(item.idle_seconds, 20, "nobody has read it");
    });
    // And once more, after the time that it had first.
    world.step(Step::Wait(20));
    world.step(Step::Refresh(0));
    assert!(world.renew(0));
    assert_eq!((world.cas(0), world.ttl(0)), (cas, Some(30)));
}

#[test]
fn a_value_can_live_on_for_ever_or_as_if_written() {
    for (ttl, loaded) in [(None, true), (Some(7), false)] {
        let mut world = renewing();
        let (key, load, _) = world.begun.remove(0);
        assert!(world.rig.store.renew_load(&world.rig.caller(), KEYS[key], &load, ttl, loaded));
        assert_eq!((world.value(0), world.ttl(0)), (Some(100), ttl));
        world.rig.run(KEYS[0], Verb::Inspect, |outcome| {
            assert!(matches!(outcome, Outcome::Found(found) if found.item.loaded == loaded));
        });
    }
}

#[test]
fn what_happened_since_a_load_began_is_not_undone_by_an_unchanged_value() {
    let flushed = Step::FlushPrefix(b"a:");
    for step in [
        Step::Set(0),
        Step::Delete(0),
        Step::Increment(0),
        Step::Touch(0),
        Step::Expire(0),
        Step::Flush,
        flushed,
        // Its time is over.
        Step::Wait(10),
    ] {
        let mut world = renewing();
        world.step(step.clone());
        let before = (world.value(0), world.cas(0), world.ttl(0));
        assert!(!world.renew(0), "{step:?}");
        assert_eq!((world.value(0), world.cas(0), world.ttl(0)), before, "{step:?}");
    }
}

#[test]
fn an_unchanged_value_is_as_young_as_its_load() {
    let mut world = renewing();
    let (key, load, _) = world.begun.remove(0);
    world.rig.store.end_load(&world.rig.caller(), KEYS[key], &load, false);
    // A generation begins that does not cover the key.
    world.rig.store.advance();
    world.step(Step::Refresh(0));
    let (key, load, _) = world.begun.remove(0);
    assert!(world.rig.store.renew_load(&world.rig.caller(), KEYS[key], &load, Some(30), true));
    assert!(world.rig.holds_from(load.generation, KEYS[0]), "it counts where older ones do not");
}

#[test]
fn a_touch_of_nothing_ends_no_load() {
    let mut world = World::new();
    world.begin(0, None);
    world.step(Step::Touch(0));
    world.finish(0);
    assert_eq!(world.value(0), Some(100));
}

#[test]
fn a_prefix_is_flushed_at_once_and_the_memory_comes_back() {
    let rig = Rig::new(&Options::default());
    for number in 0..1_000 {
        rig.set(format!("a:{number}").as_bytes(), b"1", Exptime::Never);
        rig.set(format!("b:{number}").as_bytes(), b"1", Exptime::Never);
    }
    rig.store.flush_prefix(b"a:").expect("the first");
    assert_eq!(rig.store.len(), 2_000, "no item was visited");
    rig.set(b"a:7", b"2", Exptime::Never);
    for number in 0..1_000 {
        assert_eq!(rig.holds(format!("a:{number}").as_bytes()), number == 7);
        assert!(rig.holds(format!("b:{number}").as_bytes()));
    }
    assert!(rig.sweep());
    assert_eq!(rig.store.len(), 1_001);
    for number in 0..1_000 {
        assert_eq!(rig.holds(format!("a:{number}").as_bytes()), number == 7);
    }
}

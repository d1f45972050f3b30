//! Random commands, to the store and to its model at once.

use proptest::prelude::*;

use super::model::{DRAWN, Model, Seen};
use super::*;
use crate::command::Arithmetic;

/// Limit of an item, low enough for appends to meet it.
const ITEM_SIZE_MAX: usize = 400;

const KEYS: usize = 4;

fn key(number: usize) -> Vec<u8> {
    // Keys that fit in an entry, just so, just not, and the longest.
    vec![b'a' + number as u8; [1, 22, 23, 250][number]]
}

/// A token to compare with, said relative to the item that is there.
#[derive(Debug, Clone, Copy)]
enum Token {
    Held,
    Older,
    Newer,
    Zero,
}

#[derive(Debug, Clone)]
enum Act {
    Get(Get),
    Set { set: Set<'static>, value: Vec<u8> },
    Delete(Delete),
    Arithmetic(Arithmetic),
    Inspect,
}

#[derive(Debug, Clone)]
enum Step {
    Command { key: usize, binary: bool, act: Act, compare: Option<Token> },
    Flush(Exptime),
    Advance(u32),
    Sweep,
}

fn exptime() -> impl Strategy<Value = Exptime> {
    prop_oneof![
        4 => Just(Exptime::Never),
        4 => (1..6_u32).prop_map(Exptime::In),
        1 => Just(Exptime::At(0)),
        1 => (0..20_u64).prop_map(|seconds| Exptime::At(UNIX_START + seconds)),
    ]
}

fn maybe<T: std::fmt::Debug + Clone + 'static>(
    some: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<T>> {
    prop_oneof![3 => Just(None), 1 => some.prop_map(Some)].boxed()
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (0..200_u64).prop_map(|number| number.to_string().into_bytes()),
        Just(u64::MAX.to_string().into_bytes()),
        Just(b" 7 apples".to_vec()),
        (0..ITEM_SIZE_MAX).prop_map(|len| vec![b'v'; len]),
    ]
}

fn mode() -> impl Strategy<Value = SetMode> {
    prop_oneof![
        3 => Just(SetMode::Set),
        1 => Just(SetMode::Add),
        1 => Just(SetMode::Replace),
        1 => Just(SetMode::Append),
        1 => Just(SetMode::Prepend),
    ]
}

/// Tokens that clients choose, far from those that the store draws.
fn new_cas() -> BoxedStrategy<Option<u64>> {
    maybe(1 << 40..(1_u64 << 40) + 3)
}

fn act() -> impl Strategy<Value = Act> {
    let switches = (any::<bool>(), any::<bool>(), any::<bool>());
    let get = (maybe(exptime()), maybe(exptime()), maybe(exptime()), new_cas(), switches).prop_map(
        |(touch, vivify, recache, new_cas, (recache_first, bump, wins))| {
            Act::Get(Get { touch, vivify, recache, recache_first, new_cas, bump, wins })
        },
    );
    let set = (mode(), value(), 0..3_u32, exptime(), new_cas(), any::<bool>(), maybe(exptime())).prop_map(
        |(mode, value, flags, exptime, new_cas, invalidate, vivify)| Act::Set {
            set: Set { mode, flags, exptime, new_cas, invalidate, vivify, ..SET },
            value,
        },
    );
    let delete = (new_cas(), any::<bool>(), maybe(exptime()), any::<bool>()).prop_map(
        |(new_cas, invalidate, touch, clear)| {
            Act::Delete(Delete { compare: None, new_cas, invalidate, touch, clear })
        },
    );
    let delta = prop_oneof![0..20_u64, Just(u64::MAX)];
    let sum = (any::<bool>(), delta, maybe(exptime()), 0..20_u64, maybe(exptime()), new_cas()).prop_map(
        |(decrement, delta, vivify, initial, touch, new_cas)| {
            let sum = Arithmetic { decrement, delta, vivify, initial, touch, compare: None, new_cas };
            Act::Arithmetic(sum)
        },
    );
    prop_oneof![3 => get, 4 => set, 1 => delete, 2 => sum, 1 => Just(Act::Inspect)]
}

fn step() -> impl Strategy<Value = Step> {
    let token = prop_oneof![Just(Token::Held), Just(Token::Older), Just(Token::Newer), Just(Token::Zero)];
    prop_oneof![
        20 => (0..KEYS, any::<bool>(), act(), maybe(token))
            .prop_map(|(key, binary, act, compare)| Step::Command { key, binary, act, compare }),
        1 => exptime().prop_map(Step::Flush),
        3 => (1..4_u32).prop_map(Step::Advance),
        1 => Just(Step::Sweep),
    ]
}

/// Both at once, and the last token that the store has drawn.
struct Pair {
    rig: Rig,
    model: Model,
    drawn: u64,
}

impl Pair {
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            &Step::Advance(seconds) => {
                self.rig.clock.advance(seconds);
                self.model.now += seconds;
            }
            &Step::Flush(delay) => {
                self.rig.flush(delay);
                self.model.flush(delay);
            }
            Step::Sweep => prop_assert!(self.rig.sweep()),
            Step::Command { key: number, binary, act, compare } => {
                self.command(&key(*number), *binary, act, *compare)?;
            }
        }
        let mut live = 0;
        for number in 0..KEYS {
            let ours = self.rig.run(&key(number), Verb::Inspect, |outcome| Seen::from(outcome));
            let theirs = self.model.run(&key(number), false, &Verb::Inspect);
            live += usize::from(ours != Seen::NotFound);
            prop_assert_eq!(ours, theirs, "key {} after {:?}", number, step);
        }
        let mut shown = 0;
        (0..self.rig.store.shard_count())
            .for_each(|shard| self.rig.store.walk(&self.rig.caller(), shard, |_| shown += 1));
        prop_assert_eq!(shown, live, "a walk shows what lives");
        if matches!(step, Step::Sweep) {
            prop_assert_eq!(self.rig.store.len(), live, "a sweep leaves what lives");
        }
        Ok(())
    }

    fn command(
        &mut self,
        key: &[u8],
        binary: bool,
        act: &Act,
        compare: Option<Token>,
    ) -> Result<(), TestCaseError> {
        let held = self.model.items.get(key).map_or(5, |item| item.cas);
        let compare = compare.map(|token| match token {
            Token::Held => held,
            Token::Older => held - 1,
            Token::Newer => held + 1,
            Token::Zero => 0,
        });
        let verb = match act {
            Act::Get(get) => Verb::Get(*get),
            Act::Set { set, value } => Verb::Set(Set { value, compare, ..*set }),
            Act::Delete(delete) => Verb::Delete(Delete { compare, ..*delete }),
            Act::Arithmetic(sum) => Verb::Arithmetic(Arithmetic { compare, ..*sum }),
            Act::Inspect => Verb::Inspect,
        };
        let command = Command { key, key_binary: binary, verb };
        let mut ours = self.rig.store.execute(&self.rig.caller(), &command, |outcome| Seen::from(outcome));
        let mut theirs = self.model.run(key, binary, &verb);

        // A token that was drawn must be new, and the same wherever it shows.
        if let Some(item) = self.model.items.get_mut(key).filter(|item| item.cas == DRAWN) {
            let shown = ours.cas().copied();
            let kept = match self.rig.run(key, Verb::Inspect, |outcome| Seen::from(outcome)).cas() {
                Some(cas) => Some(*cas),
                // Stored with a time that is past: nobody sees it again.
                None => shown,
            };
            if let Some(cas) = kept {
                prop_assert!(cas > self.drawn, "{cas} is not above {}", self.drawn);
                self.drawn = cas;
                item.cas = cas;
            }
            if let (Some(cas), Some(kept)) = (theirs.cas(), kept) {
                *cas = kept;
            }
        }
        prop_assert_eq!(ours, theirs, "{:?}", command);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_its_model_does(steps in proptest::collection::vec(step(), 1..80), sharded: bool) {
        let options = Options { item_size_max: ITEM_SIZE_MAX, ..Options::default() };
        let rig = if sharded { Rig::new(&options) } else { Rig::one_shard(&options) };
        let now = rig.clock.now();
        let model = Model::new(now, ITEM_SIZE_MAX);
        let mut pair = Pair { rig, model, drawn: 0 };
        for step in &steps {
            pair.step(step)?;
        }
    }
}

//! Random commands, to the store and to its model at once: a store that is alone, or one of a
//! cluster whose keys come and go.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::command::Arithmetic;
use crate::shown::Cut;
use crate::store::tests::model::{DRAWN, Model, Seen};

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
    /// The value stands in the request behind `HEAD` and before an end of line; an item may keep that memory.
    Set {
        set: Set<'static>,
        request: Bytes,
        may_keep: bool,
    },
    Delete(Delete),
    Arithmetic(Arithmetic),
    Inspect,
}

#[derive(Debug, Clone)]
enum Step {
    Command {
        key: usize,
        binary: bool,
        act: Act,
        compare: Option<Token>,
    },
    Flush(Exptime),
    Advance(u32),
    Sweep,
    /// A generation begins, which alone changes nothing.
    Generation,
    /// The key becomes this node's, with nothing under it.
    Come(usize),
    /// The key becomes another node's.
    Go(usize),
}

/// From which generation on each key's items count; `None` where the key is another node's.
#[derive(Debug, Clone, Copy)]
struct Slots([Option<Generation>; KEYS]);

impl MinGenerations for Slots {
    fn min_generation(&self, sought: &[u8]) -> Option<Generation> {
        (0..KEYS).find(|&number| key(number) == sought).and_then(|number| self.0[number])
    }
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

/// What a client sends before a value.
const HEAD: &[u8] = b"set key 0 0 100\r\n";

fn request() -> impl Strategy<Value = Bytes> {
    let value = prop_oneof![
        (0..200_u64).prop_map(|number| number.to_string().into_bytes()),
        Just(u64::MAX.to_string().into_bytes()),
        Just(b" 7 apples".to_vec()),
        (0..ITEM_SIZE_MAX).prop_map(|len| vec![b'v'; len]),
    ];
    value.prop_map(|value| [HEAD, &value, b"\r\n"].concat().into())
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
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let get = (maybe(exptime()), maybe(exptime()), maybe(exptime()), new_cas(), switches).prop_map(
        |(touch, vivify, recache, new_cas, (recache_first, touch_last, bump, wins))| {
            Act::Get(Get {
                touch,
                vivify,
                recache,
                recache_first,
                touch_last,
                new_cas,
                bump,
                loads: false,
                wins,
            })
        },
    );
    let switches_of_set = (any::<bool>(), any::<bool>());
    let set = (mode(), request(), 0..3_u32, exptime(), new_cas(), switches_of_set, maybe(exptime()))
        .prop_map(|(mode, request, flags, exptime, new_cas, (invalidate, may_keep), vivify)| Act::Set {
            set: Set { mode, flags, exptime, new_cas, invalidate, vivify, ..SET },
            request,
            may_keep,
        });
    let delete = (new_cas(), any::<bool>(), maybe(exptime()), any::<bool>()).prop_map(
        |(new_cas, invalidate, touch, clear)| {
            Act::Delete(Delete { compare: None, new_cas, invalidate, touch, clear, meta: true })
        },
    );
    let delta = prop_oneof![0..20_u64, Just(u64::MAX)];
    let times = (maybe(exptime()), maybe(exptime()), any::<bool>());
    let sum = (any::<bool>(), delta, 0..20_u64, times, new_cas()).prop_map(
        |(decrement, delta, initial, (vivify, touch, touch_last), new_cas)| {
            let compare = None;
            let sum = Arithmetic { decrement, delta, vivify, initial, touch, touch_last, compare, new_cas };
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
        1 => Just(Step::Generation),
        1 => (0..KEYS).prop_map(Step::Come),
        1 => (0..KEYS).prop_map(Step::Go),
    ]
}

/// Both at once, and the last token that the store has drawn.
struct Pair {
    rig: Rig,
    model: Model,
    drawn: u64,
    /// `None` for a store that is alone.
    slots: Option<Slots>,
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
            Step::Generation => _ = self.rig.store.advance(),
            &Step::Come(number) => {
                let generation = self.rig.store.advance();
                self.change(number, Some(generation));
            }
            &Step::Go(number) => self.change(number, None),
            Step::Command { key: number, binary, act, compare } => {
                self.command(*number, *binary, act, *compare)?;
            }
        }
        let mut live = 0;
        for number in 0..KEYS {
            let Some(since) = self.since(number) else { continue };
            let ours = self.rig.run_from(since, &key(number), Verb::Inspect, |outcome| Seen::from(outcome));
            let theirs = self.model.run(&key(number), false, &Verb::Inspect);
            live += usize::from(ours != Seen::NotFound);
            prop_assert_eq!(ours, theirs, "key {} after {:?}", number, step);
        }
        let mut shown = 0;
        (0..self.rig.store.part_count())
            .for_each(|shard| self.rig.store.walk(&self.rig.caller(), shard, |_| shown += 1));
        prop_assert_eq!(shown, live, "a walk shows what lives");
        if matches!(step, Step::Sweep) {
            prop_assert_eq!(self.rig.store.len(), live, "a sweep leaves what lives");
        }
        Ok(())
    }

    /// What a command of this key brings along; none is executed of a key of another node.
    fn since(&self, number: usize) -> Option<Option<Generation>> {
        match self.slots {
            None => Some(None),
            Some(slots) => slots.0[number].map(Some),
        }
    }

    fn change(&mut self, number: usize, since: Option<Generation>) {
        if let Some(slots) = &mut self.slots {
            slots.0[number] = since;
            self.rig.store.set_min_generations(Some(Arc::new(*slots)));
            self.model.items.remove(&key(number));
        }
    }

    fn command(
        &mut self,
        number: usize,
        binary: bool,
        act: &Act,
        compare: Option<Token>,
    ) -> Result<(), TestCaseError> {
        let Some(since) = self.since(number) else { return Ok(()) };
        let key = &*key(number);
        let held = self.model.items.get(key).map_or(5, |item| item.cas);
        let compare = compare.map(|token| match token {
            Token::Held => held,
            Token::Older => held - 1,
            Token::Newer => held + 1,
            Token::Zero => 0,
        });
        let verb = match act {
            Act::Get(get) => Verb::Get(*get),
            Act::Set { set, request, may_keep } => {
                let value = &request[HEAD.len()..request.len() - 2];
                Verb::Set(Set { value, received: may_keep.then_some(request), compare, ..*set })
            }
            Act::Delete(delete) => Verb::Delete(Delete { compare, ..*delete }),
            Act::Arithmetic(sum) => Verb::Arithmetic(Arithmetic { compare, ..*sum }),
            Act::Inspect => Verb::Inspect,
        };
        let command = Command { key, key_binary: binary, verb };
        let mut ours = self.rig.store.execute(
            &Caller { min_generation: since, ..self.rig.caller() },
            &command,
            |outcome| Seen::from(outcome),
        );
        let mut theirs = self.model.run(key, binary, &verb);

        // A token that was drawn must be new, and the same wherever it shows.
        if let Some(item) = self.model.items.get_mut(key).filter(|item| item.cas == DRAWN) {
            let shown = ours.cas().copied();
            let kept = match self.rig.run_from(since, key, Verb::Inspect, |outcome| Seen::from(outcome)).cas()
            {
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
        prop_assert_eq!(Cut(ours), Cut(theirs), "{:?}", Cut(command));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_its_model_does(
        steps in proptest::collection::vec(step(), 1..80).prop_map(Cut),
        sharded: bool,
        alone: bool,
        generation: u32,
    ) {
        let options = Options { item_size_max: ITEM_SIZE_MAX, ..Options::default() };
        let rig = if sharded { Rig::new(&options) } else { Rig::one_shard(&options) };
        rig.store.shards.shared.generations.0.set(generation);
        let slots = (!alone).then_some(Slots([Some(Generation::new(generation)); KEYS]));
        let now = rig.clock.now();
        let model = Model::new(now, ITEM_SIZE_MAX);
        let mut pair = Pair { rig, model, drawn: 0, slots };
        for step in &steps.0 {
            pair.step(step)?;
        }
    }
}

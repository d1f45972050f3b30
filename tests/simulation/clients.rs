//! The clients: one writer for each key, and readers of all keys, through every node.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use filbert::command::{Arithmetic, Command, Delete, Get, Set, SetMode, Unavailable, Verb};
use filbert::item::Exptime;
use filbert::pb;
use filbert::pb::outcome::Kind as Came;
use tokio::time::{Instant, sleep, sleep_until};

use crate::simulation::memory::PATIENCE;
use crate::simulation::process::Process;
use crate::simulation::world::World;
use crate::support::counter::Counter;
use crate::support::history::{Ending, Found, History, Moment, Read, Span, What, Write};

/// How late an answer may come after its deadline: timers have milliseconds.
const LATE: Duration = Duration::from_millis(10);

/// Commands are pipelined so many milliseconds apart, at most.
const PIPELINED_AFTER: u64 = 60;

/// The numbers of a counter tell whose it is.
pub const NUMBERS_EACH: u64 = 1_000_000_000_000;

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Set,
    /// `set`, then `delete`, and again.
    DeleteAndSet,
    /// `cas` with the token of the last read; sometimes with an old one, that must not hold.
    Cas,
    /// `add` and `replace` by turns.
    AddAndReplace,
    Append,
    Count,
}

pub const KINDS: [Kind; 7] = [
    Kind::Set,
    Kind::DeleteAndSet,
    Kind::DeleteAndSet,
    Kind::Cas,
    Kind::AddAndReplace,
    Kind::Append,
    Kind::Count,
];

/// What came of a command.
pub enum Reply {
    Done(pb::Outcome),
    /// It was not executed.
    Refused(Unavailable),
    /// It may have been executed.
    Unknown,
}

/// A connection to a node.
struct Connection {
    process: Arc<Process>,
    thread: usize,
}

impl Connection {
    /// To any node that can be asked; waits until there is one.
    async fn open(world: &World, rng: &mut Rng) -> Self {
        loop {
            let nodes = world.nodes();
            let nodes = nodes.into_iter().filter(|node| !node.frozen).filter_map(|node| node.process);
            match rng.choice(nodes.collect::<Vec<_>>()) {
                Some(process) => break Self { process, thread: rng.usize(..4) },
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Of the routing that its thread goes by.
    fn version(&self) -> u64 {
        self.process.memory().version(self.thread)
    }
}

/// Asks any node that can be asked; waits until there is one.
pub async fn ask(world: &World, rng: &mut Rng, key: &str, verb: Verb<'_>) -> (Reply, Span) {
    ask_through(&Connection::open(world, rng).await, world, key, verb).await
}

async fn ask_through(
    Connection { process, thread }: &Connection,
    world: &World,
    key: &str,
    verb: Verb<'_>,
) -> (Reply, Span) {
    let command = Command { key: key.as_bytes(), key_binary: false, verb };
    let patience = match &world.database {
        // It hears that its value is loaded, waits for that, and is told.
        Some(database) if matches!(verb, Verb::Get(get) if get.loads) => PATIENCE * 2 + database.options.wait,
        _ => PATIENCE,
    };
    let (began, deadline) = (world.now(), Instant::now() + patience);
    let reply = match process.memory().serve(*thread, &command).await {
        Some(Ok(outcome)) => Reply::Done(outcome),
        Some(Err(Unavailable::Unanswered)) => Reply::Unknown,
        Some(Err(why)) => Reply::Refused(why),
        None => {
            // Nobody says that it failed. What is on its way may be executed until its deadline.
            sleep_until(deadline + LATE).await;
            Reply::Unknown
        }
    };
    if Instant::now() > deadline + LATE {
        world.accuse(format!("an answer of {} for {key} came too late", process.id));
    }
    (reply, Span { began, ended: world.now(), node: process.node })
}

/// What was read under a key.
fn found(kind: Kind, key: usize, name: &str, reply: &Reply) -> Found {
    let outcome = match reply {
        Reply::Done(outcome) => outcome,
        Reply::Refused(_) | Reply::Unknown => return Found::Miss,
    };
    match (outcome.kind(), &outcome.item) {
        (Came::NotFound, _) => Found::Miss,
        (Came::Found, Some(item)) => {
            let value = String::from_utf8_lossy(&item.value);
            number(kind, key, name, &value).map_or_else(|| Found::Wrong(value.to_string()), Found::Value)
        }
        _ => Found::Wrong(format!("{outcome:?}")),
    }
}

/// Reads a key through any node.
async fn read(world: &World, rng: &mut Rng, key: usize, kind: Kind) -> (Read, Reply) {
    let name = &world.keys[key];
    let (reply, span) = ask(world, rng, name, Verb::Get(Get::PLAIN)).await;
    if let Reply::Done(outcome) = &reply
        && let Some(item) = &outcome.item
    {
        world.note_token(key, item.cas, &item.value);
    }
    (Read { found: found(kind, key, name, &reply), span }, reply)
}

/// The number of a value.
fn number(kind: Kind, key: usize, name: &str, value: &str) -> Option<u64> {
    match kind {
        Kind::Count => {
            let number = value.trim_end().parse::<u64>().ok();
            number.filter(|number| number / NUMBERS_EACH == key as u64 + 1)
        }
        _ => lineage(name, value)?.last().copied(),
    }
}

/// The numbers of a value that was set and appended to.
fn lineage(name: &str, value: &str) -> Option<Vec<u64>> {
    let numbers = value.strip_prefix(name)?.strip_prefix(':')?;
    numbers.split('+').map(|number| number.parse().ok()).collect()
}

/// A key's only writer.
pub struct Writer {
    pub history: History,
    key: usize,
    kind: Kind,
    number: u64,
    counter: Counter,
    /// When the key was last known to be there; `None` when it need not be.
    there: Option<Moment>,
    /// A CAS token that must not match.
    old_token: Option<u64>,
    token: Option<u64>,
}

impl Writer {
    pub fn new(key: usize, kind: Kind, name: &str) -> Self {
        Self {
            history: History { key: name.to_owned(), ..History::default() },
            key,
            kind,
            number: 0,
            counter: Counter::new((key as u64 + 1) * NUMBERS_EACH),
            there: None,
            old_token: None,
            token: None,
        }
    }

    /// Writes until the moment.
    pub async fn run(mut self, world: Arc<World>, until: Moment, mut rng: Rng) -> Self {
        let pace = rng.u64(10..120);
        while world.now() < until {
            sleep(Duration::from_millis(rng.u64(..=pace))).await;
            self.step(&world, &mut rng).await;
        }
        self
    }

    async fn step(&mut self, world: &World, rng: &mut Rng) {
        match self.kind {
            Kind::Set if rng.bool() => {
                let name = self.history.key.clone();
                self.pipeline(world, rng, SetMode::Set, |number| format!("{name}:{number}")).await;
            }
            Kind::Set => self.store(world, rng, SetMode::Set, None).await,
            Kind::DeleteAndSet if self.number % 2 == 1 => self.delete(world, rng).await,
            Kind::DeleteAndSet => self.store(world, rng, SetMode::Set, None).await,
            Kind::Cas => self.cas(world, rng).await,
            Kind::AddAndReplace if self.number % 2 == 1 => {
                self.store(world, rng, SetMode::Add, None).await;
            }
            Kind::AddAndReplace => self.store(world, rng, SetMode::Replace, None).await,
            Kind::Append if rng.u8(..6) == 0 => self.store(world, rng, SetMode::Set, None).await,
            Kind::Append => self.append(world, rng).await,
            Kind::Count if self.counter.is_stored() => self.count(world, rng).await,
            Kind::Count => self.store_counter(world, rng).await,
        }
    }

    async fn store(&mut self, world: &World, rng: &mut Rng, mode: SetMode, compare: Option<u64>) {
        self.number += 1;
        let value = format!("{}:{}", self.history.key, self.number);
        let ends = rng.u8(..10) == 0;
        let exptime = if ends { Exptime::In(rng.u32(1..4)) } else { Exptime::Never };
        let set = Set { exptime, compare, ..set(mode, value.as_bytes()) };
        let (reply, span) = ask(world, rng, &self.history.key, Verb::Set(set)).await;
        let absent = match mode {
            SetMode::Replace => [Came::NotStored, Came::NotStored],
            _ => [Came::NotFound, Came::NotFound],
        };
        let refused = [Came::NotStored, Came::Exists, Came::NotFound];
        let ending = self.record(world, What::Store, Came::Stored, &refused, &reply, span);
        if let Reply::Done(outcome) = &reply
            && absent.contains(&outcome.kind())
        {
            self.lost(world, span);
        }
        self.there = match ending {
            Ending::Acknowledged => (!ends).then_some(span.began),
            Ending::Refused => self.there,
            Ending::Unknown => None,
        };
    }

    async fn append(&mut self, world: &World, rng: &mut Rng) {
        let lost = self.pipeline(world, rng, SetMode::Append, |number| format!("+{number}")).await;
        if let Some(span) = lost {
            self.lost(world, span);
            self.store(world, rng, SetMode::Set, None).await;
        }
    }

    /// Stores two values over one connection, the second before the first is answered, if that takes long enough. Returns when
    /// one could not be stored.
    async fn pipeline(
        &mut self,
        world: &World,
        rng: &mut Rng,
        mode: SetMode,
        value: impl Fn(u64) -> String,
    ) -> Option<Span> {
        let numbers = [self.number + 1, self.number + 2];
        let values = numbers.map(value);
        let connection = Connection::open(world, rng).await;
        let [first, second] = [0, 1].map(|which| {
            let verb = Verb::Set(set(mode, values[which].as_bytes()));
            ask_through(&connection, world, &world.keys[self.key], verb)
        });
        tokio::pin!(first);
        let version = connection.version();
        let pause = Duration::from_millis(rng.u64(..PIPELINED_AFTER));
        let replies = tokio::select! {
            biased;
            reply = &mut first => vec![reply],
            // As a connection does: while something is on its way by one routing, nothing is executed by the next one.
            () = sleep(pause) => if connection.version() == version {
                let (first, second) = tokio::join!(biased; first, second);
                vec![first, second]
            } else {
                vec![first.await]
            }
        };
        let mut refused = None;
        for (number, (reply, span)) in numbers.into_iter().zip(&replies) {
            self.number = number;
            let ending = self.record(world, What::Store, Came::Stored, &[Came::NotStored], reply, *span);
            self.there = match (mode, ending) {
                (SetMode::Set, Ending::Acknowledged) => Some(span.began),
                (SetMode::Set, Ending::Unknown) => None,
                _ => self.there,
            };
            if ending == Ending::Refused && matches!(reply, Reply::Done(_)) {
                refused = refused.or(Some(*span));
            }
        }
        refused
    }

    async fn delete(&mut self, world: &World, rng: &mut Rng) {
        self.number += 1;
        let (reply, span) = ask(world, rng, &self.history.key, Verb::Delete(Delete::default())).await;
        // A miss is as good as a delete: from now on, nothing older may be read.
        if let Reply::Done(outcome) = &reply
            && outcome.kind() == Came::NotFound
        {
            self.lost(world, span);
            self.note(What::Delete, self.number..=self.number, Ending::Acknowledged, span);
        } else {
            self.record(world, What::Delete, Came::Deleted, &[], &reply, span);
        }
        self.there = None;
    }

    async fn cas(&mut self, world: &World, rng: &mut Rng) {
        let (read, reply) = read(world, rng, self.key, self.kind).await;
        self.history.reads.push(read.clone());
        let Reply::Done(outcome) = reply else { return };
        let Found::Value(_) = read.found else {
            self.lost(world, read.span);
            return self.store(world, rng, SetMode::Add, None).await;
        };
        let token = outcome.item.map(|item| item.cas);
        if token != self.token {
            self.old_token = self.token;
            self.token = token;
        }
        if let Some(old) = self.old_token
            && rng.u8(..4) == 0
        {
            let stored = |writer: &Self| {
                writer.history.writes.last().is_some_and(|write| write.ending == Ending::Acknowledged)
            };
            self.store(world, rng, SetMode::Set, Some(old)).await;
            if stored(self) {
                world.accuse(format!("{}: the CAS token {old} held, which is an old one", self.history.key));
            }
        } else {
            self.store(world, rng, SetMode::Set, token).await;
        }
    }

    async fn store_counter(&mut self, world: &World, rng: &mut Rng) {
        let base = self.counter.next_base();
        let value = base.to_string();
        let verb = Verb::Set(set(SetMode::Set, value.as_bytes()));
        let (reply, span) = ask(world, rng, &self.history.key, verb).await;
        let ending = ending(world, Came::Stored, &[], &reply);
        self.note(What::Store, base..=base, ending, span);
        self.there = None;
        if ending == Ending::Acknowledged {
            self.counter.stored();
            self.there = Some(span.began);
        }
    }

    async fn count(&mut self, world: &World, rng: &mut Rng) {
        let (reply, span) = ask(world, rng, &self.history.key, Verb::Arithmetic(Arithmetic::PLAIN)).await;
        match reply {
            Reply::Done(outcome) if outcome.kind() == Came::NotFound => {
                self.lost(world, span);
                self.counter.gone();
            }
            Reply::Done(outcome) => {
                let value = outcome.item.map(|item| String::from_utf8_lossy(&item.value).into_owned());
                let Some(number) = value.as_deref().and_then(|value| value.parse::<u64>().ok()) else {
                    return world.accuse(format!("{}: incr gave {value:?}", self.history.key));
                };
                if let Err(why) = self.counter.counted(number) {
                    world.accuse(format!("{}: {why}", self.history.key));
                    self.counter.gone();
                }
                self.there = Some(span.began);
                self.note(What::Store, number..=number, Ending::Acknowledged, span);
            }
            Reply::Unknown => {
                if let Some(numbers) = self.counter.perhaps_counted() {
                    self.note(What::Store, numbers, Ending::Unknown, span);
                }
            }
            Reply::Refused(_) => {}
        }
    }

    /// The key is gone; it must have been lost rightly.
    fn lost(&mut self, world: &World, span: Span) {
        if let Some(since) = self.there.take()
            && !world.is_touched(self.key, since, span.ended)
        {
            let since = since.as_secs_f64();
            world.accuse(format!("{} was stored at {since:.3} and is lost for no reason", self.history.key));
        }
    }

    fn record(
        &mut self,
        world: &World,
        what: What,
        done: Came,
        refused: &[Came],
        reply: &Reply,
        span: Span,
    ) -> Ending {
        let ending = ending(world, done, refused, reply);
        self.note(what, self.number..=self.number, ending, span);
        ending
    }

    fn note(&mut self, what: What, numbers: std::ops::RangeInclusive<u64>, ending: Ending, span: Span) {
        self.history.writes.push(Write { numbers, what, ending, span });
    }
}

pub fn ending(world: &World, done: Came, refused: &[Came], reply: &Reply) -> Ending {
    match reply {
        Reply::Done(outcome) if outcome.kind() == done => Ending::Acknowledged,
        Reply::Done(outcome) if refused.contains(&outcome.kind()) => Ending::Refused,
        Reply::Done(outcome) => {
            world.accuse(format!("a write was answered with {outcome:?}"));
            Ending::Unknown
        }
        Reply::Refused(_) => Ending::Refused,
        Reply::Unknown => Ending::Unknown,
    }
}

pub fn set(mode: SetMode, value: &[u8]) -> Set<'_> {
    Set { mode, value, ..Set::PLAIN }
}

/// Somebody who reads all keys.
#[derive(Default)]
pub struct Reader {
    /// Reads with the numbers of their keys.
    pub reads: Vec<(usize, Read)>,
    /// The numbers in values that are appended to.
    pub lineages: Vec<(usize, Vec<u64>)>,
}

impl Reader {
    /// Reads until the moment.
    pub async fn run(mut self, world: Arc<World>, kinds: Vec<Kind>, until: Moment, mut rng: Rng) -> Self {
        while world.now() < until {
            sleep(Duration::from_millis(rng.u64(..50))).await;
            let key = rng.usize(..kinds.len());
            self.read(&world, &mut rng, key, kinds[key]).await;
        }
        self
    }

    async fn read(&mut self, world: &World, rng: &mut Rng, key: usize, kind: Kind) {
        let (read, reply) = read(world, rng, key, kind).await;
        self.reads.push((key, read));
        if let (Kind::Append, Reply::Done(outcome)) = (kind, &reply)
            && let Some(item) = &outcome.item
            && let Some(numbers) = lineage(&world.keys[key], &String::from_utf8_lossy(&item.value))
        {
            self.lineages.push((key, numbers));
        }
    }
}

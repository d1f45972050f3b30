//! The writer of a key that has a value in the database: it changes that, and then deletes or writes the key, as users of a
//! cache beside a database do.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use filbert::command::{Arithmetic, Command, Delete, Get, Set, SetMode, Verb};
use filbert::item::Exptime;
use filbert::pb::outcome::Kind as Came;
use tokio::time::{Instant, sleep};

use crate::simulation::clients::{NUMBERS_EACH, Reply, ask, ending, set};
use crate::simulation::database::PREFIX;
use crate::simulation::operator;
use crate::simulation::world::World;
use crate::support::history::{Ending, Found, History, Moment, Read, Span, What, Write};

/// A `get` that waits for a load.
const LOADING: Get = Get { loads: true, ..Get::PLAIN };

/// Milliseconds: longer than a value lives that is renewed.
const SELDOM: u64 = 2_500;

/// How often a value is looked at until it is renewed.
const LOOKS: usize = 40;

/// An origin that has failed is left alone for no longer.
const REST: Duration = Duration::from_secs(12);

/// The number that lies under a key: it tells whose it is, the version, and whether a client wrote it (1) or the database
/// gave it (0).
fn coded(key: usize, version: u64, by_client: bool) -> u64 {
    (key as u64 + 1) * NUMBERS_EACH + version * 2 + u64::from(by_client)
}

/// What a value of a key is.
pub fn found(key: usize, value: &str) -> Found {
    let number = value.trim_end().parse::<u64>().ok();
    match number.and_then(|number| number.checked_sub(coded(key, 0, false))) {
        Some(number) if number < NUMBERS_EACH && number % 2 == 1 => Found::Value(number / 2),
        Some(number) if number < NUMBERS_EACH => Found::Loaded(number / 2),
        _ => Found::Wrong(value.to_owned()),
    }
}

/// A key's only writer.
pub struct LookAside {
    pub history: History,
    key: usize,
    /// The version in the database.
    version: u64,
    /// Whether it flushes prefixes.
    flushes: bool,
}

impl LookAside {
    pub fn new(key: usize, name: &str, flushes: bool) -> Self {
        Self { history: History { key: name.to_owned(), ..History::default() }, key, version: 0, flushes }
    }

    /// Writes until the moment.
    pub async fn run(mut self, world: Arc<World>, until: Moment, mut rng: Rng) -> Self {
        // At times so seldom that values are renewed in between.
        let pace = if rng.u8(..3) == 0 { SELDOM } else { rng.u64(10..120) };
        while world.now() < until {
            if pace == SELDOM && rng.bool() {
                self.touch(&world, &mut rng).await;
            } else {
                self.step(&world, &mut rng).await;
            }
            sleep(Duration::from_millis(rng.u64(..=pace))).await;
        }
        self
    }

    async fn step(&mut self, world: &World, rng: &mut Rng) {
        match rng.u8(..16) {
            // Without a word to the cache.
            0..2 => self.change(world, rng),
            2..4 if self.flushes => {
                self.delete(world, rng).await;
                // By then somebody may have asked for it.
                sleep(Duration::from_millis(rng.u64(..150))).await;
                self.change(world, rng);
                self.flush(world, rng).await;
            }
            2..7 => {
                self.change(world, rng);
                self.delete(world, rng).await;
            }
            7..9 => {
                self.change(world, rng);
                self.store(world, rng, SetMode::Set).await;
            }
            9..11 => {
                self.change(world, rng);
                self.store(world, rng, SetMode::Add).await;
            }
            11..15 => self.count(world, rng).await,
            _ => {
                let exptime = Exptime::In(rng.u32(1..4));
                _ = self.read(world, rng, Get { touch: Some(exptime), ..LOADING }).await;
            }
        }
    }

    /// Gives the key its next version in the database.
    fn change(&mut self, world: &World, rng: &mut Rng) {
        let is_there = rng.u8(..16) > 0;
        let key = self.key;
        let database = world.database.as_ref().expect("there is one");
        let began = world.now();
        let value = |version| is_there.then(|| coded(key, version, false).to_string());
        self.version = database.change(&self.history.key, value);
        let what = if is_there { What::Offer } else { What::Withdraw };
        let span = Span { began, ended: world.now(), node: 0 };
        self.note(what, Ending::Acknowledged, span);
    }

    async fn delete(&mut self, world: &World, rng: &mut Rng) {
        let (reply, span) = ask(world, rng, &self.history.key, Verb::Delete(Delete::default())).await;
        let is_miss = matches!(&reply, Reply::Done(outcome) if outcome.kind() == Came::NotFound);
        let done = if is_miss { Came::NotFound } else { Came::Deleted };
        self.note(What::Delete, ending(world, done, &[], &reply), span);
    }

    /// Flushes all, or what begins like the key.
    async fn flush(&mut self, world: &World, rng: &mut Rng) {
        let prefix = rng.choice(["", PREFIX, &self.history.key]).expect("there are some");
        if prefix.is_empty() {
            operator::flush_all(world, rng).await;
        } else if let Some(process) = rng.choice(world.processes()) {
            world.flush_prefix(&process, prefix).await;
        }
    }

    async fn store(&mut self, world: &World, rng: &mut Rng, mode: SetMode) {
        let value = coded(self.key, self.version, true).to_string();
        let exptime = if rng.bool() { Exptime::In(rng.u32(1..4)) } else { Exptime::Never };
        let verb = Verb::Set(Set { exptime, ..set(mode, value.as_bytes()) });
        let (reply, span) = ask(world, rng, &self.history.key, verb).await;
        self.note(What::Store, ending(world, Came::Stored, &[Came::NotStored], &reply), span);
    }

    /// `incr` from what is there to the next version, unless something else is there by then.
    async fn count(&mut self, world: &World, rng: &mut Rng) {
        let (read, reply) = self.read(world, rng, LOADING).await;
        let (Reply::Done(outcome), Found::Value(before) | Found::Loaded(before)) =
            (reply, read.found.clone())
        else {
            return;
        };
        let Some(token) = outcome.item.map(|item| item.cas).filter(|token| *token > 0) else { return };
        self.change(world, rng);
        let before = coded(self.key, before, matches!(read.found, Found::Value(_)));
        let after = coded(self.key, self.version, true);
        let sum = Arithmetic { delta: after - before, compare: Some(token), ..Arithmetic::PLAIN };
        let (reply, span) = ask(world, rng, &self.history.key, Verb::Arithmetic(sum)).await;
        if let Reply::Done(outcome) = &reply
            && let Some(item) = &outcome.item
            && item.value != after.to_string()
        {
            world.accuse(format!("{}: incr gave {:?}, not {after}", self.history.key, item.value));
        }
        self.note(What::Store, ending(world, Came::Found, &[Came::NotFound, Came::Exists], &reply), span);
    }

    /// What a client has touched stays, though the database has something newer, and it may just be loaded.
    async fn touch(&mut self, world: &World, rng: &mut Rng) {
        let database = world.database.clone().expect("there is one");
        let pause = |rng: &mut Rng, millis| sleep(Duration::from_millis(rng.u64(millis)));
        self.delete(world, rng).await;
        for _ in 0..LOOKS {
            pause(rng, 10..60).await;
            let (read, reply) = self.read(world, rng, LOADING).await;
            let left = match reply {
                Reply::Done(outcome) => outcome.item.and_then(|item| item.ttl_seconds),
                Reply::Refused(_) | Reply::Unknown => None,
            };
            if read.found == Found::Loaded(self.version) {
                self.change(world, rng);
            } else if left.is_some_and(|left| database.renews(left)) {
                // By now it is being loaded anew.
                break;
            }
        }
        let touch = Get { touch: Some(Exptime::Never), ..Get::PLAIN };
        let (touched, reply) = self.read(world, rng, touch).await;
        if !matches!(reply, Reply::Done(_)) || touched.found == Found::Miss {
            return;
        }
        pause(rng, 0..300).await;
        let (read, reply) = self.read(world, rng, LOADING).await;
        if matches!(reply, Reply::Done(_))
            && read.found != touched.found
            && !world.is_touched(self.key, touched.span.began, read.span.ended)
        {
            let (was, is) = (&touched.found, &read.found);
            world.accuse(format!("{}: {was:?} was touched, and is {is:?} now", self.history.key));
        }
    }

    async fn read(&mut self, world: &World, rng: &mut Rng, get: Get) -> (Read, Reply) {
        if get.touch.is_some() {
            // What this may give another life to.
            self.history.touched = self.version;
        }
        let name = self.history.key.clone();
        let (reply, span) = ask(world, rng, &name, Verb::Get(get)).await;
        let read = Read { found: seen(world, self.key, &reply), span };
        self.history.reads.push(read.clone());
        (read, reply)
    }

    fn note(&mut self, what: What, ending: Ending, span: Span) {
        let numbers = self.version..=self.version;
        self.history.writes.push(Write { numbers, what, ending, span });
    }
}

/// What came of a read.
fn seen(world: &World, key: usize, reply: &Reply) -> Found {
    let Reply::Done(outcome) = reply else { return Found::Miss };
    match (outcome.kind(), &outcome.item) {
        (Came::NotFound, _) => Found::Miss,
        (Came::Found, Some(item)) => {
            // One that is not stored has none.
            if item.cas > 0 {
                world.note_token(key, item.cas, &item.value);
            }
            found(key, &String::from_utf8_lossy(&item.value))
        }
        _ => Found::Wrong(format!("{outcome:?}")),
    }
}

/// Somebody who reads all keys of the database.
pub async fn read_all(
    world: Arc<World>,
    keys: Vec<usize>,
    until: Moment,
    mut rng: Rng,
) -> Vec<(usize, Read)> {
    let mut reads = Vec::new();
    while world.now() < until {
        sleep(Duration::from_millis(rng.u64(..40))).await;
        let key = rng.choice(&keys).copied().expect("there are some");
        let (reply, span) = ask(&world, &mut rng, &world.keys[key], Verb::Get(LOADING)).await;
        reads.push((key, Read { found: seen(&world, key, &reply), span }));
    }
    reads
}

/// Deletes every key of the database, reads it through all nodes until each has the present version, and says what does
/// not work, and who still waits.
pub async fn agree(world: &World, rng: &mut Rng) {
    let Some(database) = &world.database else { return };
    for (key, name) in world.keys.iter().enumerate().filter(|(_, name)| name.starts_with(PREFIX)) {
        let version = database.change(name, |version| Some(coded(key, version, false).to_string()));
        let (reply, _) = ask(world, rng, name, Verb::Delete(Delete::default())).await;
        if !matches!(&reply, Reply::Done(outcome) if outcome.kind() == Came::Deleted) {
            world.accuse(format!("in the end, {name} could not be deleted"));
        }
        for process in world.processes() {
            let command = Command { key: name.as_bytes(), key_binary: false, verb: Verb::Get(LOADING) };
            let began = Instant::now();
            loop {
                let reply = match process.memory().serve(0, &command).await {
                    Some(Ok(outcome)) => Reply::Done(outcome),
                    _ => Reply::Unknown,
                };
                let read = seen(world, key, &reply);
                // The origin may have to be tried again first.
                if read == Found::Miss && began.elapsed() < REST {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                if read != Found::Loaded(version) {
                    world.accuse(format!("in the end, {} read {read:?} of {name}", process.id));
                }
                break;
            }
        }
    }
    for process in world.processes() {
        let loading = process.memory().loading();
        let is_loading = world.keys.iter().any(|key| process.memory().is_loading(key));
        if loading > 0 || is_loading {
            world.accuse(format!("in the end, {} still loads, and {loading} wait", process.id));
        }
    }
}

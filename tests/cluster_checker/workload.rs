//! The clients of a run: one writer for each key, and readers of all keys through every node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cluster_checker::client::{Client, Failure};
use crate::cluster_checker::writer::{Kind, Loss, Writer};
use crate::support::history::{Found, History, Moment, Read, Span};
use crate::support::node::ClientAddr;

const WRITERS: usize = 3;
const READERS: usize = 3;
const KEYS: usize = 24;

/// How long a client waits for an answer; the node's own deadline is much shorter.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Between two commands of a client, so that nodes that share two cores are not starved by their clients.
const PAUSE: Duration = Duration::from_millis(1);
/// How often it is seen whether this process runs.
const PULSE: Duration = Duration::from_millis(20);
/// A thread that wants to run does so sooner, unless the machine stands still.
const STANDSTILL: Duration = Duration::from_millis(300);

/// The node that has just woken up. Clients ask it most, each time on a new connection.
#[derive(Clone, Debug)]
pub struct Woken(Arc<AtomicUsize>);

impl Woken {
    /// None yet.
    pub fn nobody() -> Woken {
        Woken(Arc::new(AtomicUsize::new(usize::MAX)))
    }

    pub fn set(&self, node: Option<usize>) {
        self.0.store(node.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    fn node(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&node| node != usize::MAX)
    }
}

/// Which servers are asked, since when, and for how long.
pub struct Load {
    pub addrs: Vec<ClientAddr>,
    pub start: Instant,
    pub name: String,
    pub woken: Woken,
    stop: AtomicBool,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub histories: Vec<History>,
    /// Counters that a write found gone.
    pub losses: Vec<Loss>,
    /// What counters said that they cannot say, and whose.
    pub miscounts: Vec<(usize, String)>,
    /// Answers that did not come in time.
    pub silences: Vec<Span>,
    /// From when to when this process did not run though it wanted to, so that the nodes may not have run either.
    pub standstills: Vec<(Moment, Moment)>,
}

impl Load {
    /// Clients of these nodes; the name makes their keys differ from other runs'.
    pub fn new(addrs: Vec<ClientAddr>, start: Instant, name: &str) -> Load {
        Load { addrs, start, name: name.to_owned(), woken: Woken::nobody(), stop: AtomicBool::new(false) }
    }

    /// Since the beginning.
    pub fn now(&self) -> Moment {
        self.start.elapsed()
    }

    /// Runs the clients as long as `meanwhile` runs, which is then returned with what they saw.
    pub fn run<T>(&self, seed: u64, meanwhile: impl FnOnce() -> T) -> (T, Seen) {
        let mut writers: Vec<Writer> = (0..KEYS).map(|key| Writer::new(key, &self.name)).collect();
        let (done, silences, reads, standstills) = thread::scope(|scope| {
            let stopping = Stop(&self.stop);
            let random = |n: usize| Rng::with_seed(seed.wrapping_add(n as u64));
            let writing: Vec<_> = writers
                .chunks_mut(KEYS / WRITERS)
                .enumerate()
                .map(|(n, writers)| scope.spawn(move || self.write(writers, random(n))))
                .collect();
            let reading: Vec<_> =
                (0..READERS).map(|n| scope.spawn(move || self.read(random(WRITERS + n)))).collect();
            let pulse = scope.spawn(|| self.feel_the_pulse());
            let done = meanwhile();
            drop(stopping);
            let silences: Vec<_> =
                writing.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            let reads: Vec<_> = reading.into_iter().map(|thread| thread.join().expect("no panic")).collect();
            (done, silences, reads, pulse.join().expect("no panic"))
        });
        let mut seen = Seen { silences: silences.concat(), standstills, ..Seen::default() };
        for (key, writer) in writers.into_iter().enumerate() {
            seen.histories.push(writer.history);
            seen.losses.extend(writer.losses);
            seen.miscounts.extend(writer.miscounts.into_iter().map(|said| (key, said)));
        }
        for (reads, silences) in reads {
            seen.silences.extend(silences);
            for (key, read) in reads {
                seen.histories[key].reads.push(read);
            }
        }
        (done, seen)
    }

    fn feel_the_pulse(&self) -> Vec<(Moment, Moment)> {
        let (mut standstills, mut last) = (Vec::new(), self.now());
        while !self.stop.load(Ordering::Relaxed) {
            thread::sleep(PULSE);
            let now = self.now();
            if now - last > STANDSTILL {
                standstills.push((last, now));
            }
            last = now;
        }
        standstills
    }

    fn write(&self, writers: &mut [Writer], mut rng: Rng) -> Vec<Span> {
        let mut client = Client::new(&self.addrs, PATIENCE);
        let mut silences = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let writer = rng.usize(..writers.len());
            silences.extend(writers[writer].step(&mut client, self, &mut rng));
            thread::sleep(PAUSE);
        }
        silences
    }

    fn read(&self, mut rng: Rng) -> (Vec<(usize, Read)>, Vec<Span>) {
        let mut client = Client::new(&self.addrs, PATIENCE);
        let (mut reads, mut silences) = (Vec::new(), Vec::new());
        while !self.stop.load(Ordering::Relaxed) {
            let node = self.choose(&mut client, &mut rng);
            let began = self.now();
            let found = match rng.u8(..4) {
                0 => self.read_many(&mut client, node, &mut rng),
                1 => self.read_meta(&mut client, node, rng.usize(..KEYS)),
                _ => self.read_one(&mut client, node, rng.usize(..KEYS)),
            };
            let span = Span { began, ended: self.now(), node };
            match found {
                Ok(found) => reads.extend(found.into_iter().map(|(key, found)| (key, Read { found, span }))),
                Err(Failure::Silent) => silences.push(span),
                Err(Failure::Closed | Failure::NotConnected) => {}
            }
            thread::sleep(PAUSE);
        }
        (reads, silences)
    }

    /// The node that is asked next.
    pub fn choose(&self, client: &mut Client, rng: &mut Rng) -> usize {
        match self.woken.node().filter(|_| rng.bool()) {
            Some(node) => {
                client.hang_up(node);
                node
            }
            None => rng.usize(..self.addrs.len()),
        }
    }

    fn read_one(&self, client: &mut Client, node: usize, key: usize) -> Result<Vec<(usize, Found)>, Failure> {
        self.read_keys(client, node, &[key])
    }

    fn read_many(
        &self,
        client: &mut Client,
        node: usize,
        rng: &mut Rng,
    ) -> Result<Vec<(usize, Found)>, Failure> {
        let first = rng.usize(..KEYS);
        let keys: Vec<usize> = (0..6).map(|n| (first + n * 5) % KEYS).collect();
        self.read_keys(client, node, &keys)
    }

    /// One `get` of keys: what is there comes in the order of the keys.
    fn read_keys(
        &self,
        client: &mut Client,
        node: usize,
        keys: &[usize],
    ) -> Result<Vec<(usize, Found)>, Failure> {
        let names: Vec<String> = keys.iter().map(|&key| self.key(key)).collect();
        let reply = client.values(node, &format!("get {}\r\n", names.join(" ")))?;
        let mut values = match reply {
            Ok(values) => values.into_iter().peekable(),
            Err(said) => return Ok(keys.iter().map(|&key| (key, Found::Wrong(said.clone()))).collect()),
        };
        let mut found: Vec<_> = keys
            .iter()
            .zip(&names)
            .map(|(&key, name)| match values.next_if(|value| value.key == *name) {
                Some(value) => (key, Kind::of(key).found(key, name, &value.data)),
                None => (key, Found::Miss),
            })
            .collect();
        // A key that nobody asked for, or out of order.
        found.extend(values.map(|value| (keys[0], Found::Wrong(format!("{value:?}")))));
        Ok(found)
    }

    fn read_meta(
        &self,
        client: &mut Client,
        node: usize,
        key: usize,
    ) -> Result<Vec<(usize, Found)>, Failure> {
        let name = self.key(key);
        let found = match client.meta_value(node, &name)? {
            Ok(Some(data)) => Kind::of(key).found(key, &name, &data),
            Ok(None) => Found::Miss,
            Err(said) => Found::Wrong(said),
        };
        Ok(vec![(key, found)])
    }

    fn key(&self, key: usize) -> String {
        Writer::key(key, &self.name)
    }
}

/// Ends the clients, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

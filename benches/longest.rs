//! What the longest single operation on the store takes: `cargo bench --bench longest`.
//!
//! Every operation is timed, and does what it has to by itself, making room included. A client feels the longest one, and
//! so does whoever waits behind it. A large value comes in pieces, for each of which room is made: others come in between, so
//! each of these is an operation, too.
//!
//! A machine that is shared stands still for milliseconds at times. So each case is run three times, in which the same
//! operations do the same, and the shortest time counts that each of them took. The longest in any run is shown beside, with
//! whatever it had to wait for.
//!
//! `cargo bench --bench longest -- TEXT` runs the cases alone that have this text in their names.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use filbert::clock::{Clock, Seconds};
use filbert::command::{Command, Set, Verb};
use filbert::events::Events;
use filbert::item::Exptime;
use filbert::stats::Counters;
use filbert::store::{Caller, Expected, Options, Store};

const MEBIBYTE: u64 = 1 << 20;

/// The time at which everything begins.
const START: Seconds = 10;

/// A value that is larger comes in pieces of this size, as a connection reads it.
const PIECE_BYTES: usize = 128 << 10;

/// Runs of each case.
const RUNS: usize = 3;

/// Seconds that an item lives which is to expire.
const LIFE: u32 = 60;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // cargo says `--bench`, and `--quick` is a smoke test.
    let divisor = if args.iter().any(|arg| arg == "--quick") { 100 } else { 1 };
    let wanted = args.iter().find(|arg| !arg.starts_with("--"));
    println!(
        "{:50} {:>10} {:>8} {:>8} {:>8} {:>8}  us",
        "", "operations", "median", "99.99%", "longest", "in a run"
    );
    let case = |name: &str, run: &dyn Fn() -> Filling| {
        if wanted.is_none_or(|wanted| name.contains(wanted)) {
            let runs: Vec<Vec<u32>> = (0..RUNS).map(|_| run().nanos).collect();
            report(name, &runs);
        }
    };
    for (millions, value_bytes, megabytes) in [(2, 8, 64), (2, 100, 64), (10, 8, 2048), (10, 200, 2048)] {
        case(&format!("{millions} million values of {value_bytes} bytes, -m {megabytes}"), &|| {
            let mut filling = Filling::new(megabytes);
            filling.set(millions * 1_000_000 / divisor, value_bytes, Exptime::Never);
            filling
        });
    }
    let gigabyte = 1024 / divisor;
    case("1 MB values displace those of 100 bytes, -m 1024", &|| {
        let mut filling = Filling::new(gigabyte);
        filling.fill(100, Exptime::Never);
        filling.forget();
        filling.set(gigabyte, MEBIBYTE as usize - 100, Exptime::Never);
        filling
    });
    case("values of 100 bytes, when a gigabyte has expired", &|| {
        let mut filling = Filling::new(gigabyte);
        filling.fill(100, Exptime::In(LIFE));
        filling.forget();
        filling.now += LIFE + 1;
        filling.fill(100, Exptime::Never);
        filling
    });
}

/// A store, and how long operations on it took.
struct Filling {
    store: Arc<Store>,
    counters: Counters,
    now: Seconds,
    next_key: u64,
    value: Vec<u8>,
    nanos: Vec<u32>,
}

impl Filling {
    fn new(megabytes: u64) -> Self {
        let budget_bytes = megabytes.max(64) * MEBIBYTE;
        let options = Options { budget_bytes, hash_seed: Some(1), ..Options::default() };
        Self {
            store: Store::new(&options, Clock::manual(1 << 30), Events::default()).into(),
            counters: Counters::default(),
            now: START,
            next_key: 0,
            value: vec![b'x'; MEBIBYTE as usize],
            nanos: Vec::new(),
        }
    }

    /// Sets so many new keys.
    fn set(&mut self, count: u64, value_bytes: usize, exptime: Exptime) {
        for _ in 0..count {
            self.set_one(value_bytes, exptime);
        }
    }

    /// Sets one new key, and notes how long each part of that took.
    fn set_one(&mut self, value_bytes: usize, exptime: Exptime) {
        let key = format!("key{:013}", self.next_key);
        self.next_key += 1;
        // A large value keeps the memory that it was received in.
        let received =
            (value_bytes > PIECE_BYTES).then(|| Bytes::copy_from_slice(&self.value[..value_bytes]));
        let value = received.as_deref().unwrap_or(&self.value[..value_bytes]);
        let verb = Verb::Set(Set { value, received: received.as_ref(), exptime, ..Set::PLAIN });
        let command = Command { key: key.as_bytes(), key_binary: false, verb };
        let caller = Caller::new(self.now, &self.counters, 1);
        let mut time = |operation: &mut dyn FnMut()| {
            let began = Instant::now();
            operation();
            self.nanos.push(u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX));
        };
        let mut expected = Expected::nothing(self.store.clone());
        for piece in 1..=(value_bytes - 1) / PIECE_BYTES {
            // One piece ahead.
            expected.reach(value_bytes.min((piece + 1) * PIECE_BYTES));
            let mut made = true;
            while made {
                time(&mut || made = expected.step(&caller));
            }
        }
        drop(expected);
        time(&mut || self.store.execute(&caller, &command, |_| ()));
    }

    /// Sets new keys until the budget is used up, and something more.
    fn fill(&mut self, value_bytes: usize, exptime: Exptime) {
        let each = value_bytes as u64 + 24;
        self.set(self.store.budget_bytes() / each, value_bytes, exptime);
    }

    /// Forgets what operations have taken so far.
    fn forget(&mut self) {
        self.nanos.clear();
    }
}

/// Says what operations took that were the same in each run.
fn report(what: &str, runs: &[Vec<u32>]) {
    let [first, others @ ..] = runs else { return };
    assert!(others.iter().all(|run| run.len() == first.len()), "each run does the same");
    let shortest = |at: usize| runs.iter().map(|run| run[at]).min().unwrap_or_default();
    let mut nanos: Vec<u32> = (0..first.len()).map(shortest).collect();
    nanos.sort_unstable();
    let micros = |nanos: Option<&u32>| f64::from(*nanos.unwrap_or(&0)) / 1000.0;
    let quantile = |part: f64| micros(nanos.get((nanos.len() as f64 * part) as usize));
    let in_a_run = runs.iter().flatten().max();
    println!(
        "{what:50} {:10} {:8.1} {:8.1} {:8.1} {:8.1}",
        nanos.len(),
        quantile(0.5),
        quantile(0.9999),
        micros(nanos.last()),
        micros(in_a_run)
    );
}

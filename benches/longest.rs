//! What the longest single operation on the store takes, in CPU time of its thread: `cargo bench --bench longest`.
//!
//! Every operation is timed, and does what it has to by itself, making room included. A client feels the longest one, and
//! so does whoever waits behind it. A large value comes in pieces, for each of which room is made: others come in between, so
//! each of these is an operation, too.
//!
//! To ask for the CPU time of a thread takes longer than most operations do, so that is asked once in a while; what the
//! thread did not have a CPU meanwhile is taken off the longest operation in between.
//!
//! `cargo bench --bench longest -- TEXT` runs the cases alone that have this text in their names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use filbert::clock::{Clock, Seconds};
use filbert::command::{Command, Set, Verb};
use filbert::events::Events;
use filbert::item::Exptime;
use filbert::stats::Counters;
use filbert::store::{Caller, Expected, Options, Store};
use hdrhistogram::Histogram;
use nix::time::{ClockId, clock_gettime};

const MEBIBYTE: u64 = 1 << 20;

/// The time at which everything begins.
const START: Seconds = 10;

/// A value that is larger comes in pieces of this size, as a connection reads it.
const PIECE_BYTES: usize = 64 << 10;

/// Operations between two looks at the CPU clock.
const LOOK: u64 = 1000;

/// Seconds that an item lives which is to expire.
const LIFE: u32 = 60;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // cargo says `--bench`, and `--quick` is a smoke test.
    let divisor = if args.iter().any(|arg| arg == "--quick") { 100 } else { 1 };
    let wanted = args.iter().find(|arg| !arg.starts_with("--"));
    println!("{:50} {:>10} {:>8} {:>8} {:>8}  us", "", "operations", "median", "99.99%", "longest");
    let case = |name: &str, run: &dyn Fn() -> Filling| {
        if wanted.is_none_or(|wanted| name.contains(wanted)) {
            run().report(name);
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
    nanos: Histogram<u64>,
}

impl Filling {
    fn new(megabytes: u64) -> Self {
        let options = Options { budget_bytes: megabytes.max(64) * MEBIBYTE, ..Options::default() };
        Self {
            store: Store::new(&options, Clock::manual(1 << 30), Events::default()).into(),
            counters: Counters::default(),
            now: START,
            next_key: 0,
            value: vec![b'x'; MEBIBYTE as usize],
            nanos: Histogram::new(3).expect("3 digits"),
        }
    }

    /// Sets so many new keys.
    fn set(&mut self, count: u64, value_bytes: usize, exptime: Exptime) {
        let mut left = count;
        while left > 0 {
            let (began, cpu_before) = (Instant::now(), thread_cpu());
            let mut took = Vec::new();
            (0..left.min(LOOK)).for_each(|_| self.set_one(value_bytes, exptime, &mut took));
            let waited = began.elapsed().saturating_sub(thread_cpu() - cpu_before);
            if let Some(longest) = took.iter_mut().max() {
                *longest = longest.saturating_sub(waited);
            }
            for took in took {
                self.nanos.record(took.as_nanos() as u64).expect("it grows");
            }
            left -= left.min(LOOK);
        }
    }

    /// Sets one new key, and notes how long each part of that took.
    fn set_one(&mut self, value_bytes: usize, exptime: Exptime, took: &mut Vec<Duration>) {
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
            took.push(began.elapsed());
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
        self.nanos.reset();
    }

    fn report(&self, what: &str) {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let (median, most) = (self.nanos.value_at_quantile(0.5), self.nanos.value_at_quantile(0.9999));
        println!(
            "{what:50} {:10} {:8.1} {:8.1} {:8.1}",
            self.nanos.len(),
            micros(median),
            micros(most),
            micros(self.nanos.max())
        );
    }
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("threads have a clock").into()
}

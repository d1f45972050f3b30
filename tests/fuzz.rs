//! Broken and hostile input for one connection, from its socket to the store and back: random
//! requests, mutated and cut at random. Runs for `FILBERT_FUZZ_SECONDS` (5); a failure names
//! its `FILBERT_SEED`, which runs that one case again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use filbert::cache::Cache;
use filbert::cache::loads::Loads;
use filbert::clock::Clock;
use filbert::events::Events;
use filbert::server::connections::CloseReason;
use filbert::server::connections::Connections;
use filbert::server::history::History;
use filbert::server::memcached::connection::ClientConnection;
use filbert::server::prefix::Prefixes;
use filbert::server::quota::Quota;
use filbert::server::strangers::Strangers;
use filbert::server::stream::Stream;
use filbert::server::{Options as ServerOptions, ServerContext};
use filbert::stats::Registry;
use filbert::store::{Options, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

mod corpus;
mod replies;

use corpus::Random;

use crate::support::shown::{Cut, assert_same};

/// No case takes this long unless something hangs.
const HANG: Duration = Duration::from_secs(60);

/// How one case treats the server.
#[derive(Debug)]
struct Case {
    input: Vec<u8>,
    store: Options,
    /// Lengths of the writes, gone through again and again.
    cuts: Vec<usize>,
    /// Bytes that the client reads at a time.
    read_bytes: usize,
    /// After this number of writes the node begins to stop.
    drain_after: Option<usize>,
    /// Seconds that pass with each write.
    seconds: u32,
}

impl Case {
    fn new(random: &mut Random) -> Self {
        let store = Options {
            budget_bytes: random.pick(&[32 << 10, 128 << 10, 8 << 20]),
            item_size_max: random.pick(&[1 << 10, 64 << 10, 1 << 20]),
            evict: !random.one_in(4),
            cas: !random.one_in(8),
            ..Options::default()
        };
        Self {
            input: corpus::input(random),
            store,
            cuts: (0..20)
                .map(|_| random.pick(&[1, 7, 60, 1000, 20_000]).min(1 + random.below(20_000)))
                .collect(),
            read_bytes: random.pick(&[100, 4096, 1 << 20]),
            drain_after: random.one_in(16).then(|| random.below(20)),
            seconds: u32::from(random.one_in(4)),
        }
    }
}

fn context(store: &Options, clock: &Clock) -> Arc<ServerContext> {
    let events = Events::default();
    Arc::new(ServerContext {
        loads: Loads::none(),
        store: Arc::new(Store::new(store, clock.clone(), events.clone())),
        events,
        registry: Registry::default(),
        verbosity: AtomicU8::new(0),
        connections: Connections::new(10),
        prefixes: Prefixes::new(None),
        strangers: Strangers::default(),
        requests: Quota::new(0),
        replies: Quota::new(0),
        auth: None,
        certificates: None,
        watchdog: Arc::default(),
        leave: CancellationToken::new(),
        stop: CancellationToken::new(),
        sweep: sync_channel(1).0,
        draining: AtomicBool::new(false),
        history: History::default(),
        http_addr: String::new(),
        options: ServerOptions::default(),
    })
}

/// Sends the input of a case to a connection of its own, and returns the answers and why it
/// ended.
async fn serve(case: &Case) -> (Vec<u8>, CloseReason) {
    let clock = Clock::manual(1_700_000_000);
    let context = context(&case.store, &clock);
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let connection = context.connections.enter(7, "unix:fuzz".into(), "fuzz".into(), clock.now());
    let counters = context.registry.block();
    let cache = Cache::start(&context.store, &context.loads, None, counters.clone(), context.stop.clone());
    let client = ClientConnection::new(Stream::Unix(theirs), context.clone(), counters, connection, cache);
    let (mut from, mut to) = ours.into_split();

    let write = async {
        let (mut rest, mut cuts) = (&case.input[..], case.cuts.iter().cycle().enumerate());
        while let Some((number, cut)) = cuts.next().filter(|_| !rest.is_empty()) {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            if to.write_all(piece).await.is_err() {
                return; // The server has closed.
            }
            rest = behind;
            clock.advance(case.seconds);
            if case.drain_after == Some(number) {
                context.drain();
            }
            // Lets the server read this piece alone.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
        drop(to);
    };
    let read = async {
        let mut answers = Vec::new();
        let mut buffer = vec![0; case.read_bytes];
        while let Ok(len @ 1..) = from.read(&mut buffer).await {
            answers.extend_from_slice(&buffer[..len]);
        }
        answers
    };
    let run = tokio::spawn(client);
    let ((), answers) = tokio::join!(write, read);
    let ended = run.await.unwrap_or_else(|error| resume_unwind(error.into_panic()));

    let (used, budget) = (context.store.used_bytes(), context.store.budget_bytes());
    let slack = case.store.item_size_max as u64 + (256 << 10);
    assert!(used <= budget.max(case.store.budget_bytes) + slack, "{used} bytes of {budget}");
    (answers, ended)
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut case = Case::new(&mut random);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .build()
        .expect("a runtime of one thread");
    let served = |case: &Case| {
        let serving = async { tokio::time::timeout(HANG, serve(case)).await };
        runtime.block_on(serving).unwrap_or_else(|_| panic!("it hangs: {:?}", Cut(case)))
    };
    let (answers, ended) = served(&case);
    match ended {
        CloseReason::Normal | CloseReason::Shutdown => {}
        // The client went away with answers under way, or sent on after a quit.
        CloseReason::Error => {}
        CloseReason::Idle => panic!("there is no idle timeout"),
    }
    if let Err(what) = replies::check(&answers) {
        panic!("{}, in the answers to {}", Cut(what), Cut(case.input.escape_ascii()));
    }

    // Cut in another way, it says the same.
    if case.drain_after.is_none() && case.seconds == 0 && corpus::is_repeatable(&case.input) {
        case.store = Options { budget_bytes: 64 << 20, ..case.store };
        let (one, _) = served(&case);
        case.cuts = vec![1 << 20];
        let (other, _) = served(&case);
        assert_same(one, other);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn hostile_input_is_answered_and_survived() {
    if let Some(seed) = number("FILBERT_SEED") {
        return run(seed);
    }
    let ends = Instant::now() + Duration::from_secs(number("FILBERT_FUZZ_SECONDS").unwrap_or(5));
    let first = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let mut cases = 0;
    while Instant::now() < ends {
        let seed = first.wrapping_add(cases);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("run this case again with FILBERT_SEED={seed}");
            resume_unwind(panic);
        }
        cases += 1;
    }
    println!("{cases} cases from seed {first}");
}

//! A cluster in one process and in simulated time, whose nodes talk to an etcd as they do in earnest: with the same code,
//! call by call, and each call takes its time. Processes stand still for about as long as their lease, and go on in the
//! midst of what they did. Clients most often ask a node that has just woken up. What they see must keep the rule in
//! `support::history`. No node serves under an older view than one that some node takes for converged. In the end all
//! nodes are one cluster.
//!
//! A failure names its seed, which `FILBERT_SEED` runs again; not always with the same outcome, since tokio takes what
//! is ready at the same moment in any order. `FILBERT_LEASE_SIMULATIONS` says how many to run.

mod endpoint;
mod fault;
mod freezer;
mod member;
mod operator;
mod world;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use filbert::command::{Command, Delete, Get, Set, SetMode, Unavailable, Verb};
use filbert::item::Exptime;
use filbert::pb;
use filbert::pb::outcome::Kind as Came;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use crate::simulation::leases::fault::Fault;
use crate::simulation::leases::member::Process;
use crate::simulation::leases::world::World;
use crate::simulation::memory::{Executed, PATIENCE};
use crate::support::history::{Ending, Found, History, Moment, Read, Span, What, Write};

const LEASE: Duration = Duration::from_secs(5);

/// The deadline of each call to etcd.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// Histories of a run.
const SIMULATIONS: u64 = 40;

/// Histories of which one must find a broken rule.
const FAULTY: u64 = 16;

const THREADS: usize = 2;
const READERS: usize = 3;
const KEYS: usize = 8;

/// No history takes so long, in its own time.
const HANG: Duration = Duration::from_secs(600);

/// How long nodes may take to become one cluster again.
const MENDING: Duration = Duration::from_secs(120);

#[test]
fn no_old_value_comes_back_after_a_standstill() {
    let told = simulate_all(seeds(), None);
    for wrong in told.iter().filter(|told| !told.wrong.is_empty()).take(2) {
        eprintln!("FILBERT_SEED={}\n{}", wrong.seed, wrong.wrong);
    }
    let wrong: Vec<_> = told.iter().filter(|told| !told.wrong.is_empty()).map(|told| told.seed).collect();
    let sum = |count: fn(&Told) -> usize| told.iter().map(count).sum::<usize>();
    let (reads, hits, writes, views) = (
        sum(|told| told.reads),
        sum(|told| told.hits),
        sum(|told| told.acknowledged),
        sum(|told| told.views),
    );
    println!("{} histories: {reads} reads, {hits} hits, {writes} writes, {views} views", told.len());
    assert!(wrong.is_empty(), "{} of {} histories are wrong: {wrong:?}", wrong.len(), told.len());
    // A cluster that answers nothing breaks no promise.
    assert!(told.len() < 10 || hits * 10 > reads && views > told.len() * 3, "{reads} {hits} {views}");
}

#[test]
fn each_broken_rule_is_found() {
    for fault in Fault::ALL {
        let few = |from: u64| simulate_all(from..from + THREADS as u64, Some(fault));
        let found = (0..FAULTY).step_by(THREADS).flat_map(few).find(|told| told.is_unsafe);
        println!("{fault:?}: the first seed that finds it is {:?}", found.as_ref().map(|told| told.seed));
        assert!(found.is_some(), "{fault:?}");
    }
}

/// The seeds to run.
fn seeds() -> Range<u64> {
    let number = |name: &str| Some(std::env::var(name).ok()?.parse::<u64>().expect("a number"));
    match number("FILBERT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FILBERT_LEASE_SIMULATIONS").unwrap_or(SIMULATIONS),
    }
}

/// What came of a history.
#[derive(Debug, Default)]
struct Told {
    seed: u64,
    /// What was wrong, and all that happened; empty when nothing was.
    wrong: String,
    /// Whether somebody saw an old value, or could have.
    is_unsafe: bool,
    reads: usize,
    hits: usize,
    acknowledged: usize,
    views: usize,
}

fn simulate_all(seeds: Range<u64>, fault: Option<Fault>) -> Vec<Told> {
    let (next, told) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    let history = simulate(seed, fault);
                    told.lock().push(history);
                }
            });
        }
    });
    let mut told = told.into_inner();
    told.sort_by_key(|told| told.seed);
    told
}

fn simulate(seed: u64, fault: Option<Fault>) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime that does no IO");
    let told = runtime.block_on(async { timeout(HANG, history(seed, fault)).await });
    told.unwrap_or_else(|_| Told { seed, wrong: "it hangs".to_owned(), ..Told::default() })
}

async fn history(seed: u64, fault: Option<Fault>) -> Told {
    let mut rng = Rng::with_seed(seed);
    let nodes = rng.usize(2..=4);
    let names: Vec<_> = (0..KEYS).map(|key| format!("{key}-{:04x}", rng.u16(..))).collect();
    let world = World::new(seed, nodes, names.clone(), fault);
    tokio::spawn(world.etcd.clone().run());
    for node in 0..world.nodes() {
        world.start(node);
    }
    let until = world.now() + Duration::from_secs(60);
    let mut offences = Vec::new();
    offences.extend(mend(&world).await);
    tokio::spawn(world.clone().watch());
    operator::set_latency(&world, &mut rng);

    let harming = tokio::spawn(operator::run(world.clone(), until, rng.fork()));
    let writing =
        names.iter().map(|name| tokio::spawn(write(world.clone(), name.clone(), until, rng.fork())));
    let writing: Vec<_> = writing.collect();
    let reading = (0..READERS).map(|_| tokio::spawn(read(world.clone(), names.clone(), until, rng.fork())));
    let reading: Vec<_> = reading.collect();
    let mut histories = Vec::new();
    for writer in writing {
        histories.push(writer.await.expect("no writer panics"));
    }
    for reader in reading {
        for (key, read) in reader.await.expect("no reader panics") {
            histories[key].reads.push(read);
        }
    }
    harming.await.expect("no operator panics");
    for (key, read) in world.late_reads() {
        histories[key].reads.push(read);
    }
    operator::end(&world);
    offences.extend(mend(&world).await);
    judge(seed, &world, histories, offences)
}

/// Waits until all nodes are one cluster.
async fn mend(world: &World) -> Option<String> {
    let is_whole = || {
        let states: Vec<_> = world.processes().iter().map(|process| process.membership.state()).collect();
        world.processes().iter().all(|process| process.membership.serves())
            && states.iter().all(|state| {
                state.epoch == states[0].epoch
                    && state.view.members.len() == world.nodes()
                    && state.is_converged()
            })
    };
    let whole = async {
        while !is_whole() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let states = || {
        world
            .processes()
            .iter()
            .map(|process| format!("{:?}\n", process.membership.state()))
            .collect::<String>()
    };
    timeout(MENDING, whole).await.err().map(|_| format!("they do not become one cluster: {}", states()))
}

fn judge(seed: u64, world: &World, mut histories: Vec<History>, mut offences: Vec<String>) -> Told {
    let mut told = Told { seed, ..Told::default() };
    told.views = world.processes().iter().map(|process| process.epoch() as usize).max().unwrap_or(0);
    let events = world.events();
    let violations = world.violations();
    if !violations.is_empty() {
        told.is_unsafe = true;
        offences.push(format!("{}\n{}", violations.join("\n"), History::default().shown(&events)));
    }
    for history in &mut histories {
        history.reads.sort_by_key(|read| read.span.began);
        told.reads += history.reads.len();
        told.hits += history.reads.iter().filter(|read| matches!(read.found, Found::Value(_))).count();
        told.acknowledged +=
            history.writes.iter().filter(|write| write.ending == Ending::Acknowledged).count();
        if let Err(offence) = history.check() {
            told.is_unsafe = true;
            offences.push(format!("{offence}{}", history.shown(&events)));
        }
    }
    told.wrong = offences.join("\n");
    told
}

/// What came of a command.
enum Reply {
    Done(pb::Outcome),
    /// It was not executed.
    Refused,
    /// It may have been executed.
    Unknown,
}

async fn ask(world: &World, rng: &mut Rng, key: &str, verb: Verb<'_>) -> (Reply, Span) {
    let process: Arc<Process> = loop {
        match world.any(rng) {
            Some(process) => break process,
            None => sleep(Duration::from_millis(10)).await,
        }
    };
    let command = Command { key: key.as_bytes(), key_binary: false, verb };
    let began = world.now();
    let reply = match process.execute_here(&command) {
        Executed::Here(outcome) => Reply::Done(outcome),
        Executed::Refused(_) => Reply::Refused,
        Executed::Loads(_) => unreachable!("there are no groups here"),
        Executed::Elsewhere => match process.memory.execute(0, &command).await {
            Some(Ok(outcome)) => Reply::Done(outcome),
            Some(Err(Unavailable::Unanswered)) => Reply::Unknown,
            Some(Err(_)) => Reply::Refused,
            None => {
                // Nobody says that it failed. What is on its way may be executed until its deadline.
                sleep(PATIENCE).await;
                Reply::Unknown
            }
        },
    };
    (reply, Span { began, ended: world.now(), node: process.node })
}

/// A key's only writer.
async fn write(world: Arc<World>, key: String, until: Moment, mut rng: Rng) -> History {
    let mut history = History { key: key.clone(), ..History::default() };
    let pace = rng.u64(50..300);
    let mut number = 0;
    while world.now() < until {
        let pace = if world.is_waking() { 15 } else { pace };
        sleep(Duration::from_millis(rng.u64(..=pace))).await;
        number += 1;
        let value = format!("{key}:{number}");
        let (what, verb) = match rng.u8(..4) {
            0 => (What::Delete, Verb::Delete(Delete::default())),
            _ => {
                let set = Set {
                    mode: SetMode::Set,
                    value: value.as_bytes(),
                    exptime: Exptime::Never,
                    ..Set::PLAIN
                };
                (What::Store, Verb::Set(set))
            }
        };
        let (reply, span) = ask(&world, &mut rng, &key, verb).await;
        let ending = match reply {
            Reply::Done(outcome)
                if matches!(outcome.kind(), Came::Stored | Came::Deleted | Came::NotFound) =>
            {
                Ending::Acknowledged
            }
            Reply::Done(_) | Reply::Unknown => Ending::Unknown,
            Reply::Refused => Ending::Refused,
        };
        history.writes.push(Write { numbers: number..=number, what, ending, span });
    }
    history
}

/// Somebody who reads all keys.
async fn read(world: Arc<World>, names: Vec<String>, until: Moment, mut rng: Rng) -> Vec<(usize, Read)> {
    let mut reads = Vec::new();
    while world.now() < until {
        let pace = if world.is_waking() { 1 } else { 80 };
        sleep(Duration::from_millis(rng.u64(..=pace))).await;
        let key = rng.usize(..names.len());
        let (reply, span) = ask(&world, &mut rng, &names[key], Verb::Get(Get::PLAIN)).await;
        let found = match reply {
            Reply::Done(outcome) => found(&names[key], &outcome),
            Reply::Refused | Reply::Unknown => Found::Miss,
        };
        reads.push((key, Read { found, span }));
    }
    reads
}

/// What a read of a key came to.
fn found(name: &str, outcome: &pb::Outcome) -> Found {
    let Some(item) = &outcome.item else { return Found::Miss };
    let value = String::from_utf8_lossy(&item.value);
    let number = value.strip_prefix(name).and_then(|rest| rest.strip_prefix(':')?.parse().ok());
    number.map_or_else(|| Found::Wrong(value.to_string()), Found::Value)
}

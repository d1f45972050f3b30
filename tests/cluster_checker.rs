//! The promise under fire: a value that was overwritten or deleted does not come back.
//!
//! Clients write and read through every node of a real cluster while its nodes, its etcd and its network fail, as a
//! seed says (`FILBERT_SEED` runs that one again, as far as real time allows). Afterwards the history of each key is
//! checked against the rule in `support::history`, each counter's against that in `support::counter`, and besides:
//!
//! - A counter is not lost while the cluster is whole and its view stays.
//! - A node whose process runs answers within a few seconds, whatever happens to the others.
//! - A read is never answered with an error, nor with another key's value.
//!
//! `FILBERT_CHECKER_SECONDS` says how long to go on (20), `FILBERT_CHECKER_CHANGES` how many nodes leave and join (6) where
//! they die while items move.

pub mod client;
mod faults;
mod workload;
mod writer;

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use faults::{Faults, Log, MOVE_RATE};

use workload::{Load, Seen};

use crate::support::cluster::{Cluster, HASTY};
use crate::support::history::{Ending, Found, Moment};
use crate::support::node::Node;
use crate::support::shown::kept;
use crate::support::site::Site;

/// Histories are checked and dropped after this time,
const ROUND: Duration = Duration::from_secs(20);

/// or after so many nodes have left or joined.
const CHANGES: usize = 6;

#[test]
fn no_old_value_comes_back_whatever_fails() {
    let seed = Seed::choose();
    let seconds = number("FILBERT_CHECKER_SECONDS").or_else(|| number("FILBERT_CHECK_SECONDS"));
    let mut left = seconds.map_or(ROUND, Duration::from_secs);
    let mut rng = fastrand::Rng::with_seed(seed.0);
    let nodes = rng.usize(3..=5);
    let mut cluster = Cluster::start_apart(nodes);
    let start = Instant::now();
    for round in 0.. {
        let duration = left.min(ROUND);
        let load = Load::new(addrs(&cluster.nodes), start, &format!("round{round}"));
        let mut faults = Faults::new(&mut cluster, load.woken.clone(), rng.u64(..), start);
        let ((), seen) = load.run(rng.u64(..), || faults.run(duration));
        let summary =
            check(&seen, &faults.log).unwrap_or_else(|offences| panic!("{}", kept("checker", &offences)));
        println!("round {round}, {nodes} nodes, {} faults: {summary}", faults_in(&faults.log));
        left -= duration;
        if left.is_zero() {
            break;
        }
    }
}

#[test]
fn no_old_value_comes_back_while_items_move() {
    let seed = Seed::choose();
    let mut rng = fastrand::Rng::with_seed(seed.0);
    let changes = number("FILBERT_CHECKER_CHANGES").map_or(CHANGES, |changes| changes as usize);
    let nodes = rng.usize(3..=4);
    let mut cluster = Cluster::start_behind_a_proxy(nodes, &[&HASTY[..], &MOVE_RATE].concat());
    let start = Instant::now();
    for round in 0..changes.div_ceil(CHANGES) {
        let load = Load::new(addrs(&cluster.nodes), start, &format!("planned{round}"));
        let mut faults = Faults::new(&mut cluster, load.woken.clone(), rng.u64(..), start);
        let left = changes - round * CHANGES;
        let (planned, seen) = load.run(rng.u64(..), || faults.run_planned(left.min(CHANGES)));
        let summary =
            check(&seen, &faults.log).unwrap_or_else(|offences| panic!("{}", kept("checker", &offences)));
        assert!(planned.moved > 0, "nothing has moved: {:?}", faults.log.events);
        println!("round {round}, {nodes} nodes, {planned:?}: {summary}");
    }
}

fn faults_in(log: &Log) -> usize {
    log.events.iter().filter(|(_, what)| what.starts_with("the end of")).count()
}

/// The checker itself, and the clients: a single node that dies and stands still keeps the rule.
#[test]
fn a_node_alone_keeps_the_rule() {
    let seed = Seed::choose();
    let mut nodes = [lone_node("node-1")];
    let start = Instant::now();
    let load = Load::new(addrs(&nodes), start, "alone");
    let (log, seen) = load.run(seed.0, || {
        let mut log = Log::default();
        for turn in 0..6 {
            thread::sleep(Duration::from_millis(500));
            let from = start.elapsed();
            if turn % 2 == 0 {
                nodes[0].kill9();
                nodes[0].start();
            } else {
                nodes[0].stop();
                thread::sleep(Duration::from_millis(100));
                nodes[0].cont();
            }
            log.outages.push(faults::Outage { node: 0, from, until: start.elapsed() });
        }
        let from = start.elapsed();
        thread::sleep(Duration::from_millis(300));
        log.calm.push((from, start.elapsed()));
        log
    });
    check(&seen, &log).unwrap_or_else(|offences| panic!("{}", kept("checker", &offences)));
}

/// The checker itself: nodes that do not know each other show old values, and are caught.
#[test]
fn nodes_that_do_not_know_each_other_are_caught() {
    let seed = Seed::choose();
    let nodes = [lone_node("node-1"), lone_node("node-2")];
    // Long enough to see something, on a busy machine, too.
    let caught = (0..20).any(|round| {
        let load = Load::new(addrs(&nodes), Instant::now(), &format!("strangers{round}"));
        let ((), seen) = load.run(seed.0, || thread::sleep(Duration::from_millis(500)));
        let offences = check(&seen, &Log::default()).err().unwrap_or_default();
        ["was acknowledged before", "incr gave"].iter().all(|offence| offences.contains(offence))
    });
    assert!(caught, "two caches that differ");
}

fn lone_node(id: &str) -> Node {
    let mut node = Node::new(id, Site::loopback(), Vec::new());
    node.start();
    node
}

fn addrs(nodes: &[Node]) -> Vec<crate::support::node::ClientAddr> {
    nodes.iter().map(Node::client_addr).collect()
}

/// Checks everything that was seen, and says how much it was.
///
/// # Errors
///
/// Every offence, with the histories of the keys concerned.
fn check(seen: &Seen, log: &Log) -> Result<String, String> {
    let mut offences = String::new();
    for history in &seen.histories {
        if let Err(offence) = history.check() {
            let _ = writeln!(offences, "{offence}{}", history.shown(&log.events));
        }
    }
    for (key, said) in &seen.miscounts {
        let history = &seen.histories[*key];
        let _ = writeln!(offences, "{}: {said}\n{}", history.key, history.shown(&log.events));
    }
    for loss in &seen.losses {
        if log.calm.iter().any(|&(from, until)| from <= loss.after && loss.by <= until) {
            let history = &seen.histories[loss.key];
            let _ = writeln!(offences, "{} was lost in a calm: {loss:?}", history.key);
            offences.push_str(&history.shown(&log.events));
        }
    }
    for span in &seen.silences {
        let is_known = |outage: &faults::Outage| {
            outage.node == span.node && outage.from <= span.ended && span.began <= outage.until
        };
        let stood_still = |&(from, until): &(Moment, Moment)| from <= span.ended && span.began <= until;
        if !log.outages.iter().any(is_known) && !seen.standstills.iter().any(stood_still) {
            let _ = writeln!(offences, "no answer in time, though the node ran: {span:?} {:#?}", log.events);
        }
    }
    if !offences.is_empty() {
        return Err(offences);
    }
    let writes = seen.histories.iter().flat_map(|history| &history.writes);
    let reads = seen.histories.iter().flat_map(|history| &history.reads);
    let ended = |ending| writes.clone().filter(|write| write.ending == ending).count();
    let (acknowledged, unknown) = (ended(Ending::Acknowledged), ended(Ending::Unknown));
    let misses = reads.clone().filter(|read| read.found == Found::Miss).count();
    let hits = reads.count() - misses;
    if acknowledged < 100 || hits < 100 {
        return Err(format!("{acknowledged} writes and {hits} hits prove nothing"));
    }
    Ok(format!("{acknowledged} writes and {unknown} of unknown end, {hits} hits and {misses} misses"))
}

/// What the run's random numbers come from; said when the test fails.
struct Seed(u64);

impl Seed {
    fn choose() -> Seed {
        Seed(number("FILBERT_SEED").unwrap_or_else(|| fastrand::u64(..)))
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("run this again with FILBERT_SEED={}", self.0);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

//! What a cluster costs: keys of another node beside nutcracker in front of memcached, and own keys beside a single node.
//!
//! Same load as `versus_memcached`, both sides in turn on the same CPU. Two nodes are asked through one of them for keys
//! that the other one owns; the CPU time of both nodes is held against that of nutcracker and memcached together. Then a
//! node of three is asked for keys it owns itself, and its CPU time held against that of a node which is alone. Fails on
//! a wrong reply, never on a slow one.

mod cluster;
mod nutcracker;
mod options;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use crate::cluster::{Cluster, keys_of};
use crate::nutcracker::Proxied;
use crate::options::Options;
use crate::support::Result;
use crate::support::case::Case;
use crate::support::load::Mix;
use crate::support::measure::{self, Sample, Side};
use crate::support::process::{Placement, machine};
use crate::support::report::{Better, CaseReport, Comparison, Figure, number};
use crate::support::server::{Program, Server};
use crate::support::started::child::find;
use crate::support::started::etcd::Etcd;
use crate::support::started::site::Site;

const SUMMARY_KEYS: &[&str] = &["throughput_kops", "latency_p99_us", "cpu_us_per_op"];

/// nutcracker does not speak the meta commands.
const FORWARDED: [Case; 6] = [
    Case::classic(Mix::GET, 1),
    Case::classic(Mix::GET, 16),
    Case::classic(Mix::SET_1_GET_10, 1),
    Case::classic(Mix::SET_1_GET_10, 16),
    Case::classic(Mix::SET, 1),
    Case::classic(Mix::SET, 16),
];

const LOCAL: [Case; 3] =
    [Case::classic(Mix::GET, 1), Case::classic(Mix::GET, 16), Case::classic(Mix::SET, 16)];

/// What the server CPU of a forwarded operation is to be at most, as a part of nutcracker's and memcached's.
const PIPELINED_GOAL: f64 = 0.5;
const UNPIPELINED_GOAL: f64 = 1.0;

/// What the server CPU of an operation on a node's own keys is to be at most, as a part of a single node's.
const LOCAL_GOAL: f64 = 1.05;

/// The node that is asked, and the one that owns the keys.
const PAIR: [&str; 2] = ["node-a", "node-b"];

/// The first is asked for its own keys.
const THREE: [&str; 3] = ["node-1", "node-2", "node-3"];

fn main() -> ExitCode {
    support::run("forwarding", Options::parse(std::env::args().skip(1)), &Options::usage(), run)
}

fn run(options: &Options) -> Result<()> {
    let placement = Placement::choose()?;
    placement.pin_generator()?;
    let etcd = find(&options.etcd).ok_or_else(|| {
        format!("no {}: install Debian's package etcd-server, or give --etcd PATH", options.etcd.display())
    })?;
    // Where this process runs, off the servers' CPU.
    let etcd = Etcd::try_start(etcd, Site::loopback(), None)?;
    if options.drive { drive(&etcd, options, &placement) } else { compare(&etcd, options, &placement) }
}

fn compare(etcd: &Etcd, options: &Options, placement: &Placement) -> Result<()> {
    let mut comparison = Comparison { facts: facts(options, placement)?, cases: Vec::new() };
    let mut goals = String::new();
    for (key, value) in &comparison.facts {
        println!("{key:<10} {value}");
    }
    println!();
    if options.forwarding {
        for case in options.load.cases(&FORWARDED) {
            let report = compare_forwarded(case, etcd, options, placement)?;
            println!("{}", report.table());
            let goal = if case.pipeline > 1 { PIPELINED_GOAL } else { UNPIPELINED_GOAL };
            goals.push_str(&goal_line(&report, goal));
            comparison.cases.push(report);
        }
    }
    if options.local {
        for case in options.load.cases(&LOCAL) {
            let report = compare_local(case, etcd, options, placement)?;
            println!("{}", report.table());
            goals.push_str(&goal_line(&report, LOCAL_GOAL));
            comparison.cases.push(report);
        }
    }
    println!("{}", comparison.summary());
    println!("goals for the server CPU\n{goals}");
    print!("{}", comparison.readme_tables());
    if let Some(path) = &options.json {
        comparison.write_json(path)?;
    }
    Ok(())
}

/// Machine, versions, load.
fn facts(options: &Options, placement: &Placement) -> Result<Vec<(&'static str, String)>> {
    let filbert = Program::new("filbert", &options.filbert).start(placement)?;
    let mut facts = machine();
    facts.push(("filbert", filbert.version.clone()));
    if options.forwarding {
        facts.push(("beside", Proxied::start(options, placement)?.version(options)?));
        let (connections, bytes) = (options.server_connections, options.mbuf_bytes);
        facts.push(("nutcracker", format!("server_connections {connections}, mbuf-size {bytes}")));
    }
    facts.push(("threads", "1 in each process; nutcracker always has just one that works".into()));
    facts.push(("pinned", placement.description()));
    facts.push(("load", options.load.description()));
    Ok(facts)
}

/// A key of another node.
fn compare_forwarded(
    case: Case,
    etcd: &Etcd,
    options: &Options,
    placement: &Placement,
) -> Result<CaseReport> {
    let keys = keys_of(PAIR[1], &PAIR, options)?;
    let proxied = Proxied::start(options, placement)?;
    let cluster = Cluster::start(&PAIR, etcd, options, placement)?;
    let sides = [proxied.side(), cluster.side("two nodes")];
    for side in &sides {
        side.blamed(measure::preload(side.address, &keys, &options.load))?;
    }
    cluster.expect_items(&[0, keys.count().into()])?;
    let samples = measure::samples(case, &sides, &keys, &options.load)?;
    cluster.expect_items(&[0, keys.count().into()])?;
    let mut figures = measure::timed_figures(&samples);
    // Sides list what clients ask first.
    figures.push(part("asked_cpu_us_per_op", "CPU of what clients ask", 0, &samples));
    figures.push(part("owner_cpu_us_per_op", "CPU of what holds the items", 1, &samples));
    Ok(report(case, &sides, figures))
}

/// A key of the node that is asked. The CPU time of the two nodes beside it does not count: they serve nobody.
fn compare_local(case: Case, etcd: &Etcd, options: &Options, placement: &Placement) -> Result<CaseReport> {
    let keys = keys_of(THREE[0], &THREE, options)?;
    let single = Program::new("a single node", &options.filbert).start(placement)?;
    let cluster = Cluster::start(&THREE, etcd, options, placement)?;
    let sides = [single.side(), Side { name: "one of three nodes".into(), ..cluster.nodes[0].side() }];
    for side in &sides {
        side.blamed(measure::preload(side.address, &keys, &options.load))?;
    }
    cluster.expect_items(&[keys.count().into(), 0, 0])?;
    let samples = measure::samples(case, &sides, &keys, &options.load)?;
    Ok(report(case, &sides, measure::timed_figures(&samples)))
}

/// Loads the two nodes alone, or one of three with its own keys.
fn drive(etcd: &Etcd, options: &Options, placement: &Placement) -> Result<()> {
    let case = options.load.watched_case();
    let (owner, ids) = if options.forwarding { (PAIR[1], &PAIR[..]) } else { (THREE[0], &THREE[..]) };
    let keys = keys_of(owner, ids, options)?;
    let cluster = Cluster::start(ids, etcd, options, placement)?;
    let side = cluster.side("the nodes");
    measure::preload(side.address, &keys, &options.load)?;
    for Server { name, address, .. } in &cluster.nodes {
        println!("{name} at {address}");
    }
    println!("process ids {:?}", side.pids);
    println!("{}, {} operations", case.name(), options.load.operations(case.pipeline));
    let samples = [vec![side.sample(&options.load.load(case, side.address, &keys))?], Vec::new()];
    for figure in measure::timed_figures(&samples) {
        println!("  {:<32} {:>14}", figure.label, number(figure.values[0]));
    }
    Ok(())
}

fn part(key: &'static str, label: &'static str, process: usize, samples: &[Vec<Sample>; 2]) -> Figure {
    measure::figure(samples, key, label, Better::Lower, &|sample| {
        sample.micros_per_op(sample.cpu[process].total)
    })
}

fn goal_line(report: &CaseReport, goal: f64) -> String {
    let ratio = report.figure("cpu_us_per_op").and_then(Figure::ratio).unwrap_or(f64::NAN);
    let verdict = if ratio <= goal { "reached" } else { "not reached" };
    let [baseline, candidate] = &report.sides;
    let case = format!("{}, {candidate} over {baseline}", report.name);
    format!("  {case:<66} x{ratio:.2}, at most x{goal:.2}: {verdict}\n")
}

fn report(case: Case, sides: &[Side; 2], figures: Vec<Figure>) -> CaseReport {
    let sides = sides.each_ref().map(|side| side.name.clone());
    CaseReport { name: case.name(), sides, figures, summary_keys: SUMMARY_KEYS }
}

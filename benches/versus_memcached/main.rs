//! Filbert beside memcached: the same flags, the same load, in turn, on the same machine.
//!
//! Prints throughput, latency, CPU time, instructions and system calls per operation, what others notice of busy clients,
//! memory for what clients leave unfinished, and memory per item, each as filbert over memcached. Server and load
//! generator have a CPU each, so throughput also depends on the generator; the server's CPU time per operation is the
//! figure to judge by. Fails on a wrong reply, never on a slow one.

mod buffers;
mod fairness;
mod inspect;
mod inspected;
mod memory;
mod options;
mod scraper;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use crate::options::Options;
use crate::scraper::Scraper;
use crate::support::Result;
use crate::support::case::Case;
use crate::support::load::{Dialect, Keys, Mix};
use crate::support::measure::{self, Side};
use crate::support::process::{Placement, machine};
use crate::support::report::{CaseReport, Comparison, number};
use crate::support::server::Program;

const SUMMARY_KEYS: &[&str] = &["throughput_kops", "latency_p99_us", "cpu_us_per_op", "user_us_per_op"];

/// memcached 1.6.18 gathers the replies to pipelined `set`, `mg` and `ms` into one write, but writes the reply to each
/// `get` by itself: only the meta cases compare what both servers do when both gather.
const MATRIX: [Case; 12] = [
    Case::classic(Mix::GET, 1),
    Case::classic(Mix::GET, 16),
    Case::classic(Mix::SET_1_GET_10, 1),
    Case::classic(Mix::SET_1_GET_10, 16),
    Case::classic(Mix::SET, 1),
    Case::classic(Mix::SET, 16),
    Case { dialect: Dialect::Meta, ..Case::classic(Mix::GET, 16) },
    Case { dialect: Dialect::Meta, ..Case::classic(Mix::SET_1_GET_10, 16) },
    Case { dialect: Dialect::Binary, ..Case::classic(Mix::GET, 1) },
    Case { dialect: Dialect::Binary, ..Case::classic(Mix::GET, 16) },
    Case { dialect: Dialect::Binary, ..Case::classic(Mix::SET, 1) },
    Case { dialect: Dialect::Binary, ..Case::classic(Mix::SET, 16) },
];

fn main() -> ExitCode {
    support::run("versus_memcached", Options::parse(std::env::args().skip(1)), &Options::usage(), run)
}

fn run(options: &Options) -> Result<()> {
    let placement = Placement::choose()?;
    placement.pin_generator()?;
    match options.drive {
        Some(address) => drive(address, options),
        None => compare(options, &placement),
    }
}

fn compare(options: &Options, placement: &Placement) -> Result<()> {
    let programs = programs(options)?;
    let servers = [programs[0].start(placement)?, programs[1].start(placement)?];
    let mut comparison = Comparison { facts: machine(), cases: Vec::new() };
    for (role, server) in ["baseline", "candidate"].into_iter().zip(&servers) {
        comparison.facts.push((role, format!("{} {}", server.name, server.version)));
    }
    comparison.facts.push(("pinned", placement.description()));
    comparison.facts.push(("load", options.load.description()));
    for (key, value) in &comparison.facts {
        println!("{key:<10} {value}");
    }
    println!();
    drop(servers);
    let scraper = options.watched.then(Scraper::start);
    if options.matrix {
        let keys = keys(options)?;
        for case in options.load.cases(&MATRIX) {
            // Fresh for each case: the kernel derives `utime` and `stime` from proportions over a process's whole life,
            // so an earlier case would leak into a later one's split.
            let servers = [programs[0].start(placement)?, programs[1].start(placement)?];
            let sides = [servers[0].side(), servers[1].side()];
            for side in &sides {
                side.blamed(measure::preload(side.address, &keys, &options.load))?;
            }
            let report = compare_case(case, &sides, &keys, options)?;
            println!("{}", report.table());
            comparison.cases.push(report);
        }
    }
    drop(scraper);
    if options.fairness {
        for case in fairness::compare(&programs, placement, options)? {
            println!("{}", case.table());
            comparison.cases.push(case);
        }
    }
    if options.buffers {
        for case in buffers::compare(&programs, placement, options)? {
            println!("{}", case.table());
            comparison.cases.push(case);
        }
    }
    if options.memory {
        for case in memory::compare(&programs, placement, options)? {
            println!("{}", case.table());
            comparison.cases.push(case);
        }
    }
    println!("{}", comparison.summary());
    print!("{}", comparison.readme_tables());
    if let Some(path) = &options.json {
        comparison.write_json(path)?;
    }
    Ok(())
}

fn compare_case(case: Case, sides: &[Side; 2], keys: &Arc<Keys>, options: &Options) -> Result<CaseReport> {
    let mut figures = measure::timed_figures(&measure::samples(case, sides, keys, &options.load)?);
    if options.inspect {
        figures.extend(inspected::figures(case, sides, keys, &options.load)?);
    }
    let names = sides.each_ref().map(|side| side.name.clone());
    Ok(CaseReport { name: case.name(), sides: names, figures, summary_keys: SUMMARY_KEYS })
}

/// Loads one server that runs already, for a profiler to watch.
fn drive(address: SocketAddr, options: &Options) -> Result<()> {
    let case = options.load.watched_case();
    let keys = keys(options)?;
    if options.preload {
        measure::preload(address, &keys, &options.load)?;
    }
    println!("{}, {} operations on {address}", case.name(), options.load.operations(case.pipeline));
    // Without the server's process id its CPU figures are not known; the generator's own stand in and are not shown.
    let pid = options.pid.unwrap_or_else(std::process::id);
    let side = Side { name: address.to_string(), address, pids: vec![pid] };
    let samples = [vec![side.sample(&options.load.load(case, address, &keys))?], Vec::new()];
    for figure in measure::timed_figures(&samples) {
        let of_server = figure.key.contains("_per_op") || figure.key.starts_with("server");
        if options.pid.is_some() || !of_server {
            println!("  {:<32} {:>14}", figure.label, number(figure.values[0]));
        }
    }
    Ok(())
}

fn keys(options: &Options) -> Result<Arc<Keys>> {
    Ok(Arc::new(Keys::choose(options.load.keyspace, options.load.key_bytes, |_| true)?))
}

fn programs(options: &Options) -> Result<[Program; 2]> {
    let baseline = Program::new("memcached", &options.baseline);
    if options.against_itself {
        return Ok([baseline, Program::new("memcached again", &options.baseline)]);
    }
    let path =
        options.candidate.as_ref().ok_or("no filbert: give --filbert PATH or FILBERT_BIN, or --self")?;
    if options.watched {
        let with = |name: &str, address: &str| Program {
            flags: vec!["--http-listen".into(), address.into()],
            ..Program::new(name, path)
        };
        return Ok([with("unwatched", "off"), with("scraped every second", &scraper::ADDRESS.to_string())]);
    }
    Ok([baseline, Program::new("filbert", path)])
}

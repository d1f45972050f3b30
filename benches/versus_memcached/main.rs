//! Filbert beside memcached: the same flags, the same load, in turn, on the same machine.
//!
//! Prints throughput, latency, CPU time, instructions and system calls per operation, of small values and of large ones,
//! what others notice of busy clients, memory for what clients leave unfinished, and memory per item, each as filbert over
//! memcached. Server and load generator have a CPU each, so throughput also depends on the generator; the server's CPU
//! time per operation is the figure to judge by. Fails on a wrong reply, never on a slow one.

mod buffers;
mod fairness;
mod inspect;
mod inspected;
mod large;
mod matrix;
mod memory;
mod options;
mod scraper;
#[path = "../support/mod.rs"]
mod support;
mod visitors;

use std::net::SocketAddr;
use std::process::ExitCode;

use crate::matrix::MATRIX;
use crate::options::Options;
use crate::scraper::Scraper;
use crate::support::Result;
use crate::support::measure::{self, Side};
use crate::support::process::{Placement, machine};
use crate::support::report::{CaseReport, Comparison, number};
use crate::support::server::Program;

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
    let mut add = |report: CaseReport| {
        println!("{}", report.table());
        comparison.cases.push(report);
    };
    if options.matrix {
        matrix::compare(&programs, placement, options, &MATRIX, &mut add)?;
    }
    drop(scraper);
    if options.large {
        large::compare(&programs, placement, options, &mut add)?;
    }
    if options.visitors {
        add(visitors::compare(&programs, placement, options)?);
    }
    if options.fairness {
        fairness::compare(&programs, placement, options)?.into_iter().for_each(&mut add);
    }
    if options.buffers {
        buffers::compare(&programs, placement, options)?.into_iter().for_each(&mut add);
    }
    if options.memory {
        memory::compare(&programs, placement, options)?.into_iter().for_each(&mut add);
    }
    println!("{}", comparison.summary());
    print!("{}", comparison.readme_tables());
    if let Some(path) = &options.json {
        comparison.write_json(path)?;
    }
    Ok(())
}

/// Loads one server that runs already, for a profiler to watch.
fn drive(address: SocketAddr, options: &Options) -> Result<()> {
    let case = options.load.watched_case();
    let keys = matrix::keys(&options.load)?;
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

//! Filbert beside memcached: the same flags, the same load, in turn, on the same machine.
//!
//! Prints throughput, latency, CPU time, instructions and system calls per operation, and memory per item, each as
//! filbert over memcached. Server and load generator have a CPU each, so throughput also depends on the generator; the
//! server's CPU time per operation is the figure to judge by. Fails on a wrong reply, never on a slow one.

mod inspect;
mod measure;
mod memory;
mod options;
#[path = "../support/mod.rs"]
mod support;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::measure::Case;
use crate::options::{Options, USAGE};
use crate::support::load::{Dialect, Mix};
use crate::support::process::{Placement, machine};
use crate::support::report::{Comparison, number};
use crate::support::server::Program;

/// Whatever goes wrong here ends the run with a message for a person.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let outcome = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => run(&options),
        Ok(None) => {
            print!("{USAGE}");
            Ok(())
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus_memcached: {error}");
            ExitCode::FAILURE
        }
    }
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
    let names = [programs[0].name.clone(), programs[1].name.clone()];
    let servers = [programs[0].start(placement)?, programs[1].start(placement)?];
    let mut comparison = Comparison { facts: machine(), names, cases: Vec::new() };
    for (role, server) in ["baseline", "candidate"].into_iter().zip(&servers) {
        comparison.facts.push((role, format!("{} {}", server.name, server.version)));
    }
    comparison.facts.push((
        "pinned",
        match placement.server_and_generator {
            Some((server, generator)) => {
                format!("servers to CPU {server}, load generator to CPU {generator}")
            }
            None => "nothing: there is one CPU".into(),
        },
    ));
    comparison.facts.push((
        "load",
        format!(
            "{} connections, {}-byte keys, {}-byte values, {} keys, median of {} runs",
            options.connections,
            options.key_bytes,
            options.value_bytes,
            options.keyspace,
            options.repetitions
        ),
    ));
    for (key, value) in &comparison.facts {
        println!("{key:<10} {value}");
    }
    println!();
    drop(servers);
    if options.matrix {
        for case in cases(options) {
            // Fresh for each case: the kernel derives `utime` and `stime` from proportions over a process's whole life,
            // so an earlier case would leak into a later one's split.
            let servers = [programs[0].start(placement)?, programs[1].start(placement)?];
            for server in &servers {
                measure::preload(server.address, options)
                    .map_err(|error| format!("{}: {error}", server.name))?;
            }
            let report = measure::compare(case, &servers, options)?;
            println!("{}", report.table(&comparison.names));
            comparison.cases.push(report);
        }
    }
    if options.memory {
        for case in memory::compare(&programs, placement, options)? {
            println!("{}", case.table(&comparison.names));
            comparison.cases.push(case);
        }
    }
    print!("{}", comparison.summary());
    if let Some(path) = &options.json {
        comparison.write_json(path)?;
    }
    Ok(())
}

/// Loads one server that runs already, for a profiler to watch.
fn drive(address: SocketAddr, options: &Options) -> Result<()> {
    let case = Case {
        mix: options.mix.unwrap_or(Mix::GET),
        dialect: options.dialect.unwrap_or(Dialect::Classic),
        pipeline: options.pipeline.unwrap_or(16),
    };
    if options.preload {
        measure::preload(address, options)?;
    }
    println!("{}, {} operations on {address}", case.name(), options.operations(case.pipeline));
    // Without the server's process id its CPU figures are not known; the generator's own stand in and are not shown.
    let samples =
        [measure::sample(options.pid.unwrap_or_else(std::process::id), &case.load(address, options))?];
    for figure in measure::describe(&samples) {
        let of_server = figure.key.contains("_per_op") || figure.key.starts_with("server");
        if options.pid.is_some() || !of_server {
            println!("  {:<32} {:>14}", figure.label, number(figure.values[0]));
        }
    }
    Ok(())
}

/// The matrix, with `--mix`, `--meta` and `--pipeline` in place of its own values, each case once.
fn cases(options: &Options) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for case in Case::MATRIX {
        let case = Case {
            mix: options.mix.unwrap_or(case.mix),
            dialect: options.dialect.unwrap_or(case.dialect),
            pipeline: options.pipeline.unwrap_or(case.pipeline),
        };
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    cases
}

fn programs(options: &Options) -> Result<[Program; 2]> {
    let baseline = Program { name: "memcached".into(), path: options.baseline.clone() };
    if options.against_itself {
        return Ok([baseline.clone(), Program { name: "memcached again".into(), ..baseline }]);
    }
    let path =
        options.candidate.clone().ok_or("no filbert: give --filbert PATH or FILBERT_BIN, or --self")?;
    Ok([baseline, Program { name: "filbert".into(), path }])
}

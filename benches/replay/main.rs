//! What part of the requests of real caches is answered: recorded traces, replayed against Filbert and memcached.
//!
//! Look-aside, as clients use a cache: a get, and on a miss a set. All servers get the same requests side by side at the
//! same rate, and a fresh start for each trace and size. The bound says what a cache that knows the future could do.
//! Prints a table for each trace, and writes plots when told where. Fails on a wrong reply, never on a miss.

mod bound;
mod options;
mod plot;
mod run;
#[allow(dead_code)] // What this does not use, the other comparisons do.
#[path = "../support/mod.rs"]
mod support;
mod trace;

use std::process::ExitCode;

use crate::options::Options;
use crate::plot::{Line, Plot};
use crate::run::Replayed;
use crate::support::Result;
use crate::support::client::{Client, Values};
use crate::support::process::{Placement, machine, resident_bytes};
use crate::support::server::Program;
use crate::trace::Trace;

/// Both servers refuse a `-m` that is less than twice the largest item (`-I`), by default 1 MiB.
const LARGEST_ITEM_IN_ONE_MEBIBYTE: [&str; 2] = ["-I", "512k"];

/// Hit ratios with a cache of one size.
struct Row {
    mebibytes: u32,
    replayed: Replayed,
    /// Of each server, at the end.
    resident_bytes: Vec<u64>,
    bound: f64,
}

fn main() -> ExitCode {
    support::run("replay", Options::parse(std::env::args().skip(1)), &Options::usage(), run)
}

fn run(options: &Options) -> Result<()> {
    let placement = Placement::choose()?.anywhere();
    for (key, value) in machine() {
        println!("{key:<10} {value}");
    }
    for program in &options.servers {
        println!("{:<10} {}", program.name, program.start(&placement)?.version);
    }
    println!("{:<10} {} requests a second\n", "rate", options.pace.requests_per_second);
    let mut names = trace::names(&options.traces)?;
    names.retain(|name| options.wanted.is_empty() || options.wanted.iter().any(|part| name.contains(part)));
    if names.is_empty() {
        return Err("there is no such trace".into());
    }
    for name in names {
        let trace = Trace::read(&options.traces, &name, options.sizes)?;
        println!("{} ({name}): {}\n", trace.title, trace.description());
        let rows = rows(&trace, &placement, options)?;
        if let Some(directory) = &options.plots {
            plot(&trace, &rows, options).write(&directory.join(format!("{name}.svg")))?;
        }
    }
    Ok(())
}

/// Prints each as soon as it is there.
fn rows(trace: &Trace, placement: &Placement, options: &Options) -> Result<Vec<Row>> {
    let names: Vec<&str> = options.servers.iter().map(|program| program.name.as_str()).collect();
    println!(
        "| `-m` | {} | bound | resident, MiB | sets refused | requests/s | latest, ms |",
        names.join(" | ")
    );
    println!("|---|{}---|---|---|---|---|", "---|".repeat(names.len()));
    let longest = trace.requests.iter().map(|request| request.value_bytes).max().unwrap_or_default();
    let values = Values::new(longest as usize);
    let mut rows = Vec::new();
    for &mebibytes in options.mebibytes.as_deref().unwrap_or(trace.mebibytes) {
        let programs = options.servers.iter().map(|program| with_memory(program, mebibytes));
        let servers =
            programs.map(|program| program.start(placement)).collect::<std::io::Result<Vec<_>>>()?;
        let mut clients = servers
            .iter()
            .map(|server| Client::connect(&server.name, server.address))
            .collect::<std::io::Result<Vec<_>>>()?;
        let replayed = run::replay(trace, &values, &mut clients, options.pace)?;
        let bound = bound::hit_ratio(trace, u64::from(mebibytes) << 20);
        let resident_bytes =
            servers.iter().map(|server| resident_bytes(server.pid())).collect::<std::io::Result<Vec<_>>>()?;
        let row = Row { mebibytes, replayed, resident_bytes, bound };
        println!("{}", row.line(trace));
        rows.push(row);
    }
    println!();
    Ok(rows)
}

fn with_memory(program: &Program, mebibytes: u32) -> Program {
    let mut program = program.clone();
    program.flags.extend(["-m".to_owned(), mebibytes.to_string()]);
    if mebibytes == 1 {
        program.flags.extend(LARGEST_ITEM_IN_ONE_MEBIBYTE.map(str::to_owned));
    }
    program
}

impl Row {
    fn hit_ratios(&self, trace: &Trace) -> Vec<f64> {
        let requests = trace.requests.len() as f64;
        self.replayed.outcomes.iter().map(|outcome| outcome.hits as f64 / requests).collect()
    }

    fn line(&self, trace: &Trace) -> String {
        let ratios: Vec<String> = self.hit_ratios(trace).iter().map(|ratio| format!("{ratio:.4}")).collect();
        let resident: Vec<String> =
            self.resident_bytes.iter().map(|bytes| (bytes >> 20).to_string()).collect();
        let refused: Vec<String> =
            self.replayed.outcomes.iter().map(|outcome| outcome.refused.to_string()).collect();
        format!(
            "| {} | {} | {:.4} | {} | {} | {:.0} | {:.0} |",
            self.mebibytes,
            ratios.join(" | "),
            self.bound,
            resident.join(", "),
            refused.join(", "),
            self.replayed.requests_per_second,
            self.replayed.latest.as_secs_f64() * 1e3,
        )
    }
}

fn plot(trace: &Trace, rows: &[Row], options: &Options) -> Plot {
    let points = |ratio: &dyn Fn(&Row) -> f64| {
        rows.iter().map(|row| (f64::from(row.mebibytes), ratio(row))).collect::<Vec<_>>()
    };
    let mut lines = vec![Line { name: "bound".to_owned(), points: points(&|row| row.bound) }];
    for (place, program) in options.servers.iter().enumerate() {
        let ratio = |row: &Row| row.hit_ratios(trace)[place];
        lines.push(Line { name: program.name.clone(), points: points(&ratio) });
    }
    Plot { title: format!("{}: {}", trace.title, trace.description()), lines }
}

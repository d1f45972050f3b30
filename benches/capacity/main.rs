//! How much a cache holds: items at the same `-m`, and the memory that this takes, Filbert beside memcached.
//!
//! Fresh servers are filled with several times what fits. Then the items are counted by reading keys back, for a server
//! may count what is dead. Prints figures of each load, and a table at the end. Fails on a wrong reply, never on a figure.

mod fill;
mod loads;
mod options;
#[allow(dead_code)] // What this does not use, the other comparisons do.
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use crate::fill::{Filled, Held};
use crate::loads::Phase;
use crate::options::Options;
use crate::support::Result;
use crate::support::process::{Placement, machine};
use crate::support::report::{Better, CaseReport, Comparison, Figure};
use crate::support::server::Program;

/// memcached's default, which is more than its `-t 1` needs.
const THREADS: [&str; 2] = ["-t", "4"];

fn main() -> ExitCode {
    support::run("capacity", Options::parse(std::env::args().skip(1)), &Options::usage(), run)
}

fn run(options: &Options) -> Result<()> {
    let placement = Placement::choose()?.anywhere();
    let programs = [("memcached", &options.baseline), ("filbert", &options.candidate)].map(|(name, path)| {
        let memory = ["-m".to_owned(), options.mebibytes.to_string()];
        let flags = THREADS.map(str::to_owned).into_iter().chain(memory).collect();
        Program { flags, ..Program::new(name, path) }
    });
    let mut comparison = Comparison { facts: machine(), cases: Vec::new() };
    for (role, program) in ["baseline", "candidate"].into_iter().zip(&programs) {
        let version = program.start(&placement)?.version;
        comparison.facts.push((role, format!("{} {version}", program.name)));
    }
    comparison.facts.push(("memory", format!("-m {}", options.mebibytes)));
    for (key, value) in &comparison.facts {
        println!("{key:<10} {value}");
    }
    println!();
    let mut rows = vec![TABLE_HEAD.to_owned()];
    for load in loads::loads() {
        let is_wanted = |part: &String| load.iter().any(|phase| phase.name.contains(part.as_str()));
        if !options.wanted.is_empty() && !options.wanted.iter().any(is_wanted) {
            continue;
        }
        let held = [
            fill(&programs[0], &placement, &load, options)?,
            fill(&programs[1], &placement, &load, options)?,
        ];
        for (place, phase) in load.iter().enumerate() {
            let held = [held[0][place], held[1][place]];
            let report = report(&phase.name, held, options.mebibytes);
            println!("{}", report.table());
            rows.push(row(&phase.name, held, options.mebibytes));
            comparison.cases.push(report);
        }
    }
    println!("{}", rows.join("\n"));
    if let Some(path) = &options.json {
        comparison.write_json(path)?;
    }
    Ok(())
}

/// What a fresh server held after each fill.
fn fill(program: &Program, placement: &Placement, load: &[Phase], options: &Options) -> Result<Vec<Held>> {
    let server = program.start(placement)?;
    let mut filled = Filled::new(&server)?;
    load.iter().map(|phase| filled.run(phase, options.extent)).collect()
}

fn mebibytes_over(bytes: u64, mebibytes: u32) -> f64 {
    bytes as f64 / f64::from(1 << 20) - f64::from(mebibytes)
}

fn report(name: &str, held: [Held; 2], mebibytes: u32) -> CaseReport {
    let figure = |key, label, better, value: &dyn Fn(Held) -> f64| {
        let values = held.map(|held| Some(value(held)));
        Figure { key, label, better, values, ratio_noise: None }
    };
    CaseReport {
        name: name.to_owned(),
        sides: ["memcached".into(), "filbert".into()],
        figures: vec![
            figure("items_found", "items found", Better::Higher, &|held| held.found),
            figure("items_told", "items by stats", Better::Neither, &|held| held.told as f64),
            figure("keys_sent", "keys sent", Better::Neither, &|held| held.sent as f64),
            figure("refused_sets", "sets refused", Better::Neither, &|held| held.refused as f64),
            figure("resident_over_mebibytes", "resident over -m, MiB", Better::Neither, &|held| {
                mebibytes_over(held.resident_bytes, mebibytes)
            }),
            figure("file_mebibytes", "  pages of files", Better::Neither, &|held| {
                mebibytes_over(held.file_bytes, 0)
            }),
            figure("most_over_mebibytes", "  at most", Better::Neither, &|held| {
                mebibytes_over(held.most_bytes, mebibytes)
            }),
        ],
        summary_keys: &["items_found"],
    }
}

const TABLE_HEAD: &str = "\
| values | items in memcached (by stats) | in filbert (by stats) | ratio | memcached's memory over -m, MiB (at most; pages of files in it) | filbert's |
|---|---|---|---|---|---|";

fn row(name: &str, held: [Held; 2], mebibytes: u32) -> String {
    let items = held.map(|held| format!("{:.0} ({})", held.found, held.told));
    let memory = held.map(|held| {
        let over = |bytes| mebibytes_over(bytes, mebibytes);
        let files = mebibytes_over(held.file_bytes, 0);
        format!("{:+.1} ({:+.1}; {files:.1})", over(held.resident_bytes), over(held.most_bytes))
    });
    let ratio = held[1].found / held[0].found;
    format!("| {name} | {} | {} | {ratio:.2} | {} | {} |", items[0], items[1], memory[0], memory[1])
}

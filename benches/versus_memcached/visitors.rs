//! What clients cost that come for two gets and go, as those do that have no pool of connections.
//!
//! Nothing is pinned, and both servers have four threads: what several CPUs have to tell each other about memory that comes
//! and goes shows here.

use crate::matrix;
use crate::options::Options;
use crate::support::Result;
use crate::support::client::Client;
use crate::support::load::Keys;
use crate::support::measure::{self, Side};
use crate::support::process::{CpuTime, Placement};
use crate::support::report::{Better, CaseReport, Figure};
use crate::support::server::Program;

const FLAGS: [&str; 2] = ["-t", "4"];

/// Connections of one run. Each leaves a port in TIME_WAIT for a minute.
const VISITS: u32 = 2_000;

const GETS: u32 = 2;

/// What one connection takes of the server's CPU time, in microseconds.
pub fn compare(programs: &[Program; 2], placement: &Placement, options: &Options) -> Result<CaseReport> {
    let keys = matrix::keys(&options.load)?;
    placement.unpin()?;
    let anywhere = placement.anywhere();
    let with_flags =
        |program: &Program| Program { flags: FLAGS.map(str::to_owned).into(), ..program.clone() };
    let servers = [with_flags(&programs[0]).start(&anywhere)?, with_flags(&programs[1]).start(&anywhere)?];
    let sides = [servers[0].side(), servers[1].side()];
    for side in &sides {
        side.blamed(measure::preload(side.address, &keys, &options.load))?;
        side.blamed(visit(side, &keys))?;
    }
    let mut samples: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for repetition in 0..options.load.repetitions.min(5) {
        for turn in [0, 1] {
            let side = (turn + repetition) % 2;
            samples[side].push(sides[side].blamed(visit(&sides[side], &keys))?);
        }
    }
    Ok(CaseReport {
        name: "a connection for two gets".into(),
        figures: vec![Figure {
            key: "cpu_us_per_op",
            label: "server CPU, µs per connection",
            better: Better::Lower,
            values: samples.map(measure::median),
            ratio_noise: None,
        }],
        sides: sides.map(|side| side.name),
        summary_keys: &["cpu_us_per_op"],
    })
}

fn visit(side: &Side, keys: &Keys) -> Result<f64> {
    let before = CpuTime::of(side.pids[0])?;
    for visit in 0..VISITS {
        let mut client = Client::connect(&side.name, side.address)?;
        for get in 0..GETS {
            let wanted = [keys.key((visit * GETS + get) % keys.count())];
            client.put_gets(&wanted);
            client.send()?;
            let mut is_there = false;
            client.read_gets(&wanted, |_, _| {
                is_there = true;
                true
            })?;
            if !is_there {
                return Err("a stored key was missed".into());
            }
        }
    }
    let took = CpuTime::of(side.pids[0])?.since(before).total;
    Ok(took.as_secs_f64() * 1e6 / f64::from(VISITS))
}

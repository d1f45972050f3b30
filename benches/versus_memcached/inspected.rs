//! What separate short runs under `strace` and `perf` count, per operation.

use std::sync::Arc;

use crate::inspect;
use crate::support::Result;
use crate::support::case::Case;
use crate::support::load::{Keys, Load};
use crate::support::measure::{Side, run_hitting};
use crate::support::options::LoadOptions;
use crate::support::report::{Better, Figure};

/// These runs are this part of a measured one: their counts per operation hardly vary.
const INSPECTED_PART: u64 = 5;

/// Counts of the first process of each side, which holds the keys already.
pub fn figures(
    case: Case,
    sides: &[Side; 2],
    keys: &Arc<Keys>,
    options: &LoadOptions,
) -> Result<Vec<Figure>> {
    let mut inspected = [Inspected::default(), Inspected::default()];
    for (inspected, side) in inspected.iter_mut().zip(sides) {
        let load = options.load(case, side.address, keys);
        let operations = (load.operations / INSPECTED_PART).max(1);
        *inspected = side.blamed(Inspected::of(side.pids[0], &Load { operations, ..load }))?;
    }
    let figure = |key, label, value: &dyn Fn(&Inspected) -> Option<f64>| {
        let values = [value(&inspected[0]), value(&inspected[1])];
        Figure { key, label, better: Better::Lower, values, ratio_noise: None }
    };
    Ok(vec![
        figure("user_instructions_per_op", "instructions per op, user", &|i| Some(i.instructions?[0])),
        figure("system_instructions_per_op", "instructions per op, system", &|i| Some(i.instructions?[1])),
        figure("reads_per_op", "read calls per op", &|i| Some(i.syscalls?[0])),
        figure("writes_per_op", "write calls per op", &|i| Some(i.syscalls?[1])),
        figure("waits_per_op", "epoll_wait calls per op", &|i| Some(i.syscalls?[2])),
        figure("other_syscalls_per_op", "other system calls per op", &|i| Some(i.syscalls?[3])),
    ])
}

#[derive(Clone, Copy, Debug, Default)]
struct Inspected {
    /// User and system.
    instructions: Option<[f64; 2]>,
    /// Reads, writes, waits, others.
    syscalls: Option<[f64; 4]>,
}

impl Inspected {
    fn of(pid: u32, load: &Load) -> Result<Self> {
        let per_op = |count: u64| count as f64 / load.operations as f64;
        let run = || run_hitting(load).map(drop);
        Ok(Self {
            instructions: inspect::instructions(pid, run)?
                .map(|counted| [counted.user, counted.system].map(per_op)),
            syscalls: inspect::syscalls(pid, run)?
                .map(|counted| [counted.reads, counted.writes, counted.waits, counted.others].map(per_op)),
        })
    }
}

//! The same load on both servers, case by case.

use std::sync::Arc;

use crate::inspected;
use crate::options::Options;
use crate::support::Result;
use crate::support::case::Case;
use crate::support::load::{Dialect, Keys, Mix};
use crate::support::measure::{self, Side};
use crate::support::options::LoadOptions;
use crate::support::process::Placement;
use crate::support::report::CaseReport;
use crate::support::server::Program;

const SUMMARY_KEYS: &[&str] = &["throughput_kops", "latency_p99_us", "cpu_us_per_op", "user_us_per_op"];

/// memcached 1.6.18 gathers the replies to pipelined `set`, `mg` and `ms` into one write, but writes the reply to each
/// `get` by itself: only the meta cases compare what both servers do when both gather.
pub const MATRIX: [Case; 12] = [
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

/// Runs the cases of a matrix, as far as the options restrict it, and hands out each report as soon as it is there.
pub fn compare(
    programs: &[Program; 2],
    placement: &Placement,
    options: &Options,
    matrix: &[Case],
    add: &mut dyn FnMut(CaseReport),
) -> Result<()> {
    let keys = keys(&options.load)?;
    for case in options.load.cases(matrix) {
        // Fresh for each case: the kernel derives `utime` and `stime` from proportions over a process's whole life,
        // so an earlier case would leak into a later one's split.
        let servers = [programs[0].start(placement)?, programs[1].start(placement)?];
        let sides = [servers[0].side(), servers[1].side()];
        for side in &sides {
            side.blamed(measure::preload(side.address, &keys, &options.load))?;
        }
        add(compare_case(case, &sides, &keys, options)?);
    }
    Ok(())
}

pub fn keys(load: &LoadOptions) -> Result<Arc<Keys>> {
    Ok(Arc::new(Keys::choose(load.keyspace, load.key_bytes, |_| true)?))
}

fn compare_case(case: Case, sides: &[Side; 2], keys: &Arc<Keys>, options: &Options) -> Result<CaseReport> {
    let mut figures = measure::timed_figures(&measure::samples(case, sides, keys, &options.load)?);
    if options.inspect {
        figures.extend(inspected::figures(case, sides, keys, &options.load)?);
    }
    let names = sides.each_ref().map(|side| side.name.clone());
    Ok(CaseReport { name: case.name(), sides: names, figures, summary_keys: SUMMARY_KEYS })
}

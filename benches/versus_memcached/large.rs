//! Large values: what it costs to move bytes, where small ones tell what it costs to find an item.

use crate::matrix;
use crate::options::Options;
use crate::support::Result;
use crate::support::case::Case;
use crate::support::load::Mix;
use crate::support::process::Placement;
use crate::support::report::CaseReport;
use crate::support::server::Program;

/// Bytes of a value, how many keys there are, and operations of a run.
const VALUES: [(usize, u32, u64); 3] = [(10_000, 2_000, 20_000), (100_000, 200, 4_000), (900_000, 40, 600)];

const MATRIX: [Case; 6] = [
    Case::classic(Mix::GET, 1),
    Case::classic(Mix::GET, 16),
    Case::classic(Mix::SET, 1),
    Case::classic(Mix::SET, 16),
    Case::classic(Mix::SET_1_GET_10, 1),
    Case::classic(Mix::SET_1_GET_10, 16),
];

/// Each has room for all the replies of a batch, here and in the servers.
const CONNECTIONS: usize = 8;

pub fn compare(
    programs: &[Program; 2],
    placement: &Placement,
    options: &Options,
    add: &mut dyn FnMut(CaseReport),
) -> Result<()> {
    for (value_bytes, keyspace, operations) in VALUES {
        let mut options = options.clone();
        options.inspect = false;
        options.load.value_bytes = value_bytes;
        options.load.keyspace = keyspace;
        options.load.full_operations = [operations; 2];
        options.load.connections = CONNECTIONS;
        matrix::compare(programs, placement, &options, &MATRIX, &mut |report| {
            let name = format!("{} KB: {}", value_bytes / 1000, report.name);
            add(CaseReport { name, ..report });
        })?;
    }
    Ok(())
}

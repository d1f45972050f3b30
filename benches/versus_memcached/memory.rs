//! Resident memory per item: fresh servers, filled with items of one size.

use std::sync::Arc;

use crate::options::Options;
use crate::support::Result;
use crate::support::load::{Dialect, Keys, Load, Mix, Order};
use crate::support::process::{Placement, settled_bytes};
use crate::support::report::{Better, CaseReport, Figure};
use crate::support::server::Program;

const VALUE_BYTES: [usize; 3] = [8, 100, 1000];
const KEY_BYTES: usize = 16;

/// What one fresh server held after the fill.
#[derive(Clone, Copy, Debug)]
struct Held {
    items: u64,
    refused: u64,
    /// Memory beyond that of the idle server.
    bytes: u64,
}

impl Held {
    fn bytes_per_item(self) -> f64 {
        self.bytes as f64 / self.items.max(1) as f64
    }
}

/// One report for each value size. At 1M items the largest size exceeds the budget of the servers' flags, so they evict:
/// the figures are of the items still held.
pub fn compare(programs: &[Program; 2], placement: &Placement, options: &Options) -> Result<Vec<CaseReport>> {
    let keys = Arc::new(Keys::choose(options.memory_items, KEY_BYTES, |_| true)?);
    VALUE_BYTES
        .iter()
        .map(|&value_bytes| {
            let held = [
                fill(&programs[0], placement, &keys, value_bytes, options)?,
                fill(&programs[1], placement, &keys, value_bytes, options)?,
            ];
            Ok(report(programs.each_ref().map(|program| program.name.clone()), value_bytes, held))
        })
        .collect()
}

fn fill(
    program: &Program,
    placement: &Placement,
    keys: &Arc<Keys>,
    value_bytes: usize,
    options: &Options,
) -> Result<Held> {
    let server = program.start(placement)?;
    let idle = settled_bytes(server.pid())?;
    let load = Load {
        addresses: vec![server.address],
        connections: options.load.connections,
        pipeline: 16,
        mix: Mix::SET,
        dialect: Dialect::Classic,
        order: Order::Sequential,
        keys: Arc::clone(keys),
        value_bytes,
        operations: u64::from(options.memory_items),
    };
    let filled = load.run().map_err(|error| format!("{}: {error}", program.name))?;
    let full = settled_bytes(server.pid())?;
    Ok(Held { items: server.items()?, refused: filled.refusals, bytes: full.saturating_sub(idle) })
}

fn report(sides: [String; 2], value_bytes: usize, held: [Held; 2]) -> CaseReport {
    let figure = |key, label, better, value: &dyn Fn(Held) -> f64| {
        let values = held.map(|held| Some(value(held)));
        Figure { key, label, better, values, ratio_noise: None }
    };
    let payload = (KEY_BYTES + value_bytes) as f64;
    CaseReport {
        name: format!("memory, {value_bytes}-byte values"),
        sides,
        figures: vec![
            figure("items_held", "items held", Better::Higher, &|held| held.items as f64),
            figure("refused_sets", "sets refused", Better::Neither, &|held| held.refused as f64),
            figure(
                "resident_bytes_per_item",
                "resident bytes per item",
                Better::Lower,
                &Held::bytes_per_item,
            ),
            figure("overhead_bytes_per_item", "  beyond key and value", Better::Lower, &|held| {
                held.bytes_per_item() - payload
            }),
            figure("resident_mebibytes", "resident growth, MiB", Better::Neither, &|held| {
                held.bytes as f64 / f64::from(1 << 20)
            }),
        ],
        summary_keys: &["items_held", "resident_bytes_per_item", "overhead_bytes_per_item"],
    }
}

//! What is put into a server: keys, sizes of values, and in which order.

use crate::support::load::{GOLDEN, mixed};

pub const KEY_BYTES: usize = 16;

/// No value is longer. Facebook's largest are 1 MB, but so rare that a single one would decide a small run.
pub const LONGEST_VALUE_BYTES: usize = 64 << 10;

/// Sizes of values in Facebook's pool ETC: a generalized Pareto distribution. From Atikoglu et al., "Workload Analysis of
/// a Large-Scale Key-Value Store" (SIGMETRICS 2012), section 5.
const ETC_SCALE: f64 = 214.476;
const ETC_SHAPE: f64 = 0.348_238;

/// How long values are.
#[derive(Clone, Copy, Debug)]
pub enum Sizes {
    Same(usize),
    Etc,
}

/// One fill.
#[derive(Clone, Debug)]
pub struct Phase {
    pub name: String,
    pub sizes: Sizes,
    /// Sends `flush_all` before.
    pub flushes: bool,
    /// Goes down from the newest key of the fill before, over what a server holds of it.
    pub newest_first: bool,
}

impl Phase {
    fn new(name: &str, sizes: Sizes) -> Self {
        Self { name: name.to_owned(), sizes, flushes: false, newest_first: false }
    }
}

/// Each begins with a fresh server; its fills follow each other there.
pub fn loads() -> Vec<Vec<Phase>> {
    let same = [8, 32, 100, 500, 1000, 4000];
    let mut loads: Vec<Vec<Phase>> =
        same.iter().map(|&bytes| vec![Phase::new(&format!("{bytes} bytes"), Sizes::Same(bytes))]).collect();
    loads.push(vec![Phase::new("like ETC", Sizes::Etc)]);
    loads.push(vec![
        Phase::new("resized: 8 bytes", Sizes::Same(8)),
        Phase { newest_first: true, ..Phase::new("resized: then 1000", Sizes::Same(1000)) },
        Phase::new("resized: then 8", Sizes::Same(8)),
    ]);
    loads.push(vec![
        Phase::new("flushed: 100 bytes", Sizes::Same(100)),
        Phase { flushes: true, ..Phase::new("flushed: refilled", Sizes::Same(100)) },
    ]);
    loads
}

impl Sizes {
    /// Of the value of a key: the same for every server and in every run.
    pub fn value_bytes(self, number: u64) -> usize {
        match self {
            Self::Same(bytes) => bytes,
            Self::Etc => {
                // The 53 bits of a number's fraction, from 0 up to 1, of which this is the part of shorter values.
                let part = (mixed((!number).wrapping_mul(GOLDEN)) >> 11) as f64 / (1_u64 << 53) as f64;
                let bytes = ETC_SCALE / ETC_SHAPE * ((1.0 - part).powf(-ETC_SHAPE) - 1.0);
                (bytes as usize).clamp(1, LONGEST_VALUE_BYTES)
            }
        }
    }
}

/// Different for different numbers.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mixed = mixed(number.wrapping_mul(GOLDEN));
    std::array::from_fn(|place| b"0123456789abcdef"[(mixed >> (4 * place)) as usize & 0xf])
}

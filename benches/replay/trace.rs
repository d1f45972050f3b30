//! Traces: what clients once asked for, in its order.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::support::Result;

/// What a trace's file is called, without this ending.
const ENDING: &str = ".txt.gz";

/// A trace whose sizes are made up has objects of one size: at a small `-m`, slab classes decide the result else.
const SAME_BYTES: u32 = 256;

/// How large objects are, key and value together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    Recorded,
    Same(u32),
}

/// What is known of a trace by its name.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    name: &'static str,
    pub title: &'static str,
    pub sizes: Sizes,
    /// Sizes of a cache to replay it with.
    pub mebibytes: &'static [u32],
}

/// From a cache that is far too small for a trace to one that holds nearly all of it.
const KINDS: [Kind; 5] = [
    Kind {
        name: "scarab_recs",
        title: "Scarab, recommendations",
        sizes: Sizes::Same(SAME_BYTES),
        mebibytes: &[4, 8, 16, 32, 64],
    },
    Kind {
        name: "arc_oltp",
        title: "OLTP, a database's pages",
        sizes: Sizes::Same(SAME_BYTES),
        mebibytes: &[2, 4, 8, 16, 32],
    },
    Kind {
        name: "orm_busy_2m",
        title: "ORM cache, busy hours",
        sizes: Sizes::Same(SAME_BYTES),
        mebibytes: &[1, 2, 4, 8, 16],
    },
    Kind {
        name: "cache2k_web12",
        title: "Web shop",
        sizes: Sizes::Same(SAME_BYTES),
        mebibytes: &[1, 2, 3, 4, 6],
    },
    Kind {
        name: "twitter_cluster52",
        title: "Twitter, cluster 52",
        sizes: Sizes::Recorded,
        mebibytes: &[2, 4, 8, 16, 32, 64],
    },
];

const UNKNOWN: Kind = Kind { name: "", title: "", sizes: Sizes::Recorded, mebibytes: &[8, 16, 32, 64] };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Place among the trace's keys.
    pub key: u32,
    pub value_bytes: u32,
}

#[derive(Debug)]
pub struct Trace {
    pub title: String,
    pub sizes: Sizes,
    /// Sizes of a cache to replay it with.
    pub mebibytes: &'static [u32],
    pub keys: Vec<String>,
    pub requests: Vec<Request>,
}

/// Names of the traces in a directory.
pub fn names(directory: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut names = Vec::new();
    for file in files {
        names
            .extend(file?.file_name().to_str().and_then(|name| name.strip_suffix(ENDING)).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

impl Trace {
    /// Reads a file of lines of a key, its size in bytes with the key, and a time, which is not needed.
    pub fn read(directory: &Path, name: &str, sizes: Option<Sizes>) -> Result<Self> {
        let path = directory.join(format!("{name}{ENDING}"));
        let wrong = |what: &str| format!("{}: {what}", path.display());
        let kind = KINDS.into_iter().find(|kind| kind.name == name).unwrap_or(UNKNOWN);
        let mut trace = Self {
            title: if kind.title.is_empty() { name } else { kind.title }.to_owned(),
            sizes: sizes.unwrap_or(kind.sizes),
            mebibytes: kind.mebibytes,
            keys: Vec::new(),
            requests: Vec::new(),
        };
        let file = File::open(&path).map_err(|error| wrong(&error.to_string()))?;
        let mut places: HashMap<String, u32> = HashMap::new();
        for line in BufReader::new(MultiGzDecoder::new(file)).lines() {
            let line = line.map_err(|error| wrong(&error.to_string()))?;
            let mut words = line.split_ascii_whitespace();
            let (Some(key), Some(bytes)) = (words.next(), words.next()) else {
                return Err(wrong("a line without key and size").into());
            };
            let recorded: u32 = bytes.parse().map_err(|_| wrong("a line with a wrong size"))?;
            let bytes = match trace.sizes {
                Sizes::Recorded => recorded,
                Sizes::Same(bytes) => bytes,
            };
            let value_bytes = bytes.saturating_sub(key.len() as u32);
            let key = *places.entry(key.to_owned()).or_insert_with(|| {
                trace.keys.push(key.to_owned());
                trace.keys.len() as u32 - 1
            });
            trace.requests.push(Request { key, value_bytes });
        }
        if trace.requests.is_empty() { Err(wrong("it has no requests").into()) } else { Ok(trace) }
    }

    /// Of key and value together.
    pub fn bytes(&self, request: Request) -> u64 {
        self.keys[request.key as usize].len() as u64 + u64::from(request.value_bytes)
    }

    pub fn description(&self) -> String {
        let sizes = match self.sizes {
            Sizes::Recorded => "sizes as recorded".to_owned(),
            Sizes::Same(bytes) => format!("objects of {bytes} bytes"),
        };
        format!("{} requests of {} keys, {sizes}", self.requests.len(), self.keys.len())
    }
}

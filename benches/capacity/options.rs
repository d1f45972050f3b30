//! The command line.

use std::path::PathBuf;

use crate::fill::Extent;
use crate::support::Result;

const MEBIBYTES: u32 = 64;

/// Items that are sent, in sizes of the cache.
const FILL: u64 = 3;

/// A tenth of what is sent is held, or more: this finds 100,000 items, which tells their number to a third of a percent.
const SAMPLE: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct Options {
    pub mebibytes: u32,
    pub extent: Extent,
    /// Only loads with one of these in their names.
    pub wanted: Vec<String>,
    pub json: Option<PathBuf>,
    pub baseline: PathBuf,
    pub candidate: PathBuf,
}

impl Options {
    /// None when help was asked for.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let built = option_env!("CARGO_BIN_EXE_filbert").map(PathBuf::from);
        let mut candidate = built.or_else(|| std::env::var_os("FILBERT_BIN").map(PathBuf::from));
        let (mut baseline, mut json) = (PathBuf::from("memcached"), None);
        let (mut mebibytes, mut fill, mut sample) = (MEBIBYTES, FILL, SAMPLE);
        let mut wanted = Vec::new();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--memory" => mebibytes = value()?.parse()?,
                "--fill" => fill = value()?.parse()?,
                "--sample" => sample = value()?.parse()?,
                "--load" => wanted.push(value()?),
                "--json" => json = Some(value()?.into()),
                "--memcached" => baseline = value()?.into(),
                "--filbert" => candidate = Some(value()?.into()),
                // Such as `--bench`, or a filter meant for another bench.
                _ => {}
            }
        }
        if mebibytes < 2 || fill == 0 || sample == 0 {
            return Err("--memory must be 2 or more, --fill and --sample 1 or more".into());
        }
        let candidate = candidate.ok_or("no filbert: give --filbert PATH or FILBERT_BIN")?;
        let extent = Extent { fill_bytes: (u64::from(mebibytes) << 20) * fill, sample };
        Ok(Some(Self { mebibytes, extent, wanted, json, baseline, candidate }))
    }

    pub fn usage() -> String {
        format!(
            "\
cargo bench --bench capacity -- [OPTIONS]

  --memory M           -m of both servers, in MiB (default {MEBIBYTES})
  --fill N             send items of N times that size (default {FILL})
  --sample N           keys to read back, to count what is held (default {SAMPLE})
  --load NAME          only loads with this in their name; may be repeated
  --json FILE          write the figures there as well
  --memcached PATH     the baseline (default: memcached from PATH)
  --filbert PATH       the candidate (default: the one cargo built, else $FILBERT_BIN)
"
        )
    }
}

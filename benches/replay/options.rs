//! The command line.

use std::path::{Path, PathBuf};

use crate::run::Pace;
use crate::support::Result;
use crate::support::server::Program;
use crate::trace::Sizes;

/// memcached moves memory between its slab classes by the clock, so the rate decides a little of what it holds.
const REQUESTS_PER_SECOND: f64 = 100_000.0;

const BATCH: usize = 50;

#[derive(Clone, Debug)]
pub struct Options {
    pub traces: PathBuf,
    /// Only the traces with one of these in their names.
    pub wanted: Vec<String>,
    /// None for what suits each trace.
    pub mebibytes: Option<Vec<u32>>,
    /// None for what suits each trace.
    pub sizes: Option<Sizes>,
    pub pace: Pace,
    /// Where plots go.
    pub plots: Option<PathBuf>,
    pub servers: Vec<Program>,
}

impl Options {
    /// None when help was asked for.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let built = option_env!("CARGO_BIN_EXE_filbert").map(PathBuf::from);
        let mut filbert = built.or_else(|| std::env::var_os("FILBERT_BIN").map(PathBuf::from));
        let mut memcached = PathBuf::from("memcached");
        let mut others: Vec<Program> = Vec::new();
        let mut traces = None;
        let pace = Pace { requests_per_second: REQUESTS_PER_SECOND, batch: BATCH };
        let mut options = Self {
            traces: PathBuf::new(),
            wanted: Vec::new(),
            mebibytes: None,
            sizes: None,
            pace,
            plots: None,
            servers: Vec::new(),
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--traces" => traces = Some(PathBuf::from(value()?)),
                "--trace" => options.wanted.push(value()?),
                "--memory" => options.mebibytes = Some(numbers(&value()?)?),
                "--size" => options.sizes = Some(sizes(&value()?)?),
                "--rate" => options.pace.requests_per_second = value()?.parse()?,
                "--batch" => options.pace.batch = value()?.parse()?,
                "--plots" => options.plots = Some(value()?.into()),
                "--memcached" => memcached = value()?.into(),
                "--filbert" => filbert = Some(value()?.into()),
                "--server" => others.push(program(&value()?)?),
                // Such as `--bench`, or a filter meant for another bench.
                _ => {}
            }
        }
        options.traces = traces.ok_or("no traces: give --traces DIR")?;
        if !options.pace.requests_per_second.is_normal() || options.pace.batch == 0 {
            return Err("--rate and --batch must be more than 0".into());
        }
        let filbert = filbert.ok_or("no filbert: give --filbert PATH or FILBERT_BIN")?;
        options.servers = vec![Program::new("memcached", &memcached), Program::new("filbert", &filbert)];
        options.servers.extend(others);
        Ok(Some(options))
    }

    pub fn usage() -> String {
        format!(
            "\
cargo bench --bench replay -- --traces DIR [OPTIONS]

  --traces DIR         where the traces are: gzip, each line a key, its size in bytes with the key, a time
  --trace NAME         only traces with this in their name; may be repeated
  --memory M,N,...     sizes of the cache in MiB (default: what suits the trace)
  --size BYTES         all objects have this size, with the key; \"recorded\" for the sizes of the trace
                       (default: what suits the trace)
  --rate N             requests a second (default {REQUESTS_PER_SECOND})
  --batch N            requests that go together (default {BATCH})
  --plots DIR          write a plot of each trace there, NAME.svg
  --memcached PATH     (default: memcached from PATH)
  --filbert PATH       (default: the one cargo built, else $FILBERT_BIN)
  --server NAME=PATH   one more server; may be repeated
"
        )
    }
}

fn numbers(text: &str) -> Result<Vec<u32>> {
    let numbers: Vec<u32> = text.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
    if numbers.contains(&0) { Err("--memory must be more than 0".into()) } else { Ok(numbers) }
}

fn sizes(text: &str) -> Result<Sizes> {
    Ok(if text == "recorded" { Sizes::Recorded } else { Sizes::Same(text.parse()?) })
}

fn program(text: &str) -> Result<Program> {
    let (name, path) = text.split_once('=').ok_or("--server takes NAME=PATH")?;
    Ok(Program::new(name, Path::new(path)))
}

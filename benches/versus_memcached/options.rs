//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::Result;
use crate::support::load::{Dialect, Mix};

pub const USAGE: &str = "\
cargo bench --bench versus_memcached -- [OPTIONS]

  --quick              short runs: a smoke test, not a measurement
  --repetitions N      runs of each server in each case (default 15)
  --connections N      (default 50)
  --key-bytes N        (default 16)
  --value-bytes N      (default 100)
  --keyspace N         number of different keys (default 100000)
  --ops N              operations in a run (default 100000 with pipeline 1, 400000 with more)
  --mix M              only this mix: get, set, or SETS:GETS such as 1:10
  --meta               only meta commands: mg and ms for get and set
  --pipeline N         only this pipeline
  --no-memory          leave out memory per item
  --no-inspection      leave out the runs under strace and perf
  --no-matrix          leave out everything but memory per item
  --json FILE          write the figures there as well
  --memcached PATH     the baseline (default: memcached from PATH)
  --filbert PATH       the candidate (default: the one cargo built, else $FILBERT_BIN)
  --self               compare the baseline with itself: shows the noise
  --drive HOST:PORT    only put load on a server that runs already (with --pid N: show its CPU time)
  --no-preload         with --drive: the keys are there already
";

/// Operations of a run: a quarter to two seconds on the machine these were chosen on. Many short runs in turn spread what
/// else the machine does over both servers; few long ones do not.
const OPERATIONS_UNPIPELINED: u64 = 100_000;
const OPERATIONS_PIPELINED: u64 = 400_000;

/// A quick run is this part of a full one.
const QUICK_PART: u32 = 20;

#[derive(Clone, Debug)]
pub struct Options {
    pub repetitions: usize,
    pub connections: usize,
    pub key_bytes: usize,
    pub value_bytes: usize,
    pub keyspace: u32,
    /// Restrict the matrix; together they may also name a case that is not in it.
    pub mix: Option<Mix>,
    pub dialect: Option<Dialect>,
    pub pipeline: Option<usize>,
    pub matrix: bool,
    pub memory: bool,
    pub memory_items: u32,
    pub inspect: bool,
    pub json: Option<PathBuf>,
    pub baseline: PathBuf,
    /// None for the baseline once more.
    pub candidate: Option<PathBuf>,
    pub against_itself: bool,
    pub drive: Option<SocketAddr>,
    pub pid: Option<u32>,
    pub preload: bool,
    quick: bool,
    operations: Option<u64>,
}

impl Options {
    /// None when help was asked for.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let built = option_env!("CARGO_BIN_EXE_filbert").map(PathBuf::from);
        let mut options = Self {
            repetitions: 15,
            connections: 50,
            key_bytes: 16,
            value_bytes: 100,
            keyspace: 100_000,
            mix: None,
            dialect: None,
            pipeline: None,
            matrix: true,
            memory: true,
            memory_items: 1_000_000,
            inspect: true,
            json: None,
            baseline: "memcached".into(),
            candidate: built.or_else(|| std::env::var_os("FILBERT_BIN").map(PathBuf::from)),
            against_itself: false,
            drive: None,
            pid: None,
            preload: true,
            quick: false,
            operations: None,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value"));
            let wrong = |error: &dyn std::fmt::Display| format!("{name}: {error}");
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--quick" => options.quick = true,
                "--repetitions" => options.repetitions = value()?.parse().map_err(|error| wrong(&error))?,
                "--connections" => options.connections = value()?.parse().map_err(|error| wrong(&error))?,
                "--key-bytes" => options.key_bytes = value()?.parse().map_err(|error| wrong(&error))?,
                "--value-bytes" => options.value_bytes = value()?.parse().map_err(|error| wrong(&error))?,
                "--keyspace" => options.keyspace = value()?.parse().map_err(|error| wrong(&error))?,
                "--ops" => options.operations = Some(value()?.parse().map_err(|error| wrong(&error))?),
                "--mix" => options.mix = Some(parse_mix(&value()?)?),
                "--meta" => options.dialect = Some(Dialect::Meta),
                "--pipeline" => options.pipeline = Some(value()?.parse().map_err(|error| wrong(&error))?),
                "--no-matrix" => options.matrix = false,
                "--no-memory" => options.memory = false,
                "--no-inspection" => options.inspect = false,
                "--json" => options.json = Some(value()?.into()),
                "--memcached" => options.baseline = value()?.into(),
                "--filbert" => options.candidate = Some(value()?.into()),
                "--self" => options.against_itself = true,
                "--drive" => {
                    options.drive = value()?.to_socket_addrs().map_err(|error| wrong(&error))?.next()
                }
                "--pid" => options.pid = Some(value()?.parse().map_err(|error| wrong(&error))?),
                "--no-preload" => options.preload = false,
                // Such as `--bench`, or a filter meant for another bench.
                _ => {}
            }
        }
        if options.quick {
            options.repetitions = options.repetitions.min(3);
            options.memory_items /= QUICK_PART;
        }
        if options.repetitions == 0 {
            return Err("--repetitions must be 1 or more".into());
        }
        Ok(Some(options))
    }

    /// Operations of one run.
    pub fn operations(&self, pipeline: usize) -> u64 {
        let full = if pipeline == 1 { OPERATIONS_UNPIPELINED } else { OPERATIONS_PIPELINED };
        self.operations.unwrap_or(if self.quick { full / u64::from(QUICK_PART) } else { full })
    }
}

fn parse_mix(text: &str) -> Result<Mix> {
    match text {
        "get" => Ok(Mix::GET),
        "set" => Ok(Mix::SET),
        _ => {
            let (sets, gets) = text.split_once(':').ok_or("--mix takes get, set or SETS:GETS")?;
            let mix = Mix { sets: sets.parse()?, gets: gets.parse()? };
            if mix.sets == 0 && mix.gets == 0 { Err("--mix 0:0 sends nothing".into()) } else { Ok(mix) }
        }
    }
}

//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use crate::support::Result;
use crate::support::options::{LoadOptions, QUICK_PART};

/// Operations of a run: a quarter to two seconds on the machine these were chosen on. Many short runs in turn spread what
/// else the machine does over both servers; few long ones do not.
const OPERATIONS_UNPIPELINED: u64 = 100_000;
const OPERATIONS_PIPELINED: u64 = 400_000;
const REPETITIONS: usize = 15;

#[derive(Clone, Debug)]
pub struct Options {
    pub load: LoadOptions,
    pub matrix: bool,
    pub large: bool,
    pub visitors: bool,
    pub fairness: bool,
    pub buffers: bool,
    pub memory: bool,
    pub memory_items: u32,
    pub inspect: bool,
    pub json: Option<PathBuf>,
    pub baseline: PathBuf,
    /// None for the baseline once more.
    pub candidate: Option<PathBuf>,
    pub against_itself: bool,
    /// Compare the candidate with itself, unwatched and scraped.
    pub watched: bool,
    pub drive: Option<SocketAddr>,
    pub pid: Option<u32>,
    pub preload: bool,
}

impl Options {
    /// None when help was asked for.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut options = Self::new();
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value").into());
            if options.load.take(&name, &mut value)? {
                continue;
            }
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--no-matrix" => options.matrix = false,
                "--no-large" => options.large = false,
                "--large" => options.only(|options| &mut options.large),
                "--no-visitors" => options.visitors = false,
                "--visitors" => options.only(|options| &mut options.visitors),
                "--no-fairness" => options.fairness = false,
                "--fairness" => options.only(|options| &mut options.fairness),
                "--no-buffers" => options.buffers = false,
                "--buffers" => options.only(|options| &mut options.buffers),
                "--no-memory" => options.memory = false,
                "--no-inspection" => options.inspect = false,
                "--json" => options.json = Some(value()?.into()),
                "--memcached" => options.baseline = value()?.into(),
                "--filbert" => options.candidate = Some(value()?.into()),
                "--self" => options.against_itself = true,
                "--watched" => options.watched = true,
                "--drive" => options.drive = value()?.to_socket_addrs()?.next(),
                "--pid" => options.pid = Some(value()?.parse()?),
                "--no-preload" => options.preload = false,
                // Such as `--bench`, or a filter meant for another bench.
                _ => {}
            }
        }
        options.load.settle()?;
        if options.load.quick {
            options.memory_items /= QUICK_PART;
        }
        Ok(Some(options))
    }

    pub fn usage() -> String {
        format!(
            "\
cargo bench --bench versus_memcached -- [OPTIONS]

{}  --no-memory          leave out memory per item
  --no-large           leave out values of 10 to 900 KB, which come in numbers of their own
  --large              nothing but that
  --no-visitors        leave out clients that come for two gets and go
  --visitors           nothing but that
  --no-fairness        leave out what other clients notice of busy ones
  --fairness           nothing but that
  --no-buffers         leave out resident memory with half-sent sets and with slow readers
  --buffers            nothing but that (5 repetitions at most)
  --no-inspection      leave out the runs under strace and perf
  --no-matrix          leave out the cases of the matrix
  --json FILE          write the figures there as well
  --memcached PATH     the baseline (default: memcached from PATH)
  --filbert PATH       the candidate (default: the one cargo built, else $FILBERT_BIN)
  --self               compare the baseline with itself: shows the noise
  --watched            compare filbert without HTTP with itself when its metrics are scraped every second
  --drive HOST:PORT    only put load on a server that runs already (with --pid N: show its CPU time)
  --no-preload         with --drive: the keys are there already
",
            Self::new().load.usage()
        )
    }

    /// Leaves out every part but one.
    fn only(&mut self, part: fn(&mut Self) -> &mut bool) {
        (self.matrix, self.large, self.visitors) = (false, false, false);
        (self.fairness, self.buffers, self.memory) = (false, false, false);
        *part(self) = true;
    }

    fn new() -> Self {
        let built = option_env!("CARGO_BIN_EXE_filbert").map(PathBuf::from);
        Self {
            load: LoadOptions::new(REPETITIONS, [OPERATIONS_UNPIPELINED, OPERATIONS_PIPELINED]),
            matrix: true,
            large: true,
            visitors: true,
            fairness: true,
            buffers: true,
            memory: true,
            memory_items: 1_000_000,
            inspect: true,
            json: None,
            baseline: "memcached".into(),
            candidate: built.or_else(|| std::env::var_os("FILBERT_BIN").map(PathBuf::from)),
            against_itself: false,
            watched: false,
            drive: None,
            pid: None,
            preload: true,
        }
    }
}

//! The command line.

use std::path::PathBuf;

use crate::support::Result;
use crate::support::load::Dialect;
use crate::support::options::LoadOptions;

/// Operations of a run: half a second or so on the machine these were chosen on. The whole then takes less than three
/// minutes, even when others use the machine.
const OPERATIONS_UNPIPELINED: u64 = 20_000;
const OPERATIONS_PIPELINED: u64 = 80_000;
const REPETITIONS: usize = 9;

/// Of 1 to 4, the number with which nutcracker and memcached take the least CPU time per operation.
const SERVER_CONNECTIONS: usize = 1;

/// nutcracker's default. Smaller ones suit small values better: 1024 saved it a quarter of the CPU time of pipelined gets.
const MBUF_BYTES: usize = 16_384;

#[derive(Clone, Debug)]
pub struct Options {
    pub load: LoadOptions,
    pub forwarding: bool,
    pub local: bool,
    /// Only put load on the two nodes.
    pub drive: bool,
    pub json: Option<PathBuf>,
    pub memcached: PathBuf,
    pub nutcracker: PathBuf,
    pub etcd: PathBuf,
    pub filbert: PathBuf,
    /// nutcracker's `server_connections`.
    pub server_connections: usize,
    /// nutcracker's `--mbuf-size`.
    pub mbuf_bytes: usize,
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
                "--no-forwarding" => options.forwarding = false,
                "--no-local" => options.local = false,
                "--drive" => options.drive = true,
                "--json" => options.json = Some(value()?.into()),
                "--memcached" => options.memcached = value()?.into(),
                "--nutcracker" => options.nutcracker = value()?.into(),
                "--etcd" => options.etcd = value()?.into(),
                "--filbert" => options.filbert = value()?.into(),
                "--server-connections" => options.server_connections = value()?.parse()?,
                "--mbuf-bytes" => options.mbuf_bytes = value()?.parse()?,
                // Such as `--bench`, or a filter meant for another bench.
                _ => {}
            }
        }
        options.load.settle()?;
        let compares = options.forwarding && !options.drive;
        if compares && options.load.dialect.is_some_and(|dialect| dialect != Dialect::Classic) {
            let why = "nutcracker speaks classic commands alone: --meta and --binary go with --drive or \
                       --no-forwarding";
            return Err(why.into());
        }
        Ok(Some(options))
    }

    pub fn usage() -> String {
        format!(
            "\
cargo bench --bench forwarding -- [OPTIONS]

{}  --no-forwarding      leave out the comparison with nutcracker
  --no-local           leave out the comparison of a single node with one of three
  --json FILE          write the figures there as well
  --filbert PATH       (default: the one cargo built)
  --memcached PATH     (default: memcached from PATH)
  --nutcracker PATH    (default: nutcracker from PATH)
  --etcd PATH          (default: etcd from PATH)
  --server-connections N   nutcracker's, to a server (default {SERVER_CONNECTIONS})
  --mbuf-bytes N           nutcracker's --mbuf-size (default {MBUF_BYTES})
  --drive              only put load on the two nodes, for a profiler to watch; tells their process ids.
                       With --no-forwarding, on one of three nodes, for its own keys
",
            Self::new().load.usage()
        )
    }

    fn new() -> Self {
        let built = option_env!("CARGO_BIN_EXE_filbert").unwrap_or("filbert");
        Self {
            load: LoadOptions::new(REPETITIONS, [OPERATIONS_UNPIPELINED, OPERATIONS_PIPELINED]),
            forwarding: true,
            local: true,
            drive: false,
            json: None,
            memcached: "memcached".into(),
            nutcracker: "nutcracker".into(),
            etcd: "etcd".into(),
            filbert: built.into(),
            server_connections: SERVER_CONNECTIONS,
            mbuf_bytes: MBUF_BYTES,
        }
    }
}

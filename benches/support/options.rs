//! The part of a command line that says what load to put on.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::Result;
use crate::support::case::Case;
use crate::support::load::{Dialect, Keys, Load, Mix, Order};

/// A quick run is this part of a full one.
pub const QUICK_PART: u32 = 20;

/// A quick run has no more repetitions than this.
const QUICK_REPETITIONS: usize = 3;

#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub repetitions: usize,
    pub connections: usize,
    pub key_bytes: usize,
    pub value_bytes: usize,
    pub keyspace: u32,
    /// Restrict the matrix; together they may also name a case that is not in it.
    pub mix: Option<Mix>,
    pub dialect: Option<Dialect>,
    pub pipeline: Option<usize>,
    pub quick: bool,
    /// Operations of one run with a pipeline of 1, and with a longer one.
    pub full_operations: [u64; 2],
    operations: Option<u64>,
}

impl LoadOptions {
    pub fn new(repetitions: usize, full_operations: [u64; 2]) -> Self {
        Self {
            repetitions,
            connections: 50,
            key_bytes: 16,
            value_bytes: 100,
            keyspace: 100_000,
            mix: None,
            dialect: None,
            pipeline: None,
            quick: false,
            full_operations,
            operations: None,
        }
    }

    /// The help for what [`Self::take`] knows, with the defaults of these options.
    pub fn usage(&self) -> String {
        let [unpipelined, pipelined] = self.full_operations;
        format!(
            "  --quick              short runs: a smoke test, not a measurement
  --repetitions N      runs of each side in each case (default {})
  --connections N      (default {})
  --key-bytes N        (default {})
  --value-bytes N      (default {})
  --keyspace N         number of different keys (default {})
  --ops N              operations in a run (default {unpipelined} with pipeline 1, {pipelined} with more)
  --mix M              only this mix: get, set, or SETS:GETS such as 1:10
  --meta               only meta commands: mg and ms for get and set
  --binary             only the binary protocol
  --pipeline N         only this pipeline
",
            self.repetitions, self.connections, self.key_bytes, self.value_bytes, self.keyspace
        )
    }

    /// Takes in the option `name`; false when it is not about the load.
    pub fn take(&mut self, name: &str, value: &mut dyn FnMut() -> Result<String>) -> Result<bool> {
        let wrong = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        match name {
            "--quick" => self.quick = true,
            "--repetitions" => self.repetitions = value()?.parse().map_err(|error| wrong(&error))?,
            "--connections" => self.connections = value()?.parse().map_err(|error| wrong(&error))?,
            "--key-bytes" => self.key_bytes = value()?.parse().map_err(|error| wrong(&error))?,
            "--value-bytes" => self.value_bytes = value()?.parse().map_err(|error| wrong(&error))?,
            "--keyspace" => self.keyspace = value()?.parse().map_err(|error| wrong(&error))?,
            "--ops" => self.operations = Some(value()?.parse().map_err(|error| wrong(&error))?),
            "--mix" => self.mix = Some(parse_mix(&value()?)?),
            "--meta" => self.dialect = Some(Dialect::Meta),
            "--binary" => self.dialect = Some(Dialect::Binary),
            "--pipeline" => self.pipeline = Some(value()?.parse().map_err(|error| wrong(&error))?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// To be called when all options are taken in.
    pub fn settle(&mut self) -> Result<()> {
        if self.quick {
            self.repetitions = self.repetitions.min(QUICK_REPETITIONS);
        }
        if self.repetitions == 0 { Err("--repetitions must be 1 or more".into()) } else { Ok(()) }
    }

    /// One line for the head of a report.
    pub fn description(&self) -> String {
        format!(
            "{} connections, {}-byte keys, {}-byte values, {} keys, median of {} runs",
            self.connections, self.key_bytes, self.value_bytes, self.keyspace, self.repetitions
        )
    }

    /// Operations of one run.
    pub fn operations(&self, pipeline: usize) -> u64 {
        let full = self.full_operations[usize::from(pipeline > 1)];
        self.operations.unwrap_or(if self.quick { full / u64::from(QUICK_PART) } else { full })
    }

    /// The matrix, with `--mix`, `--meta`, `--binary` and `--pipeline` in place of its own values, each case once.
    pub fn cases(&self, matrix: &[Case]) -> Vec<Case> {
        let mut cases: Vec<Case> = Vec::new();
        for case in matrix {
            let case = Case {
                mix: self.mix.unwrap_or(case.mix),
                dialect: self.dialect.unwrap_or(case.dialect),
                pipeline: self.pipeline.unwrap_or(case.pipeline),
            };
            if !cases.contains(&case) {
                cases.push(case);
            }
        }
        cases
    }

    /// A case as a load on one server.
    pub fn load(&self, case: Case, server: SocketAddr, keys: &Arc<Keys>) -> Load {
        Load {
            addresses: vec![server],
            connections: self.connections,
            pipeline: case.pipeline,
            mix: case.mix,
            dialect: case.dialect,
            order: Order::Random,
            keys: Arc::clone(keys),
            value_bytes: self.value_bytes,
            operations: self.operations(case.pipeline),
        }
    }

    /// The one case that a profiler is to watch: what the options name, else pipelined gets.
    pub fn watched_case(&self) -> Case {
        Case {
            mix: self.mix.unwrap_or(Mix::GET),
            dialect: self.dialect.unwrap_or(Dialect::Classic),
            pipeline: self.pipeline.unwrap_or(16),
        }
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

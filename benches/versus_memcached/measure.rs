//! Runs one case against both servers in turn and takes the medians.

use std::net::SocketAddr;
use std::time::Duration;

use crate::Result;
use crate::inspect;
use crate::options::Options;
use crate::support::load::{Dialect, Load, Mix, Order, Report};
use crate::support::process::CpuTime;
use crate::support::report::{Better, CaseReport, Figure};
use crate::support::server::Server;

/// Of a measured run's operations, this part is run first, unmeasured, so that caches are warm.
const WARM_UP_PART: u64 = 10;

/// Runs under `strace` and `perf` are this part of a measured one: their counts per operation hardly vary.
const INSPECTED_PART: u64 = 5;

const SUMMARY_KEYS: &[&str] = &["throughput_kops", "latency_p99_us", "cpu_us_per_op", "user_us_per_op"];

/// One cell of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub mix: Mix,
    pub dialect: Dialect,
    pub pipeline: usize,
}

/// One measured run.
#[derive(Clone, Debug)]
pub struct Sample {
    pub report: Report,
    pub cpu: CpuTime,
}

impl Case {
    /// memcached 1.6.18 gathers the replies to pipelined `set`, `mg` and `ms` into one write, but writes the reply to
    /// each `get` by itself: only the meta cases compare what both servers do when both gather.
    pub const MATRIX: [Self; 8] = [
        Self::classic(Mix::GET, 1),
        Self::classic(Mix::GET, 16),
        Self::classic(Mix::SET_1_GET_10, 1),
        Self::classic(Mix::SET_1_GET_10, 16),
        Self::classic(Mix::SET, 1),
        Self::classic(Mix::SET, 16),
        Self { dialect: Dialect::Meta, ..Self::classic(Mix::GET, 16) },
        Self { dialect: Dialect::Meta, ..Self::classic(Mix::SET_1_GET_10, 16) },
    ];

    const fn classic(mix: Mix, pipeline: usize) -> Self {
        Self { mix, dialect: Dialect::Classic, pipeline }
    }

    pub fn name(self) -> String {
        let (set, get) = match self.dialect {
            Dialect::Classic => ("set", "get"),
            Dialect::Meta => ("ms", "mg"),
        };
        let mix = match self.mix {
            Mix { sets: 0, .. } => get.to_owned(),
            Mix { gets: 0, .. } => set.to_owned(),
            Mix { sets, gets } => format!("{set}:{get} {sets}:{gets}"),
        };
        format!("{mix}, pipeline {}", self.pipeline)
    }

    /// The case as a load on one server.
    pub fn load(self, server: SocketAddr, options: &Options) -> Load {
        Load {
            addresses: vec![server],
            connections: options.connections,
            pipeline: self.pipeline,
            mix: self.mix,
            dialect: self.dialect,
            order: Order::Random,
            keyspace: options.keyspace,
            key_bytes: options.key_bytes,
            value_bytes: options.value_bytes,
            operations: options.operations(self.pipeline),
        }
    }
}

/// Sets every key of the keyspace once.
pub fn preload(server: SocketAddr, options: &Options) -> Result<()> {
    let load = Case::classic(Mix::SET, 16).load(server, options);
    let operations = u64::from(options.keyspace);
    run_hitting(&Load { order: Order::Sequential, operations, ..load }).map(drop)
}

/// Runs `load`; a miss or a refused set is an error, as a wrong value is: the keyspace fits into the server's memory.
pub fn run_hitting(load: &Load) -> Result<Report> {
    let report = load.run()?;
    let Report { operations, misses, refusals, .. } = report;
    if misses > 0 || refusals > 0 {
        return Err(format!(
            "of {operations} operations, {misses} missed stored keys, {refusals} were refused"
        )
        .into());
    }
    Ok(report)
}

/// One run with the server's CPU time.
pub fn sample(pid: u32, load: &Load) -> Result<Sample> {
    let before = CpuTime::of(pid)?;
    let report = run_hitting(load)?;
    Ok(Sample { report, cpu: CpuTime::of(pid)?.since(before) })
}

/// Measures a case on both servers, which hold the keyspace already.
pub fn compare(case: Case, servers: &[Server; 2], options: &Options) -> Result<CaseReport> {
    let loads = [0, 1].map(|side: usize| case.load(servers[side].address, options));
    let part = |side: usize, part: u64| {
        let operations = (loads[side].operations / part).max(1);
        Load { operations, ..loads[side].clone() }
    };
    let named = |side: usize| move |error| format!("{}: {error}", servers[side].name);
    for side in [0, 1] {
        run_hitting(&part(side, WARM_UP_PART)).map_err(named(side))?;
    }
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    for repetition in 0..options.repetitions {
        // A B, B A, A B, ...: neither server always follows the other.
        for turn in [0, 1] {
            let side = (turn + repetition) % 2;
            samples[side].push(sample(servers[side].pid(), &loads[side]).map_err(named(side))?);
        }
    }
    let mut figures = timed_figures(&samples);
    if options.inspect {
        let mut inspected = [Inspected::default(), Inspected::default()];
        for side in [0, 1] {
            let load = part(side, INSPECTED_PART);
            inspected[side] = Inspected::of(servers[side].pid(), &load).map_err(named(side))?;
        }
        figures.extend(inspected_figures(&inspected));
    }
    Ok(CaseReport { name: case.name(), figures, summary_keys: SUMMARY_KEYS })
}

/// The figures of one server's samples alone, for `--drive`.
pub fn describe(samples: &[Sample]) -> Vec<Figure> {
    timed_figures(&[samples.to_vec(), Vec::new()])
}

fn timed_figures(samples: &[Vec<Sample>; 2]) -> Vec<Figure> {
    // Timer ticks are too coarse to split a single run's CPU time: all runs together give the proportion.
    let user_part = [0, 1].map(|side: usize| {
        let user: u64 = samples[side].iter().map(|sample| sample.cpu.user_ticks).sum();
        let system: u64 = samples[side].iter().map(|sample| sample.cpu.system_ticks).sum();
        if user + system == 0 { f64::NAN } else { user as f64 / (user + system) as f64 }
    });
    let micros_per_op =
        |sample: &Sample| sample.cpu.total.as_secs_f64() * 1e6 / sample.report.operations as f64;
    let busy =
        |sample: &Sample, cpu: Duration| 100.0 * cpu.as_secs_f64() / sample.report.elapsed.as_secs_f64();
    let figure = |key, label, better, value: &dyn Fn(&Sample) -> f64| {
        let values = [0, 1].map(|side: usize| samples[side].iter().map(value).collect::<Vec<f64>>());
        let ratios =
            values[0].iter().zip(&values[1]).map(|(baseline, candidate)| candidate / baseline).collect();
        let ratio_noise = (better != Better::Neither).then(|| half_interquartile_range(ratios)).flatten();
        Figure { key, label, better, values: values.map(median), ratio_noise }
    };
    let cpu = figure("cpu_us_per_op", "server CPU, µs per op", Better::Lower, &micros_per_op);
    let share = |key, label, part: [f64; 2]| {
        let values = [0, 1]
            .map(|side: usize| cpu.values[side].map(|total| total * part[side]).filter(|v| v.is_finite()));
        Figure { key, label, better: Better::Lower, values, ratio_noise: None }
    };
    let user = share("user_us_per_op", "  user CPU", user_part);
    let system = share("system_us_per_op", "  system CPU", user_part.map(|part| 1.0 - part));
    vec![
        figure("throughput_kops", "throughput, 1000 ops/s", Better::Higher, &|s| s.report.throughput() / 1e3),
        figure("latency_p50_us", "p50 latency, µs", Better::Lower, &|s| s.report.latency_micros(50.0)),
        figure("latency_p99_us", "p99 latency, µs", Better::Lower, &|s| s.report.latency_micros(99.0)),
        figure("latency_p999_us", "p99.9 latency, µs", Better::Lower, &|s| s.report.latency_micros(99.9)),
        cpu,
        user,
        system,
        figure("server_busy_percent", "server busy, % of a CPU", Better::Neither, &|s| busy(s, s.cpu.total)),
        figure("server_kept_waiting_percent", "server kept from its CPU, %", Better::Neither, &|s| {
            busy(s, s.cpu.kept_waiting)
        }),
        figure("generator_busy_percent", "generator busy, % of a CPU", Better::Neither, &|s| {
            busy(s, s.report.generator_cpu)
        }),
    ]
}

/// What the separate short runs counted, per operation.
#[derive(Clone, Copy, Debug, Default)]
struct Inspected {
    /// User and system.
    instructions: Option<[f64; 2]>,
    /// Reads, writes, waits, others.
    syscalls: Option<[f64; 4]>,
}

impl Inspected {
    fn of(pid: u32, load: &Load) -> Result<Self> {
        let per_op = |count: u64| count as f64 / load.operations as f64;
        let run = || run_hitting(load).map(drop);
        Ok(Self {
            instructions: inspect::instructions(pid, run)?
                .map(|counted| [counted.user, counted.system].map(per_op)),
            syscalls: inspect::syscalls(pid, run)?
                .map(|counted| [counted.reads, counted.writes, counted.waits, counted.others].map(per_op)),
        })
    }
}

fn inspected_figures(inspected: &[Inspected; 2]) -> Vec<Figure> {
    let figure = |key, label, value: &dyn Fn(&Inspected) -> Option<f64>| {
        let values = [value(&inspected[0]), value(&inspected[1])];
        Figure { key, label, better: Better::Lower, values, ratio_noise: None }
    };
    vec![
        figure("user_instructions_per_op", "instructions per op, user", &|i| Some(i.instructions?[0])),
        figure("system_instructions_per_op", "instructions per op, system", &|i| Some(i.instructions?[1])),
        figure("reads_per_op", "read calls per op", &|i| Some(i.syscalls?[0])),
        figure("writes_per_op", "write calls per op", &|i| Some(i.syscalls?[1])),
        figure("waits_per_op", "epoll_wait calls per op", &|i| Some(i.syscalls?[2])),
        figure("other_syscalls_per_op", "other system calls per op", &|i| Some(i.syscalls?[3])),
    ]
}

fn median(values: Vec<f64>) -> Option<f64> {
    quantile(values, 0.5)
}

fn half_interquartile_range(values: Vec<f64>) -> Option<f64> {
    Some((quantile(values.clone(), 0.75)? - quantile(values, 0.25)?) / 2.0)
}

/// Linear between the neighbours; None of nothing.
fn quantile(mut values: Vec<f64>, part: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let place = part * values.len().checked_sub(1)? as f64;
    let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
    Some(below + (above - below) * place.fract())
}

//! Runs one case against both sides in turn and takes the medians.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::support::Result;
use crate::support::case::Case;
use crate::support::load::{Keys, Load, Mix, Order, Report};
use crate::support::options::LoadOptions;
use crate::support::process::CpuTime;
use crate::support::report::{Better, Figure};

/// Of a measured run's operations, this part is run first, unmeasured, so that caches are warm.
const WARM_UP_PART: u64 = 10;

/// One of the two things that are compared.
#[derive(Clone, Debug)]
pub struct Side {
    pub name: String,
    /// Where the load goes.
    pub address: SocketAddr,
    /// Every process whose CPU time counts.
    pub pids: Vec<u32>,
}

/// One measured run.
#[derive(Clone, Debug)]
pub struct Sample {
    pub report: Report,
    /// Of each of the side's processes, in its order.
    pub cpu: Vec<CpuTime>,
}

impl Side {
    /// Adds whose fault it was to an error.
    pub fn blamed<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| format!("{}: {error}", self.name).into())
    }

    /// One run with the processes' CPU time.
    pub fn sample(&self, load: &Load) -> Result<Sample> {
        let times = || self.pids.iter().map(|&pid| CpuTime::of(pid)).collect::<std::io::Result<Vec<_>>>();
        let before = times()?;
        let report = run_hitting(load)?;
        let cpu = times()?.into_iter().zip(before).map(|(after, before)| after.since(before)).collect();
        Ok(Sample { report, cpu })
    }
}

impl Sample {
    /// Of all the side's processes together.
    pub fn total_cpu(&self) -> CpuTime {
        self.cpu.iter().copied().sum()
    }

    /// CPU time as a part of one operation, in microseconds.
    pub fn micros_per_op(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.report.operations as f64
    }

    fn busy_percent(&self, cpu: Duration) -> f64 {
        100.0 * cpu.as_secs_f64() / self.report.elapsed.as_secs_f64()
    }
}

/// Sets every key once.
pub fn preload(server: SocketAddr, keys: &Arc<Keys>, options: &LoadOptions) -> Result<()> {
    let load = options.load(Case::classic(Mix::SET, 16), server, keys);
    let operations = u64::from(keys.count());
    run_hitting(&Load { order: Order::Sequential, operations, ..load }).map(drop)
}

/// Runs `load`; a miss or a refused set is an error, as a wrong value is: the keys fit into the server's memory.
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

/// The samples of a case on both sides, which hold the keys already.
pub fn samples(
    case: Case,
    sides: &[Side; 2],
    keys: &Arc<Keys>,
    options: &LoadOptions,
) -> Result<[Vec<Sample>; 2]> {
    let loads = [0, 1].map(|side: usize| options.load(case, sides[side].address, keys));
    for (side, load) in sides.iter().zip(&loads) {
        let operations = (load.operations / WARM_UP_PART).max(1);
        side.blamed(run_hitting(&Load { operations, ..load.clone() }))?;
    }
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    for repetition in 0..options.repetitions {
        // A B, B A, A B, ...: neither side always follows the other.
        for turn in [0, 1] {
            let side = (turn + repetition) % 2;
            samples[side].push(sides[side].blamed(sides[side].sample(&loads[side]))?);
        }
    }
    Ok(samples)
}

/// The median of one figure on each side.
pub fn figure(
    samples: &[Vec<Sample>; 2],
    key: &'static str,
    label: &'static str,
    better: Better,
    value: &dyn Fn(&Sample) -> f64,
) -> Figure {
    let values = [0, 1].map(|side: usize| samples[side].iter().map(value).collect::<Vec<f64>>());
    let ratios = values[0].iter().zip(&values[1]).map(|(baseline, candidate)| candidate / baseline).collect();
    let ratio_noise = (better != Better::Neither).then(|| half_interquartile_range(ratios)).flatten();
    Figure { key, label, better, values: values.map(median), ratio_noise }
}

/// What every comparison shows of its samples.
pub fn timed_figures(samples: &[Vec<Sample>; 2]) -> Vec<Figure> {
    // Timer ticks are too coarse to split a single run's CPU time: all runs together give the proportion.
    let user_part = [0, 1].map(|side: usize| {
        let all: CpuTime = samples[side].iter().map(Sample::total_cpu).sum();
        let ticks = all.user_ticks + all.system_ticks;
        if ticks == 0 { f64::NAN } else { all.user_ticks as f64 / ticks as f64 }
    });
    let figure =
        |key, label, better, value: &dyn Fn(&Sample) -> f64| figure(samples, key, label, better, value);
    let cpu = figure("cpu_us_per_op", "server CPU, µs per op", Better::Lower, &|s| {
        s.micros_per_op(s.total_cpu().total)
    });
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
        figure("server_busy_percent", "server busy, % of a CPU", Better::Neither, &|s| {
            s.busy_percent(s.total_cpu().total)
        }),
        figure("server_kept_waiting_percent", "server kept from its CPU, %", Better::Neither, &|s| {
            s.busy_percent(s.total_cpu().kept_waiting)
        }),
        figure("generator_busy_percent", "generator busy, % of a CPU", Better::Neither, &|s| {
            s.busy_percent(s.report.generator_cpu)
        }),
    ]
}

/// None of nothing.
pub fn median(values: Vec<f64>) -> Option<f64> {
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

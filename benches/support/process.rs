//! What a process costs, CPU time and resident memory; and on which CPUs it runs.

use std::fs;
use std::io;
use std::iter::Sum;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// A table that is being grown holds the old and the new one: the memory is read when it has stood still this long,
const STILL: Duration = Duration::from_millis(500);
/// or after this long all the same.
const STILL_DEADLINE: Duration = Duration::from_secs(10);

/// CPU time of all threads of a process since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// From the process's CPU clock: exact to the nanosecond.
    pub total: Duration,
    /// From `utime` and `stime` in /proc/PID/stat, which the kernel samples at its timer ticks and prints in units of
    /// 10 ms: only their proportion over seconds means something.
    pub user_ticks: u64,
    pub system_ticks: u64,
    /// Time its threads were ready to run but did not have the CPU: tells how quiet the machine was. A server's own
    /// background threads waiting for its worker count as well.
    pub kept_waiting: Duration,
}

impl CpuTime {
    /// Reads the counters of a process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let clock = ClockId::pid_cpu_clock_id(as_pid(pid))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // proc(5): the command name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of all, so
        // the 12th and 13th after it.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut ticks =
            || fields.next().and_then(|field| field.parse().ok()).ok_or_else(|| malformed("stat", pid));
        let (user_ticks, system_ticks) = (ticks()?, ticks()?);
        Ok(Self {
            total: clock_gettime(clock)?.into(),
            user_ticks,
            system_ticks,
            kept_waiting: kept_waiting(pid)?,
        })
    }

    pub fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
            kept_waiting: self.kept_waiting.saturating_sub(earlier.kept_waiting),
        }
    }
}

impl Sum for CpuTime {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |sum, time| Self {
            total: sum.total + time.total,
            user_ticks: sum.user_ticks + time.user_ticks,
            system_ticks: sum.system_ticks + time.system_ticks,
            kept_waiting: sum.kept_waiting + time.kept_waiting,
        })
    }
}

/// Ids of a process's threads.
pub fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        threads.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(threads)
}

/// Memory of a process that is in RAM, when it has stood still for a while.
#[allow(dead_code)] // Only some of the comparisons do.
pub fn settled_bytes(pid: u32) -> io::Result<u64> {
    let deadline = Instant::now() + STILL_DEADLINE;
    let mut bytes = resident_bytes(pid)?;
    loop {
        std::thread::sleep(STILL);
        let now = resident_bytes(pid)?;
        if now == bytes || Instant::now() > deadline {
            return Ok(now);
        }
        bytes = now;
    }
}

/// Memory of a process that is in RAM. From smaps_rollup: VmRSS in /proc/PID/status may lag.
#[allow(dead_code)] // Only some of the comparisons do.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    bytes_in(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
}

/// What of that are pages of files: the program and its libraries.
#[allow(dead_code)] // Only one of the comparisons does.
pub fn resident_file_bytes(pid: u32) -> io::Result<u64> {
    bytes_in(&format!("/proc/{pid}/status"), "RssFile:")
}

/// The most of it that there was at any time.
#[allow(dead_code)] // Only some of the comparisons do.
pub fn most_resident_bytes(pid: u32) -> io::Result<u64> {
    Ok(bytes_in(&format!("/proc/{pid}/status"), "VmHWM:")?.max(resident_bytes(pid)?))
}

/// The number in a line such as `Rss: 1024 kB`.
#[allow(dead_code)] // Only some of the comparisons do.
fn bytes_in(file: &str, name: &str) -> io::Result<u64> {
    let lines = fs::read_to_string(file)?;
    let kibibytes = lines
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("cannot make sense of {file}")))?;
    Ok(kibibytes * 1024)
}

/// Which CPU the servers and which the load generator are pinned to.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// None when there is a single CPU: nothing is pinned then.
    pub server_and_generator: Option<(usize, usize)>,
    #[allow(dead_code)] // For `unpin`.
    allowed: CpuSet,
}

impl Placement {
    /// Takes the first two CPUs that this process may use.
    pub fn choose() -> io::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
        Ok(Self { server_and_generator: cpus.next().zip(cpus.next()), allowed })
    }

    /// One line for the head of a report.
    pub fn description(&self) -> String {
        match self.server_and_generator {
            Some((server, generator)) => {
                format!("servers to CPU {server}, load generator to CPU {generator}")
            }
            None => "nothing: there is one CPU".into(),
        }
    }

    /// Lets the calling thread, and what it starts, run on every CPU again.
    #[allow(dead_code)] // Only one of the comparisons does.
    pub fn unpin(&self) -> io::Result<()> {
        Ok(sched_setaffinity(Pid::from_raw(0), &self.allowed)?)
    }

    /// The same without pinning.
    #[allow(dead_code)] // Only one of the comparisons does.
    pub fn anywhere(self) -> Self {
        Self { server_and_generator: None, ..self }
    }

    /// Runs `start` on the servers' CPU, which the processes it starts inherit; the calling thread is on the
    /// generator's CPU afterwards.
    pub fn on_server_cpu<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some((server, generator)) = self.server_and_generator else {
            return start();
        };
        pin(server)?;
        let started = start();
        pin(generator)?;
        started
    }

    /// Puts the calling thread on the generator's CPU.
    pub fn pin_generator(&self) -> io::Result<()> {
        self.server_and_generator.map_or(Ok(()), |(_, generator)| pin(generator))
    }
}

/// One line each: CPU model, number of CPUs, kernel.
pub fn machine() -> Vec<(&'static str, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    vec![
        ("cpu", model.map_or("?", |(_, name)| name).trim().to_owned()),
        ("cpus", cpus.to_string()),
        ("kernel", kernel.trim().to_owned()),
    ]
}

/// The second number of a thread's schedstat, in nanoseconds, over all threads
/// (Documentation/scheduler/sched-stats.rst).
fn kept_waiting(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for thread in threads(pid)? {
        // A thread may end in between, and a kernel may be built without these numbers.
        let schedstat =
            fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap_or_default();
        nanos += schedstat.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

fn malformed(file: &str, pid: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cannot make sense of /proc/{pid}/{file}"))
}

//! Instructions and system calls per operation, each from a separate short run under `perf` or `strace`.
//!
//! /proc/PID/io is no help here: it counts `read` and `write`, not the `recvfrom`, `sendto` and `sendmsg` that servers
//! use on sockets. Both programs may be missing or refused (virtual machines often have no counters): no number then.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::process::threads;

/// How long `strace` may take to attach to every thread, and either program to write its result.
const DEADLINE: Duration = Duration::from_secs(10);

/// `perf stat` does not tell when it counts; it opens its counters well within this.
const PERF_ATTACH: Duration = Duration::from_millis(300);

const READS: [&str; 5] = ["read", "readv", "recvfrom", "recvmsg", "recvmmsg"];
const WRITES: [&str; 5] = ["write", "writev", "sendto", "sendmsg", "sendmmsg"];
const WAITS: [&str; 6] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "io_uring_enter"];

/// System calls of all threads of a server during a run, failed ones (`EAGAIN`) included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Syscalls {
    pub reads: u64,
    pub writes: u64,
    pub waits: u64,
    /// Everything else but sleeps: accepting connections and closing them, mostly.
    pub others: u64,
}

/// Instructions of all threads of a server during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions {
    pub user: u64,
    pub system: u64,
}

/// Counts the system calls of process `pid` while `run` runs; None, and `run` not run, without a working `strace`.
pub fn syscalls<E: From<io::Error>>(
    pid: u32,
    run: impl FnOnce() -> Result<(), E>,
) -> Result<Option<Syscalls>, E> {
    let pid_text = pid.to_string();
    let Some(observer) = Observer::start("strace", &["-c", "-f", "-qq", "-p", &pid_text])? else {
        return Ok(None);
    };
    if !observer.wait_until(|| is_traced(pid))? {
        return Ok(None);
    }
    run()?;
    Ok(observer.finish()?.map(|summary| parse_strace(&summary)))
}

/// Counts the instructions of process `pid` while `run` runs; None without `perf` or hardware counters.
pub fn instructions<E: From<io::Error>>(
    pid: u32,
    run: impl FnOnce() -> Result<(), E>,
) -> Result<Option<Instructions>, E> {
    if !counts_instructions()? {
        return Ok(None);
    }
    let pid_text = pid.to_string();
    let arguments = ["stat", "-x,", "-e", "instructions:u,instructions:k", "-p", &pid_text];
    let Some(observer) = Observer::start("perf", &arguments)? else {
        return Ok(None);
    };
    std::thread::sleep(PERF_ATTACH);
    run()?;
    Ok(observer.finish()?.and_then(|summary| parse_perf(&summary)))
}

/// A program that watches a server and writes what it counted to a file when interrupted.
struct Observer {
    child: Child,
    output: PathBuf,
}

impl Observer {
    /// None when the program is not installed.
    fn start(program: &str, arguments: &[&str]) -> io::Result<Option<Self>> {
        let output = std::env::temp_dir().join(format!("versus-memcached-{}.{program}", std::process::id()));
        // perf wants its options after `stat`; strace does not care where `-o` stands among the options.
        let (first, rest) = arguments.split_at(1);
        let mut command = Command::new(program);
        command.args(first).arg("-o").arg(&output).args(rest);
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => Ok(Some(Self { child, output })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// False when the program ended (it may not be allowed to attach) or the deadline passed first.
    fn wait_until(&self, condition: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
        let deadline = Instant::now() + DEADLINE;
        while !condition()? {
            if Instant::now() > deadline || has_ended(&self.child)? {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(true)
    }

    /// Interrupts the program and returns what it wrote, if it did.
    fn finish(mut self) -> io::Result<Option<String>> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        let deadline = Instant::now() + DEADLINE;
        while self.child.try_wait()?.is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(fs::read_to_string(&self.output).ok())
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Each fails only when there is nothing left to clean up.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.output);
    }
}

/// An ended child stays in /proc as a zombie until it is waited for.
fn has_ended(child: &Child) -> io::Result<bool> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    Ok(stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with('Z')))
}

fn is_traced(pid: u32) -> io::Result<bool> {
    for thread in threads(pid)? {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status"))?;
        if status
            .lines()
            .any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() == "0"))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tries the counters on a process that does nothing, rather than run a whole load for a `<not supported>`.
fn counts_instructions() -> io::Result<bool> {
    let output = match Command::new("perf")
        .args(["stat", "-x,", "-e", "instructions:u,instructions:k", "true"])
        .output()
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        output => output?,
    };
    Ok(parse_perf(&String::from_utf8_lossy(&output.stderr)).is_some())
}

/// Lines of `perf stat -x,`: value, unit, event, ...
fn parse_perf(summary: &str) -> Option<Instructions> {
    let value = |event: &str| -> Option<u64> {
        let line = summary.lines().find(|line| line.split(',').nth(2) == Some(event))?;
        line.split(',').next()?.parse().ok()
    };
    Some(Instructions { user: value("instructions:u")?, system: value("instructions:k")? })
}

/// Lines of `strace -c`: % time, seconds, usecs/call, calls, errors (may be blank), syscall.
fn parse_strace(summary: &str) -> Syscalls {
    let mut syscalls = Syscalls::default();
    for line in summary.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(Ok(calls)), Some(&name)) = (fields.get(3).map(|calls| calls.parse::<u64>()), fields.last())
        else {
            continue;
        };
        match name {
            "total" => {}
            // Sleeps go with time, which `strace` stretches, not with work.
            "nanosleep" | "clock_nanosleep" | "restart_syscall" => {}
            _ if READS.contains(&name) => syscalls.reads += calls,
            _ if WRITES.contains(&name) => syscalls.writes += calls,
            _ if WAITS.contains(&name) => syscalls.waits += calls,
            _ => syscalls.others += calls,
        }
    }
    syscalls
}

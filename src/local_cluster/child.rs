//! A child process: started so that it ends with this one, its log shown, its end waited for.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::local_cluster::die_with_parent;
use crate::local_cluster::start::say;

/// A longer line is shown in pieces.
const LINE_MAX_BYTES: usize = 8 << 10;

/// A running process, or what is known of it.
#[derive(Debug)]
pub(super) struct Child {
    /// What it is called here.
    pub name: String,
    process: tokio::process::Child,
    pid: Pid,
    log: Option<JoinHandle<()>>,
}

impl Child {
    /// Starts a program whose log is shown, line by line. `change` gives it arguments and
    /// variables.
    pub fn start(name: &str, program: &OsStr, change: impl FnOnce(&mut Command)) -> io::Result<Self> {
        let mut child = spawn(name, program, Stdio::piped(), change)?;
        child.log = child.process.stderr.take().map(|log| tokio::spawn(show(name.to_owned(), log)));
        Ok(child)
    }

    /// As [`Child::start`], with the log in a file.
    pub fn start_quietly(
        name: &str,
        program: &OsStr,
        log: File,
        change: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        spawn(name, program, log.into(), change)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        // What cannot be waited for is not there.
        self.process.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0)))
    }

    /// Asks it to end.
    pub fn terminate(&mut self) {
        if self.ended().is_none() {
            // Not yet waited for, so that the number is still its own.
            _ = kill(self.pid, Signal::SIGTERM);
        }
    }

    /// Waits until it has ended and all of its log was shown. Cancellation safe.
    pub async fn wait(&mut self) {
        _ = self.process.wait().await;
        if let Some(log) = &mut self.log {
            _ = log.await;
            self.log = None;
        }
    }

    /// Ends it on the spot.
    pub async fn kill(&mut self) {
        _ = self.process.start_kill();
        _ = self.process.wait().await;
    }
}

fn spawn(name: &str, program: &OsStr, log: Stdio, change: impl FnOnce(&mut Command)) -> io::Result<Child> {
    let mut command = Command::from(die_with_parent::command(program)?);
    // Ctrl-C in a terminal goes to the whole group of processes: the children are to hear of it
    // from here, in order.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0).kill_on_drop(true);
    change(&mut command);
    let process = command.spawn()?;
    let pid = process.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("a process without a number"))?;
    Ok(Child { name: name.to_owned(), process, pid, log: None })
}

/// Shows a log until it ends.
async fn show(name: String, mut log: impl AsyncRead + Unpin) {
    let mut waiting = Vec::with_capacity(LINE_MAX_BYTES);
    while let Ok(1..) = log.read_buf(&mut waiting).await {
        let mut from = 0;
        while let Some(len) = memchr::memchr(b'\n', &waiting[from..]) {
            say(&name, &String::from_utf8_lossy(&waiting[from..from + len]));
            from += len + 1;
        }
        waiting.drain(..from);
        if waiting.len() >= LINE_MAX_BYTES {
            say(&name, &String::from_utf8_lossy(&waiting));
            waiting.clear();
        }
    }
    if !waiting.is_empty() {
        say(&name, &String::from_utf8_lossy(&waiting));
    }
}

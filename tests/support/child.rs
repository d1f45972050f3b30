//! Processes: where a program is, how it is started and waited for, and that it ends with whoever started it.
//!
//! The benches use this file, too.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to start. None takes so long, but on a machine that is busy.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const POLL: Duration = Duration::from_millis(5);

/// A running process; killed on drop.
#[derive(Debug)]
pub struct Child(process::Child);

impl Child {
    pub fn spawn(command: &mut Command) -> io::Result<Child> {
        command.spawn().map(Child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).expect("Linux process ids fit in i32");
        kill(Pid::from_raw(pid), signal).expect("the process is ours and not yet reaped");
    }

    /// Kills it, if it still runs, and waits for its end.
    pub fn kill(&mut self) {
        // Nothing is kept that a kill could damage; an error means that the process has ended already.
        let _ = self.0.kill();
        let _ = self.wait();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }

    /// How it ended; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("the child can be waited for")
    }

    /// Waits until `started` finds what shows that it has.
    ///
    /// # Errors
    ///
    /// It ends instead, or does neither within the deadline.
    pub fn await_start<T>(&mut self, mut started: impl FnMut() -> Option<T>) -> io::Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = started() {
                return Ok(found);
            }
            if let Some(status) = self.status() {
                return Err(io::Error::other(format!("it ended at once, {status}")));
            }
            if start.elapsed() > START_DEADLINE {
                return Err(io::Error::other(format!("waited {START_DEADLINE:?} in vain")));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command whose arguments are a program and its own. Programs such as `prlimit`, that become what they start, may
/// stand before it.
///
/// The process dies with the *thread* that started it (`PR_SET_PDEATHSIG` counts threads), unless it becomes another
/// user or goes into the background.
pub fn command() -> Command {
    let mut command = Command::new(program("setpriv", "util-linux"));
    command.args(["--pdeathsig", "KILL", "--"]).stdin(Stdio::null());
    command
}

/// Finds a program by its path, or by its name in `PATH`.
pub fn find(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // As a shell does: a path has a slash.
    let own = (program.components().count() > 1).then(|| program.to_owned());
    own.into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join(program)))
        .find(|file| file.is_file())
}

/// As [`find`], or fails the test saying which Debian package has it.
pub fn program(name: &str, package: &str) -> PathBuf {
    find(Path::new(name))
        .unwrap_or_else(|| panic!("`{name}` is not in PATH; install it: apt-get install {package}"))
}

/// Whether this process is root's, and with it what it starts.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

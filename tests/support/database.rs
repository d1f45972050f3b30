//! What the database servers of tests have in common: where their programs are, which account they run as, and how long
//! they are waited for.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::User;
use tempfile::TempDir;

/// How often a server is started: its port may be taken by somebody else.
pub const ATTEMPTS: usize = 5;

/// How long a server may take to start, on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A directory, and the account that it belongs to. Servers refuse to run as root.
pub struct Home {
    dir: TempDir,
    /// `None` where the tests themselves run as somebody else.
    account: Option<User>,
}

impl Home {
    /// A directory of this account, or of `nobody` where there is no such account.
    pub fn new(account: &str) -> Home {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let named = |name| User::from_name(name).expect("accounts can be read");
        let account =
            is_root.then(|| named(account).or_else(|| named("nobody")).expect("every system has nobody"));
        let home = Home { dir, account };
        home.give(home.dir.path());
        home
    }

    /// A file or directory in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that the account alone can read.
    pub fn put(&self, name: &str, contents: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;

        let path = self.path(name);
        fs::write(&path, contents).expect("the directory is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        self.give(&path);
        path
    }

    fn give(&self, path: &Path) {
        if let Some(account) = &self.account {
            chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
                .expect("root may give things away");
        }
    }

    /// A command that runs a program as the account. It dies with the thread that starts it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(account) = &self.account {
            command.arg(format!("--reuid={}", account.uid)).arg(format!("--regid={}", account.gid));
            command.arg("--clear-groups");
        }
        command.arg("--").arg(program).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Starts a server whose output goes to the file `log`.
    pub fn spawn(&self, mut command: Command) -> Child {
        let log = fs::File::options().create(true).append(true).open(self.path("log"));
        let log = log.expect("the directory is writable");
        command.stdout(log.try_clone().expect("a descriptor is left")).stderr(log);
        command.spawn().expect("setpriv starts")
    }

    /// The end of that file.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.path("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Waits until a server answers; `false` if it ended instead.
    ///
    /// # Panics
    ///
    /// If it does neither within the deadline.
    pub fn await_answer(&self, child: &mut Child, mut answers: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        loop {
            if child.try_wait().expect("the child can be waited for").is_some() {
                return false;
            }
            if answers() {
                return true;
            }
            assert!(start.elapsed() < DEADLINE, "no answer within {DEADLINE:?}: {}", self.log());
            thread::sleep(POLL);
        }
    }
}

/// Waits until a process has ended; kills it when it does not.
pub fn await_end(child: &mut Child, patience: Duration) {
    let start = Instant::now();
    while start.elapsed() < patience {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(POLL);
    }
    // Fails only if the process is gone already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// What a program printed that has to succeed.
///
/// # Panics
///
/// If it fails.
pub fn printed(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Finds an installed program in `PATH` or one of these directories, or fails the test saying which Debian package has
/// it.
pub fn program(name: &str, elsewhere: &[PathBuf], package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain(elsewhere.iter().cloned());
    dirs.find_map(|dir| Some(dir.join(name)).filter(|file| file.is_file()))
        .unwrap_or_else(|| panic!("there is no `{name}`; install it: apt-get install {package}"))
}

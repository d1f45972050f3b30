//! PostgreSQL servers on free ports, with a temporary directory, killed when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::database::{ATTEMPTS, Home, await_end, printed, program};
use crate::support::site::Site;

const PACKAGE: &str = "postgresql";
const USER: &str = "filbert";
/// A name that needs an escape in a url would test sqlx.
const PASSWORD: &str = "secret";
const DATABASE: &str = "postgres";

/// A PostgreSQL that asks for a password over TCP. It dies with the thread that started it, as a `Server` does.
pub struct Postgres {
    child: Child,
    home: Home,
    port: u16,
}

impl Postgres {
    /// Makes a database, starts a server and waits until it answers.
    ///
    /// # Panics
    ///
    /// If the programs are missing, or it does not start.
    pub fn start() -> Postgres {
        let home = Home::new("postgres");
        let password = home.put("password", PASSWORD.as_bytes());
        let mut init = home.command(&server_program("initdb"));
        init.arg("--pgdata").arg(home.path("data")).arg("--pwfile").arg(password);
        init.args(["--username", USER, "--auth-local", "trust", "--auth-host", "scram-sha-256"]);
        init.args(["--no-sync", "--no-locale", "--encoding", "UTF8"]);
        printed("initdb", &init.output().expect("setpriv starts"));
        let (child, port) = start(&home, None);
        Postgres { child, home, port }
    }

    /// Where clients connect, with the user and the password.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The same without the password.
    pub fn url_without_password(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL and returns what it answered: a line a row, with `|` between columns.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn run(&self, sql: &str) -> String {
        printed("psql", &psql(&self.home, self.port, sql))
    }

    /// Writes a file that the server can read, and others cannot.
    pub fn put(&self, name: &str, contents: &[u8]) -> PathBuf {
        self.home.put(name, contents)
    }

    /// Ends it at once, with the connections to it.
    pub fn stop(&mut self) {
        // Not by a kill, which leaves shared memory behind.
        let pid = i32::try_from(self.child.id()).expect("Linux process ids fit in i32");
        // Fails only if the process is gone already, which is what is wanted.
        let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        await_end(&mut self.child, Duration::from_secs(10));
    }

    /// Starts it again after [`Postgres::stop`], with the same data and port.
    pub fn restart(&mut self) {
        self.child = start(&self.home, Some(self.port)).0;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            eprintln!("--- last of PostgreSQL's log:\n{}", self.home.log());
        }
    }
}

fn start(home: &Home, port: Option<u16>) -> (Child, u16) {
    for _ in 0..ATTEMPTS {
        let port = port.unwrap_or_else(|| Site::localhost().free_port());
        let mut command = home.command(&server_program("postgres"));
        command.arg("-D").arg(home.path("data")).arg("-k").arg(home.path(""));
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        // Nothing is to outlast a power failure, or the directory.
        for setting in ["fsync=off", "synchronous_commit=off", "full_page_writes=off"] {
            command.args(["-c", setting]);
        }
        command.args(["-c", "dynamic_shared_memory_type=mmap", "-c", "shared_buffers=16MB"]);
        let mut child = home.spawn(command);
        if home.await_answer(&mut child, || psql(home, port, "select 1").status.success()) {
            return (child, port);
        }
    }
    panic!("PostgreSQL does not start: {}", home.log());
}

fn psql(home: &Home, port: u16, sql: &str) -> Output {
    let mut command = Command::new(program("psql", &server_directories(), "postgresql-client"));
    command.arg("--host").arg(home.path("")).args(["--port", &port.to_string()]);
    command.args([
        "--username",
        USER,
        "--dbname",
        DATABASE,
        "--no-psqlrc",
        "--quiet",
        "--no-align",
        "--tuples-only",
    ]);
    command.args(["--set", "ON_ERROR_STOP=1", "--command", sql]).env("PGCONNECT_TIMEOUT", "10");
    command.stdin(Stdio::null()).output().expect("psql starts")
}

fn server_program(name: &str) -> PathBuf {
    program(name, &server_directories(), PACKAGE)
}

/// Where Debian has the programs of the versions that are installed, the newest first.
fn server_directories() -> Vec<PathBuf> {
    let Ok(versions) = fs::read_dir(Path::new("/usr/lib/postgresql")) else { return Vec::new() };
    let mut dirs: Vec<PathBuf> =
        versions.filter_map(|version| Some(version.ok()?.path().join("bin"))).collect();
    dirs.sort_unstable();
    dirs.reverse();
    dirs
}

//! Server processes: started on a free port, killed when dropped.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::child::{is_root, program};
use crate::support::http::Http;
use crate::support::server_process::{self, ServerProcess};
use crate::support::shown::last_of;
use crate::support::wire::{DEADLINE, Wire};

/// How often something is tried that is to be quick.
const ATTEMPTS: usize = 5;
/// How often a condition that has no event of its own is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Which program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Filbert,
    Memcached,
}

/// One running server process that listens on 127.0.0.1 and dies with its owner.
///
/// It also dies with the thread that started it ([`child::command`]), so a server belongs to the test that started it
/// and is not shared between tests.
///
/// [`child::command`]: crate::support::child::command
pub struct Server {
    product: Product,
    process: ServerProcess,
    ports: Vec<u16>,
}

impl Server {
    /// Starts Filbert and waits until it listens.
    pub fn filbert(args: &[&str]) -> Server {
        Server::start(Product::Filbert, args)
    }

    /// Starts the installed memcached and waits until it listens.
    pub fn memcached(args: &[&str]) -> Server {
        Server::start(Product::Memcached, args)
    }

    /// Starts `product` on a free port of 127.0.0.1 and waits until it listens.
    ///
    /// # Panics
    ///
    /// If the program is missing, ends early or does not listen within the deadline.
    pub fn start(product: Product, args: &[&str]) -> Server {
        let mut all = vec!["-l", "127.0.0.1"];
        all.extend_from_slice(args);
        let mut server = Server::spawn(product, &all);
        server.ports = server.await_ports();
        server
    }

    /// Starts `product` with exactly these arguments, besides a free port and the user, and does not wait.
    pub fn spawn(product: Product, args: &[&str]) -> Server {
        Server::spawn_as(product, command(product, &[]), args)
    }

    /// As [`Server::spawn`], with a command from [`command`] that the test has given variables or a wrapper.
    pub fn spawn_as(product: Product, command: Command, args: &[&str]) -> Server {
        Server::spawn_into(product, command, args, None)
    }

    /// As [`Server::spawn_as`], with a standard error of the test's own.
    pub fn spawn_into(
        product: Product,
        mut command: Command,
        args: &[&str],
        stderr: Option<Stdio>,
    ) -> Server {
        if product == Product::Memcached {
            command.args(["-U", "0"]);
        }
        if is_root() && !args.contains(&"-u") {
            // memcached refuses to run as root unless told so; another user would also lose the death signal.
            command.args(["-u", "root"]);
        }
        let process = ServerProcess::spawn(command, args, stderr).expect("setpriv starts");
        Server { product, process, ports: Vec::new() }
    }

    /// The address of the first listener.
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[0]).into()
    }

    /// How it is asked over HTTP.
    pub fn http(&self) -> Http {
        Http::at(self.http_addr())
    }

    /// Where it answers HTTP.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn http_addr(&self) -> SocketAddr {
        let file = self.port_file();
        let port = file.lines().find_map(|line| line.strip_prefix("HTTP INET: ")?.trim().parse::<u16>().ok());
        (Ipv4Addr::LOCALHOST, port.expect("HTTP is answered")).into()
    }

    /// A new client connection to the first listener.
    pub fn connect(&self) -> Wire {
        Wire::connect(self.addr())
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Sends a signal to the server process.
    pub fn signal(&self, signal: Signal) {
        self.process.child.signal(signal);
    }

    /// What each of its threads is doing: `R` runs, `S` sleeps, `T` was stopped; see proc(5).
    pub fn threads(&self) -> Vec<char> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process is alive");
        // A thread may end meanwhile.
        let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
        // The name is in parentheses, and may have some itself.
        let states = stats.filter_map(|stat| stat.rsplit_once(") ")?.1.chars().next());
        states.collect()
    }

    /// Waits until the process has ended.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the server exits", || {
            status = self.process.child.status();
            status.is_some()
        });
        status.expect("set when the wait succeeded")
    }

    /// What the server wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// What the server wrote for `MEMCACHED_PORT_FILENAME` so far.
    pub fn port_file(&self) -> String {
        self.process.port_file()
    }

    /// What the server process has in memory, by its `VmRSS`.
    pub fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// What of it is not pages of files: how many of the program's own are in memory is for the system to say.
    pub fn anonymous_kib(&self) -> u64 {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is alive");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux reports it");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
    }

    /// Waits for the port file and returns the TCP ports in it.
    pub fn await_ports(&mut self) -> Vec<u16> {
        let ports = self.process.await_ports();
        ports.unwrap_or_else(|error| panic!("{:?} does not listen: {error}; {}", self.product, self.stderr()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            // What it says at its end is there, too.
            self.process.child.kill();
            eprintln!("--- stderr of {:?}:\n{}", self.product, last_of(&self.stderr()));
        }
    }
}

impl Product {
    fn path(self) -> PathBuf {
        match self {
            Product::Memcached => program("memcached", "memcached"),
            Product::Filbert => filbert(),
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Product::Filbert => "filbert",
            Product::Memcached => "memcached",
        })
    }
}

/// As [`server_process::command`], of the product under test.
pub fn command(product: Product, wrapper: &[&str]) -> Command {
    server_process::command(wrapper, &product.path())
}

/// Polls `condition` until it holds.
///
/// # Panics
///
/// If it does not hold within the deadline; `what` says what was waited for.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain until {what}");
        thread::sleep(POLL);
    }
}

/// Sees that a condition stays true for so long.
///
/// # Panics
///
/// When it does not.
#[track_caller]
pub fn always(what: &str, duration: Duration, condition: impl FnMut() -> bool) {
    always_since(Instant::now(), what, duration, condition);
}

/// As [`always`], for a time that has begun already.
///
/// # Panics
///
/// When the condition does not stay true.
#[track_caller]
pub fn always_since(start: Instant, what: &str, duration: Duration, mut condition: impl FnMut() -> bool) {
    while start.elapsed() < duration {
        // What is seen afterwards, because a look took long, says nothing.
        assert!(condition() || start.elapsed() >= duration, "not always: {what}");
        thread::sleep(POLL);
    }
}

/// Tries something a few times at most, until it takes no longer than `limit`: the machine may be busy. An attempt
/// returns how long it took.
///
/// # Panics
///
/// When every attempt took too long.
#[track_caller]
pub fn quickly(what: &str, limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    while took.last().is_none_or(|last| *last >= limit) {
        assert!(took.len() < ATTEMPTS, "{what} takes {took:?}, never less than {limit:?}");
        took.push(attempt());
    }
}

/// The filbert of this build.
pub fn filbert() -> PathBuf {
    option_env!("CARGO_BIN_EXE_filbert")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("FILBERT_BIN").map(PathBuf::from))
        .filter(|path| path.is_file())
        .expect("a built filbert: run under its own package, or set FILBERT_BIN to the binary")
}

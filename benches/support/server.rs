//! Starts the servers under comparison, with the same flags, and stops them on drop.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::measure::Side;
use crate::support::process::Placement;

/// For both servers. `-p -1` lets the kernel choose the port, written to the file in `PORT_FILE_VARIABLE`.
const FLAGS: [&str; 12] = ["-m", "1024", "-t", "1", "-c", "1024", "-l", "127.0.0.1", "-U", "0", "-p", "-1"];

/// memcached.c, main: "MEMCACHED_PORT_FILENAME".
const PORT_FILE_VARIABLE: &str = "MEMCACHED_PORT_FILENAME";

const START_DEADLINE: Duration = Duration::from_secs(10);
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A program to compare.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: String,
    pub path: PathBuf,
    /// Beyond those that all servers get.
    pub flags: Vec<String>,
    /// Where its stderr goes; None for where the bench's own goes.
    pub log: Option<PathBuf>,
}

/// A running server; killed on drop.
#[derive(Debug)]
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    /// The server's own word, from its `version` command.
    pub version: String,
    process: Process,
}

/// A running child; killed on drop.
#[derive(Debug)]
pub struct Process(Child);

impl Program {
    pub fn new(name: &str, path: &Path) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), flags: Vec::new(), log: None }
    }

    /// Starts the program on the servers' CPU and waits until it answers.
    pub fn start(&self, placement: &Placement) -> io::Result<Server> {
        self.try_start(placement).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start {}: {error}", self.path.display()))
        })
    }

    fn try_start(&self, placement: &Placement) -> io::Result<Server> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let port_file =
            std::env::temp_dir().join(format!("filbert-bench-{}-{number}.port", std::process::id()));
        let mut command = Command::new(&self.path);
        command.args(FLAGS).args(&self.flags).env(PORT_FILE_VARIABLE, &port_file).stdout(Stdio::null());
        if let Some(log) = &self.log {
            command.stderr(fs::File::create(log)?);
        }
        // Filbert reads its options from FILBERT_* and warns of this one.
        command.env_remove("FILBERT_BIN");
        // Each its own: the usual port is one node's only.
        command.env("FILBERT_HTTP_LISTEN", "127.0.0.1:0");
        // memcached.c: "can't run as root without the -u switch".
        if nix::unistd::geteuid().is_root() && self.path.file_name().is_some_and(|name| name == "memcached") {
            command.args(["-u", "root"]);
        }
        let process = placement.on_server_cpu(|| Process::spawn(&mut command))?;
        let unspecified = SocketAddr::from(([127, 0, 0, 1], 0));
        // Made before the wait: if that fails, dropping this ends the process.
        let mut server =
            Server { name: self.name.clone(), address: unspecified, version: String::new(), process };
        let port = wait_for_port(&mut server.process, &port_file);
        fs::remove_file(&port_file).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        server.address.set_port(port?);
        server.version = server.ask("version", "VERSION ")?.unwrap_or_else(|| "unknown".into());
        Ok(server)
    }
}

impl Server {
    /// The server alone, to be compared with something else.
    pub fn side(&self) -> Side {
        Side { name: self.name.clone(), address: self.address, pids: vec![self.pid()] }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Number of items the server holds, from `stats`.
    pub fn items(&self) -> io::Result<u64> {
        self.ask("stats", "STAT curr_items ")?.and_then(|count| count.parse().ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: stats has no curr_items", self.name))
        })
    }

    /// Sends a command on a connection of its own; returns the rest of the reply line that begins with `prefix`.
    pub fn ask(&self, command: &str, prefix: &str) -> io::Result<Option<String>> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(REPLY_DEADLINE))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            if let Some(rest) = line.strip_prefix(prefix) {
                return Ok(Some(rest.to_owned()));
            }
            if line == "END" || line.contains("ERROR") {
                break;
            }
        }
        Ok(None)
    }
}

impl Process {
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).spawn().map(Self)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Fails when it has ended.
    pub fn check(&mut self) -> io::Result<()> {
        match self.0.try_wait()? {
            Some(status) => Err(io::Error::other(format!("it ended at once, {status}"))),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is kept that a kill could damage; an error means that the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a line such as `TCP INET: 12345`.
fn wait_for_port(process: &mut Process, port_file: &Path) -> io::Result<u16> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        let lines = fs::read_to_string(port_file).unwrap_or_default();
        // A line without its end may still be in the writing.
        let complete = lines.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let port = complete.filter_map(|line| line.trim().strip_prefix("TCP INET: ")?.parse().ok()).next();
        if let Some(port) = port {
            return Ok(port);
        }
        process.check()?;
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "it wrote no TCP port to the file in {PORT_FILE_VARIABLE}"
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

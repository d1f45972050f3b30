//! Starts the servers under comparison, with the same flags, and stops them on drop.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;

use crate::support::measure::Side;
use crate::support::process::Placement;
use crate::support::started::child::{find, is_root};
use crate::support::started::server_process::{self, ServerProcess};

/// For both servers.
const FLAGS: [&str; 10] = ["-m", "1024", "-t", "1", "-c", "1024", "-l", "127.0.0.1", "-U", "0"];

const REPLY_DEADLINE: Duration = Duration::from_secs(10);

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
    process: ServerProcess,
}

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
        let command = server_process::command(&[], &find(&self.path).ok_or(Errno::ENOENT)?);
        let mut args: Vec<&str> = FLAGS.into_iter().chain(self.flags.iter().map(String::as_str)).collect();
        // memcached.c: "can't run as root without the -u switch".
        if is_root() && self.path.file_name().is_some_and(|name| name == "memcached") {
            args.extend(["-u", "root"]);
        }
        let stderr = match &self.log {
            Some(log) => fs::File::create(log)?.into(),
            None => Stdio::inherit(),
        };
        let mut process = placement.on_server_cpu(|| ServerProcess::spawn(command, &args, Some(stderr)))?;
        let address = (Ipv4Addr::LOCALHOST, process.await_ports()?[0]).into();
        let mut server = Server { name: self.name.clone(), address, version: String::new(), process };
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
        self.process.child.id()
    }

    /// Number of items the server holds, from `stats`.
    pub fn items(&self) -> io::Result<u64> {
        self.ask("stats", "STAT curr_items ")?.and_then(|count| count.parse().ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: stats has no curr_items", self.name))
        })
    }

    /// See [`ask`].
    pub fn ask(&self, command: &str, prefix: &str) -> io::Result<Option<String>> {
        ask(self.address, command, prefix)
    }
}

/// Sends a command on a connection of its own; returns the rest of the reply line that begins with `prefix`.
pub fn ask(address: SocketAddr, command: &str, prefix: &str) -> io::Result<Option<String>> {
    for line in lines(address, command)? {
        if let Some(rest) = line?.strip_prefix(prefix) {
            return Ok(Some(rest.to_owned()));
        }
    }
    Ok(None)
}

/// Whether the reply to a command has all of these lines. Sends it once: who asks often is not to be what clients wait for.
#[allow(dead_code)] // Not every comparison waits for a cluster.
pub fn says(address: SocketAddr, command: &str, wanted: &[&str]) -> io::Result<bool> {
    let said = lines(address, command)?.collect::<io::Result<Vec<_>>>()?;
    Ok(wanted.iter().all(|wanted| said.iter().any(|line| line == wanted)))
}

/// The lines of a reply, as they come; of one that has an end, those before it.
fn lines(address: SocketAddr, command: &str) -> io::Result<impl Iterator<Item = io::Result<String>> + use<>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(REPLY_DEADLINE))?;
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let is_end = |line: &str| line == "END" || line.contains("ERROR");
    Ok(BufReader::new(stream).lines().take_while(move |line| !line.as_ref().is_ok_and(|line| is_end(line))))
}

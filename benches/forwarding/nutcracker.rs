//! nutcracker in front of memcached, as Debian ships both.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::options::Options;
use crate::support::Result;
use crate::support::measure::Side;
use crate::support::process::Placement;
use crate::support::server::{Program, Server};
use crate::support::started::child::{self, Child, find};

/// A proxy and the server behind it; killed on drop.
pub struct Proxied {
    memcached: Server,
    nutcracker: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Proxied {
    /// Starts both on the servers' CPU and waits until nutcracker listens.
    pub fn start(options: &Options, placement: &Placement) -> Result<Self> {
        let path = options.nutcracker.display();
        let program = find(&options.nutcracker).ok_or_else(|| {
            format!("no {path}: install Debian's package nutcracker, or give --nutcracker PATH")
        })?;
        let memcached = Program::new("memcached", &options.memcached).start(placement)?;
        let dir = TempDir::new()?;
        let [address, stats] = [free_address()?, free_address()?];
        let config = dir.path().join("nutcracker.yml");
        fs::write(&config, configuration(address, memcached.address, options.server_connections))?;
        let log = dir.path().join("log");
        let mut command = child::command();
        command
            .arg(&program)
            .args(["--stats-addr", "127.0.0.1", "--stats-port", &stats.port().to_string()])
            .args(["--mbuf-size", &options.mbuf_bytes.to_string()])
            .arg("--conf-file")
            .arg(config)
            .arg("--output")
            .arg(&log)
            .arg("--pid-file")
            .arg(dir.path().join("pid"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let nutcracker = placement
            .on_server_cpu(|| Child::spawn(&mut command))
            .and_then(|mut nutcracker| {
                nutcracker.await_start(|| TcpStream::connect(address).ok())?;
                Ok(nutcracker)
            })
            .map_err(|error| {
                let said = fs::read_to_string(&log).unwrap_or_default();
                format!("cannot start {path}: {error}; it said:\n{said}")
            })?;
        Ok(Self { memcached, nutcracker, address, _dir: dir })
    }

    /// Which versions these are.
    pub fn version(&self, options: &Options) -> Result<String> {
        // It prints to stderr: "This is nutcracker-0.5.0".
        let output = Command::new(&options.nutcracker).arg("--version").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let version = said.lines().find_map(|line| line.strip_prefix("This is nutcracker-"));
        Ok(format!(
            "nutcracker {}, memcached {}",
            version.unwrap_or("of unknown version"),
            self.memcached.version
        ))
    }

    pub fn side(&self) -> Side {
        Side {
            name: "nutcracker + memcached".into(),
            address: self.address,
            pids: vec![self.nutcracker.id(), self.memcached.pid()],
        }
    }
}

/// One pool of one server. A slow reply is measured, and not refused: the timeout is for one that hangs.
fn configuration(listen: SocketAddr, server: SocketAddr, server_connections: usize) -> String {
    format!(
        "bench:
  listen: {listen}
  hash: fnv1a_64
  distribution: ketama
  auto_eject_hosts: false
  preconnect: true
  timeout: 2000
  server_connections: {server_connections}
  servers:
   - {server}:1
"
    )
}

/// An address that nobody listens on now: nutcracker does not tell which port it was given for port 0.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

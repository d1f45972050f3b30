//! nutcracker in front of memcached, as Debian ships both.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::options::Options;
use crate::support::Result;
use crate::support::measure::Side;
use crate::support::process::Placement;
use crate::support::server::{Process, Program, Server};

const START_DEADLINE: Duration = Duration::from_secs(10);

/// A proxy and the server behind it; killed on drop.
pub struct Proxied {
    memcached: Server,
    nutcracker: Process,
    address: SocketAddr,
    _dir: TempDir,
}

impl Proxied {
    /// Starts both on the servers' CPU and waits until nutcracker listens.
    pub fn start(options: &Options, placement: &Placement) -> Result<Self> {
        let memcached = Program::new("memcached", &options.memcached).start(placement)?;
        let dir = TempDir::new()?;
        let [address, stats] = [free_address()?, free_address()?];
        let config = dir.path().join("nutcracker.yml");
        fs::write(&config, configuration(address, memcached.address, options.server_connections))?;
        let log = dir.path().join("log");
        let mut command = Command::new(&options.nutcracker);
        command
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
            .on_server_cpu(|| Process::spawn(&mut command))
            .map_err(|error| unavailable(&options.nutcracker, &error))?;
        let mut proxied = Self { memcached, nutcracker, address, _dir: dir };
        proxied.wait_until_listening().map_err(|error| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("cannot start {}: {error}; it said:\n{said}", options.nutcracker.display())
        })?;
        Ok(proxied)
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

    fn wait_until_listening(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            match TcpStream::connect(self.address) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => self.nutcracker.check()?,
            }
            std::thread::sleep(Duration::from_millis(5));
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

fn unavailable(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => {
            format!("no {path}: install Debian's package nutcracker, or give --nutcracker PATH")
        }
        _ => format!("cannot start {path}: {error}"),
    }
}

/// An address that nobody listens on now: nutcracker does not tell which port it was given for port 0.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

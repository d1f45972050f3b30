//! An etcd for the nodes to find each other through.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::options::Options;
use crate::support::Result;
use crate::support::server::Process;

const START_DEADLINE: Duration = Duration::from_secs(20);
const REPLY_DEADLINE: Duration = Duration::from_secs(5);

/// A single etcd with a temporary directory; killed on drop. It runs where the caller does, off the servers' CPU.
pub struct Etcd {
    process: Process,
    address: SocketAddr,
    _dir: TempDir,
}

impl Etcd {
    /// Starts one and waits until it is healthy.
    pub fn start(options: &Options) -> Result<Self> {
        let dir = TempDir::new()?;
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let url = format!("http://{address}");
        let log_path = dir.path().join("log");
        let log = fs::File::create(&log_path)?;
        let mut command = Command::new(&options.etcd);
        command
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", "http://127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(log);
        let path = options.etcd.display();
        let process = Process::spawn(&mut command).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                format!("no {path}: install Debian's package etcd-server, or give --etcd PATH")
            }
            _ => format!("cannot start {path}: {error}"),
        })?;
        let mut etcd = Self { process, address, _dir: dir };
        etcd.wait_until_healthy().map_err(|error| {
            let said = fs::read_to_string(&log_path).unwrap_or_default();
            format!("cannot start {path}: {error}; it said:\n{said}")
        })?;
        Ok(etcd)
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    fn wait_until_healthy(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.is_healthy().unwrap_or(false) {
            self.process.check()?;
            if Instant::now() > deadline {
                return Err(io::Error::other("it is not healthy"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn is_healthy(&self) -> io::Result<bool> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(REPLY_DEADLINE))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply.contains("\"true\""))
    }
}

//! etcd processes on free ports, with a temporary directory, killed when dropped.
//!
//! The benches use this file, too.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::child::{Child, program};
use super::shown::Cut;
use super::site::Site;

/// How long an answer about its health may take; then it is asked again.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);

/// A single etcd. It dies with the thread that started it.
pub struct Etcd {
    child: Child,
    setup: Setup,
}

/// What stays the same when it is started again.
struct Setup {
    program: PathBuf,
    dir: TempDir,
    site: Site,
    client: u16,
    peer: u16,
    /// Where it tells of its health, without TLS.
    health: u16,
    tls: Option<Tls>,
}

/// The files with which an etcd asks clients for certificates, and which the client shows.
#[derive(Clone)]
pub struct Tls {
    pub ca: String,
    pub cert: String,
    pub key: String,
}

impl Etcd {
    /// Starts an etcd and waits until it answers.
    pub fn start() -> Etcd {
        Etcd::start_on(Site::loopback(), None)
    }

    /// Starts an etcd with mutual TLS on the clients' side, at the address that certificates name, and waits until it
    /// answers.
    pub fn start_with(tls: Tls) -> Etcd {
        Etcd::start_on(Site::localhost(), Some(tls))
    }

    /// Starts an etcd anywhere, perhaps with mutual TLS on the clients' side, and waits until it answers.
    pub fn start_on(site: Site, tls: Option<Tls>) -> Etcd {
        let etcd = Etcd::try_start(program("etcd", "etcd-server"), site, tls);
        etcd.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts this etcd anywhere, perhaps with mutual TLS on the clients' side, and waits until it answers.
    ///
    /// # Errors
    ///
    /// It ends instead, or does not answer within the deadline.
    pub fn try_start(program: PathBuf, site: Site, tls: Option<Tls>) -> io::Result<Etcd> {
        let [client, peer, health] = [(); 3].map(|()| site.free_port());
        let setup = Setup { program, dir: TempDir::new()?, site, client, peer, health, tls };
        Ok(Etcd { child: setup.start()?, setup })
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.setup.site.ip, self.setup.client)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Kills it, as a power failure would.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Starts it again after [`Etcd::kill`], with the same data and ports.
    pub fn restart(&mut self) {
        self.child = self.setup.start().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts it again after [`Etcd::kill`], on the same ports, as one that has never held anything.
    pub fn restart_empty(&mut self) {
        fs::remove_dir_all(self.setup.dir.path().join("data")).expect("the data is there");
        self.restart();
    }

    /// Runs `etcdctl` and returns what it printed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ctl(&self, args: &[&str]) -> String {
        let mut command = self.setup.site.command(&program("etcdctl", "etcd-client"));
        command.env("ETCDCTL_API", "3").args(["--command-timeout", "30s"]);
        if let Some(tls) = &self.setup.tls {
            command.args(["--cacert", &tls.ca, "--cert", &tls.cert, "--key", &tls.key]);
        }
        command.args(["--endpoints", &self.setup.client_url()]).args(args);
        let output = command.output().expect("etcdctl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "etcdctl {args:?}: {}", Cut(text(&output.stderr)));
        text(&output.stdout)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if thread::panicking() {
            // What it says at its end is there, too.
            self.child.kill();
            let log = self.setup.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- last of etcd's log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

impl Setup {
    /// Starts the process and waits until it answers.
    fn start(&self) -> io::Result<Child> {
        self.try_start().map_err(|error| {
            let log = Cut(self.log());
            io::Error::other(format!("cannot start {}: {error}; it said:\n{log}", self.program.display()))
        })
    }

    fn try_start(&self) -> io::Result<Child> {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let (clients, peers) = (self.client_url(), format!("http://{}:{}", self.site.ip, self.peer));
        let mut command = self.site.command(&self.program);
        command
            .args(["--name", "etcd", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("etcd={peers}")])
            .args(["--listen-metrics-urls", &format!("http://{}:{}", self.site.ip, self.health)])
            // Quick elections, so that a lease may be as short as a second.
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            // A password is looked at in no time, on a busy machine, too.
            .args(["--bcrypt-cost", "4"]);
        if let Some(tls) = &self.tls {
            command.args(["--client-cert-auth", "--trusted-ca-file", &tls.ca]);
            command.args(["--cert-file", &tls.cert, "--key-file", &tls.key]);
        }
        let mut child = Child::spawn(command.stdout(log.try_clone()?).stderr(log))?;
        child.await_start(|| self.is_healthy().unwrap_or(false).then_some(()))?;
        Ok(child)
    }

    fn is_healthy(&self) -> io::Result<bool> {
        let mut stream = self.site.within(|| TcpStream::connect((self.site.ip, self.health)))?;
        stream.set_read_timeout(Some(HEALTH_TIMEOUT))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply.contains("\"true\""))
    }

    fn client_url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.site.ip, self.client)
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

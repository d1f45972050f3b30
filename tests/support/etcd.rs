//! etcd processes on free ports, with a temporary directory, killed when dropped.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::server::eventually;
use crate::support::shown::Cut;
use crate::support::site::Site;

/// A single etcd. It dies with the thread that started it, as a `Server` does.
pub struct Etcd {
    child: Child,
    dir: TempDir,
    site: Site,
    client: u16,
    peer: u16,
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
        let dir = TempDir::new().expect("a temporary directory can be made");
        let (client, peer) = (site.free_port(), site.free_port());
        let child = spawn(dir.path(), &site, (client, peer), tls.as_ref());
        let mut etcd = Etcd { child, dir, site, client, peer, tls };
        etcd.await_answer();
        etcd
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.site.ip, self.client)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("Linux process ids fit in i32");
        kill(Pid::from_raw(pid), signal).expect("the process is ours and not yet reaped");
    }

    /// Kills it, as a power failure would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the child can be waited for");
    }

    /// Starts it again after [`Etcd::kill`], with the same data and ports.
    pub fn restart(&mut self) {
        self.child = spawn(self.dir.path(), &self.site, (self.client, self.peer), self.tls.as_ref());
        self.await_answer();
    }

    /// Starts it again after [`Etcd::kill`], on the same ports, as one that has never held anything.
    pub fn restart_empty(&mut self) {
        fs::remove_dir_all(self.dir.path().join("data")).expect("the data is there");
        self.restart();
    }

    /// Runs `etcdctl` and returns what it printed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.try_ctl(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "etcdctl {args:?}: {}", Cut(text(&output.stderr)));
        text(&output.stdout)
    }

    fn try_ctl(&self, args: &[&str]) -> Output {
        let mut command = self.site.command("etcdctl", "etcd-client");
        command.env("ETCDCTL_API", "3").args(["--command-timeout", "30s"]);
        if let Some(tls) = &self.tls {
            command.args(["--cacert", &tls.ca, "--cert", &tls.cert, "--key", &tls.key]);
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        command.args(["--endpoints", &format!("{scheme}://{}", self.endpoint())]);
        command.args(args).stdin(Stdio::null()).output().expect("etcdctl starts")
    }

    fn await_answer(&mut self) {
        eventually("etcd answers", || {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                panic!("etcd ended at start with {status}: {}", Cut(self.log()));
            }
            self.try_ctl(&["endpoint", "health"]).status.success()
        });
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Fails only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- last of etcd's log:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
    }
}

fn spawn(dir: &Path, site: &Site, (client, peer): (u16, u16), tls: Option<&Tls>) -> Child {
    let log = fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .expect("the directory is writable");
    let scheme = if tls.is_some() { "https" } else { "http" };
    let clients = format!("{scheme}://{}:{client}", site.ip);
    let peers = format!("http://{}:{peer}", site.ip);
    let mut command = site.command("etcd", "etcd-server");
    command
        .args(["--name", "etcd", "--data-dir"])
        .arg(dir.join("data"))
        .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("etcd={peers}")])
        // Quick elections, so that a lease may be as short as a second.
        .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
        // A password is looked at in no time, on a busy machine, too.
        .args(["--bcrypt-cost", "4"]);
    if let Some(tls) = tls {
        command.args(["--client-cert-auth", "--trusted-ca-file", &tls.ca]);
        command.args(["--cert-file", &tls.cert, "--key-file", &tls.key]);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor is left"))
        .stderr(log)
        .spawn()
        .expect("setpriv starts")
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

//! What a local cluster is made of: a directory, an etcd, nodes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::errno::Errno;
use tokio::process::Command;

use crate::local_cluster::child::Child;
use crate::local_cluster::probe;
use crate::local_cluster::start::{Error, Options, system};

/// The first node's port for HTTP, the usual one.
const HTTP_PORT: u16 = 11280;

/// Lines of etcd's log that are shown when it ends too early.
const SHOWN_LOG_LINES: usize = 10;

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes one that only this user may read.
    pub fn make(scratch: &Path) -> Result<Self, Errno> {
        nix::unistd::mkdtemp(&scratch.join("filbert-XXXXXX")).map(Self)
    }

    /// The last lines that etcd wrote.
    pub fn end_of_etcd_log(&self) -> String {
        let log = fs::read(self.etcd_log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join("\n")
    }

    fn etcd_log(&self) -> PathBuf {
        self.0.join("etcd.log")
    }

    fn port_file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.port"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays in a directory for such things.
        _ = fs::remove_dir_all(&self.0);
    }
}

/// Finds out whether there is an etcd.
pub(super) async fn find_etcd() -> Result<(), Error> {
    let mut command = Command::new("etcd");
    let status = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    match status {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoEtcd),
        Err(error) => Err(system("starting etcd")(error)),
    }
}

/// Starts an etcd on free ports: the process, and where its clients reach it. `attempt` counts
/// from 1.
pub(super) fn start_etcd(folder: &Folder, attempt: usize) -> Result<(Child, String), Error> {
    let start = || -> io::Result<_> {
        let [client, peer] = free_ports()?;
        let (client, peers) = (format!("127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let clients = format!("http://{client}");
        let data = folder.0.join(format!("etcd-{attempt}"));
        let flags = [
            ("name", OsString::from("etcd")),
            ("data-dir", data.into()),
            ("listen-client-urls", clients.clone().into()),
            ("advertise-client-urls", clients.into()),
            ("listen-peer-urls", peers.clone().into()),
            ("initial-advertise-peer-urls", peers.clone().into()),
            ("initial-cluster", format!("etcd={peers}").into()),
            // It is alone, so that nobody has to be waited for; no lease can be shorter than 1.5
            // elections.
            ("heartbeat-interval", "50".into()),
            ("election-timeout", "500".into()),
        ];
        let log = File::create(folder.etcd_log())?;
        let child = Child::start_quietly("etcd", OsStr::new("etcd"), log, |command| {
            for (flag, value) in flags {
                command.arg(format!("--{flag}")).arg(value);
                // etcd refuses to start with an option both as a flag and as a variable.
                command.env_remove(format!("ETCD_{}", flag.replace('-', "_").to_uppercase()));
            }
        })?;
        Ok((child, client))
    };
    start().map_err(system("starting etcd"))
}

/// Two ports that nobody listens on now.
fn free_ports() -> io::Result<[u16; 2]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, other) = (bind()?, bind()?);
    Ok([one.local_addr()?.port(), other.local_addr()?.port()])
}

/// A node and how it was started.
#[derive(Debug)]
pub(super) struct Node {
    pub child: Child,
    /// Where its clients reach it; 0 until it has said so.
    pub port: u16,
    /// Where it answers HTTP; 0 until it has said so.
    pub http_port: u16,
    /// Its end has been said.
    pub is_missed: bool,
    program: PathBuf,
    args: Vec<OsString>,
}

impl Node {
    /// Starts the node of that number, counted from 0, with its etcd there.
    pub fn start(options: &Options, folder: &Folder, index: u16, etcd: &str) -> Result<Self, Error> {
        let name = format!("node-{}", index + 1);
        let start = || -> io::Result<_> {
            let program = std::env::current_exe()?;
            let args = node_args(options, &name, etcd);
            // Written by the node: a port that was picked here could be taken until it binds.
            let port_file = folder.port_file(&name);
            let listen = format!("127.0.0.1:{}", port_to_ask_for(options.port, index));
            let http_port = if options.port == 0 { 0 } else { HTTP_PORT };
            let http = format!("127.0.0.1:{}", port_to_ask_for(http_port, index));
            let child = Child::start(&name, program.as_os_str(), |command| {
                command.args(&args).args(["--listen", &listen, "--http-listen", &http]);
                command.env("MEMCACHED_PORT_FILENAME", port_file);
                options.hidden_variables.iter().for_each(|variable| _ = command.env_remove(variable));
            })?;
            Ok(Self { child, port: 0, http_port: 0, is_missed: false, program, args })
        };
        start().map_err(system("starting a node"))
    }

    /// Whether it answers its clients.
    pub async fn answers(&mut self, folder: &Folder) -> bool {
        if self.port == 0 {
            let file = fs::read_to_string(folder.port_file(&self.child.name)).unwrap_or_default();
            let port = |protocol: &str| {
                let port = file.lines().find_map(|line| line.strip_prefix(protocol)?.strip_prefix(" INET: "));
                port.and_then(|port| port.trim().parse().ok()).unwrap_or(0)
            };
            (self.port, self.http_port) = (port("TCP"), port("HTTP"));
        }
        self.port != 0 && probe::node_answers(self.port).await
    }

    /// How many members it sees.
    pub async fn members(&self) -> Option<usize> {
        probe::members(self.port).await
    }

    /// The command that starts it again, for a shell.
    pub fn command_line(&self) -> String {
        let here = |port| OsString::from(format!("127.0.0.1:{port}"));
        let listen = ["--listen".into(), here(self.port), "--http-listen".into(), here(self.http_port)];
        let words = std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().chain(&listen).map(OsString::as_os_str));
        words.map(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// What a node is told, but for where it listens.
fn node_args(options: &Options, name: &str, etcd: &str) -> Vec<OsString> {
    // Any free port for the peers, who learn of it through etcd.
    let own = ["--node-id", name, "--etcd-endpoints", etcd, "--peer-listen", "127.0.0.1:0"];
    options.node_args.iter().cloned().chain(own.map(OsString::from)).collect()
}

/// The port that a node asks for: its own in the row that begins with `first` when nobody has it, or
/// any.
fn port_to_ask_for(first: u16, index: u16) -> u16 {
    let port = if first == 0 { None } else { first.checked_add(index) };
    port.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap_or(0)
}

/// A word as a shell takes it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, expected) in [
            ("--listen=127.0.0.1:1", "--listen=127.0.0.1:1"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(OsStr::new(word)), expected);
        }
    }

    #[test]
    fn a_port_that_is_taken_is_not_asked_for() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = taken.local_addr().expect("bound").port();
        assert_eq!(port_to_ask_for(port, 0), 0);
        assert_eq!(port_to_ask_for(65_535, 1), 0, "there is none above");
        assert_eq!(port_to_ask_for(0, 0), 0);
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it() {
        let scratch = tempfile::tempdir().expect("a folder");
        let folder = Folder::make(scratch.path()).expect("writable");
        let lines: Vec<_> = (0..30).map(|line| line.to_string()).collect();
        fs::write(folder.etcd_log(), lines.join("\n")).expect("written");
        assert_eq!(folder.end_of_etcd_log(), lines[20..].join("\n"));
        drop(folder);
        assert_eq!(fs::read_dir(scratch.path()).expect("readable").count(), 0);
    }
}

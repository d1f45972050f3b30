//! One node of a cluster: a Filbert process that keeps its addresses when it is restarted, and what it says of itself.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::http::Http;
use crate::support::pipe::Pipe;
use crate::support::server::{Product, Server, command, eventually};
use crate::support::shown::{Cut, last_of};
use crate::support::site::Site;
use crate::support::wire::{DEADLINE, Wire};

/// A Filbert that can be ended and started again. It dies with the thread that started it.
pub struct Node {
    pub id: String,
    site: Site,
    port: u16,
    args: Vec<String>,
    server: Option<Server>,
    /// Whether it stands still.
    stopped: bool,
    /// What processes wrote to their standard error that are gone.
    past: String,
    /// Where they write it, if not to a file.
    pub pipe: Option<Pipe>,
    /// A file of a thread's name in it makes that thread stand still (`src/watchdog.rs`).
    held: TempDir,
}

impl Node {
    /// A node that is not started yet: `args` stand beside `-l` and `-p`.
    pub fn new(id: &str, site: Site, args: Vec<String>) -> Node {
        let port = site.free_port();
        let held = TempDir::new().expect("a temporary directory can be made");
        let (id, past) = (id.to_owned(), String::new());
        Node { id, site, port, args, server: None, stopped: false, past, pipe: None, held }
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it runs already, or does not come to listen.
    pub fn start(&mut self) {
        assert!(self.server.is_none(), "{} runs already", self.id);
        let (ip, port) = (self.site.ip.to_string(), self.port.to_string());
        let mut args = vec!["-l", &ip, "-p", &port];
        args.extend(self.args.iter().map(String::as_str));
        let wrapper = self.site.wrapper();
        let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        let mut command = command(Product::Filbert, &wrapper);
        command.env("FILBERT_TEST_HOLD", self.held.path());
        let stderr = self.pipe.as_ref().map(Pipe::stdio);
        let mut server = Server::spawn_into(Product::Filbert, command, &args, stderr);
        server.await_ports();
        self.server = Some(server);
    }

    /// `kill -9`, if it runs.
    pub fn kill9(&mut self) {
        self.stopped = false;
        if let Some(server) = self.server.take() {
            self.past.push_str(&server.stderr());
            self.past.push_str("--- killed\n");
        }
    }

    /// SIGSTOP: it stands still when this returns.
    pub fn stop(&mut self) {
        self.server().signal(Signal::SIGSTOP);
        // Its threads do so one by one, as they are seen by the scheduler.
        eventually("every thread has stopped", || self.server().threads().iter().all(|&state| state == 'T'));
        self.stopped = true;
    }

    /// SIGCONT: it goes on.
    pub fn cont(&mut self) {
        self.server().signal(Signal::SIGCONT);
        self.stopped = false;
    }

    /// SIGTERM: it leaves. [`Node::wait_exit`] waits for its end.
    pub fn term(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) {
        self.server().signal(signal);
    }

    /// Waits until its process has ended.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut server = self.server.take().unwrap_or_else(|| panic!("{} does not run", self.id));
        let status = server.wait_exit();
        self.past.push_str(&server.stderr());
        self.past.push_str("--- ended\n");
        status
    }

    /// Makes one of its threads stand still at its next beat.
    pub fn hold(&self, thread: &str) {
        fs::write(self.held.path().join(thread), "").expect("the directory is writable");
    }

    /// Lets it go on.
    pub fn release(&self, thread: &str) {
        fs::remove_file(self.held.path().join(thread)).expect("it was held");
    }

    /// Whether its process is there and does not stand still.
    pub fn runs(&self) -> bool {
        self.server.is_some() && !self.stopped
    }

    /// What it wrote to its standard error, in all its lives.
    pub fn stderr(&self) -> String {
        if let Some(pipe) = &self.pipe {
            return pipe.text();
        }
        let present = self.server.as_ref().map(Server::stderr).unwrap_or_default();
        format!("{}{present}", self.past)
    }

    /// Where its clients reach it.
    pub fn addr(&self) -> SocketAddr {
        (self.site.ip, self.port).into()
    }

    /// How its clients reach it, for threads of their own.
    pub fn client_addr(&self) -> ClientAddr {
        ClientAddr { site: self.site.clone(), port: self.port }
    }

    /// Where it answers HTTP.
    pub fn http(&self) -> Http {
        Http::at(self.server().http_addr())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.server().pid()
    }

    /// A new client connection.
    pub fn connect(&self) -> Wire {
        self.connect_for(DEADLINE)
    }

    /// The same, where what takes longer fails.
    fn connect_for(&self, patience: Duration) -> Wire {
        let stream = self.site.connect(self.port, DEADLINE);
        let stream = stream.unwrap_or_else(|e| panic!("cannot connect to {}: {e}", self.id));
        stream.set_read_timeout(Some(patience)).expect("a patience that is not zero");
        stream.set_write_timeout(Some(patience)).expect("a patience that is not zero");
        Wire::over(stream)
    }

    /// What `stats ring` says.
    pub fn ring(&self) -> Ring {
        Ring::of(&self.ring_stats())
    }

    /// The same, line by line. A node that has just stood still closes connections unheard.
    pub fn ring_stats(&self) -> BTreeMap<String, String> {
        let mut stats = None;
        eventually("the connection is not closed", || {
            stats = try_stats(&mut self.connect(), "stats ring")
                .unwrap_or_else(|error| panic!("`stats ring` is answered in time: {error}"));
            stats.is_some()
        });
        stats.unwrap_or_default()
    }

    /// What `stats ring` says, if the answer comes in this short time: a thread of the node may stand still.
    pub fn ring_within(&self, patience: Duration) -> Option<Ring> {
        Some(Ring::of(&try_stats(&mut self.connect_for(patience), "stats ring").ok()??))
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap_or_else(|| panic!("{} does not run", self.id))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            // The running server tells of itself.
            eprintln!("--- {} ({}), earlier lives:\n{}", self.id, self.addr(), last_of(&self.past));
        }
    }
}

/// How clients reach a node.
#[derive(Clone, Debug)]
pub struct ClientAddr {
    pub site: Site,
    pub port: u16,
}

/// What one node believes about the owners of keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Ring {
    pub epoch: u64,
    pub digest: String,
    pub settled: bool,
    /// What the node that was asked may do: `serving` when it answers for its keys.
    pub standing: String,
    /// The members' ids, each with what its line says: `share`, `slots`, `weight`, `addr`, `peer`, `zone`.
    pub members: BTreeMap<String, BTreeMap<String, String>>,
}

impl Ring {
    fn of(stats: &BTreeMap<String, String>) -> Ring {
        let one = |name: &str| {
            stats.get(name).unwrap_or_else(|| panic!("`stats ring` has {name}: {:?}", Cut(stats)))
        };
        let members: BTreeMap<_, _> = stats
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("member:")?.to_owned(), fields(value))))
            .collect();
        assert_eq!(one("members"), &members.len().to_string(), "{:?}", Cut(stats));
        Ring {
            epoch: one("epoch").parse().expect("an epoch is a number"),
            digest: one("digest").clone(),
            settled: match one("settled").as_str() {
                "yes" => true,
                "no" => false,
                other => panic!("settled is {other:?}"),
            },
            standing: one("standing").clone(),
            members,
        }
    }

    /// The members' ids.
    pub fn ids(&self) -> Vec<&str> {
        self.members.keys().map(String::as_str).collect()
    }
}

/// Words such as `share=0.3334`.
fn fields(text: &str) -> BTreeMap<String, String> {
    text.split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| word.split_once('=').unwrap_or_else(|| panic!("{word:?} is no field in {text:?}")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The `STAT name value` lines that answer a command; the values of a name that is there more than once are joined.
#[track_caller]
pub fn stats(wire: &mut Wire, request: &str) -> BTreeMap<String, String> {
    try_stats(wire, request)
        .unwrap_or_else(|error| panic!("`{request}` is answered in time: {error}"))
        .unwrap_or_else(|| panic!("the connection was closed on `{request}`"))
}

/// As [`stats`]; `None` when the connection is closed instead of an answer.
fn try_stats(wire: &mut Wire, request: &str) -> io::Result<Option<BTreeMap<String, String>>> {
    wire.send(format!("{request}\r\n").as_bytes());
    let mut stats = BTreeMap::new();
    loop {
        let line = wire.line()?;
        let line = String::from_utf8(line).expect("statistics are text");
        match &*line {
            "" => return Ok(None),
            "END\r\n" => return Ok(Some(stats)),
            _ => {}
        }
        let (name, value) = line
            .strip_prefix("STAT ")
            .and_then(|rest| rest.strip_suffix("\r\n"))
            .map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
            .unwrap_or_else(|| panic!("`{request}` is answered {:?}", Cut(&line)));
        let known: &mut String = stats.entry(name.to_owned()).or_default();
        if !known.is_empty() {
            known.push(' ');
        }
        known.push_str(value);
    }
}

//! How many instructions a command takes in the server, by itself and in a group: `cargo bench --bench instructions`.
//!
//! The server runs under callgrind (Debian: `valgrind`) with one worker thread, for one connection and a pipeline of 16. What
//! the kernel does is not in the count. Each figure is the difference of two runs, so the start is not in it, either.
//! It is the same on every machine, and on a busy one.

/// What starts servers in the tests.
#[allow(dead_code)]
#[path = "../tests/support"]
mod support {
    mod child;
    pub mod server_process;
}

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::server_process::{self, ServerProcess};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Commands that are sent, and answered, together.
const PIPELINE: u64 = 16;

const KEYS: u64 = 1000;
const VALUE_BYTES: usize = 100;

/// Batches of the two runs whose difference counts.
const BATCHES: [u64; 2] = [500, 2500];

/// callgrind makes a program fifty times slower.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the table's rows are about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Groups {
    None,
    Other,
    Memory,
    Origin,
    Loaded,
}

impl Groups {
    const ALL: [Self; 5] = [Self::None, Self::Other, Self::Memory, Self::Origin, Self::Loaded];

    fn name(self) -> &'static str {
        match self {
            Self::None => "no groups",
            Self::Other => "a key of no group",
            Self::Memory => "with memory of its own",
            Self::Origin => "written, with an origin",
            Self::Loaded => "loaded from an origin",
        }
    }

    /// The file of groups, with an origin there.
    fn config(self, origin: SocketAddr) -> String {
        let prefix = if self == Self::Other { "other:" } else { "key" };
        let group = format!("[[group]]\nname = 'g'\nprefix = '{prefix}'\n");
        match self {
            Self::None => String::new(),
            Self::Memory => format!("{group}max-bytes = '32m'\n"),
            Self::Other | Self::Origin | Self::Loaded => format!(
                "{group}ttl = '1h'\nrefresh-ahead = 0.1\nstale-while-revalidate = '1h'\nwait = '60s'\n\
                 [group.origin]\nhttp = 'http://{origin}/{{key}}'\n"
            ),
        }
    }
}

const COMMANDS: [&str; 3] = ["get", "mg", "set"];

fn main() -> Result<()> {
    let origin = origin()?;
    println!("instructions for each command; pipeline of {PIPELINE}, values of {VALUE_BYTES} bytes");
    println!("{:24} {:>8} {:>8} {:>8}", "", COMMANDS[0], COMMANDS[1], COMMANDS[2]);
    for groups in Groups::ALL {
        let mut row = format!("{:24}", groups.name());
        for command in COMMANDS {
            let [few, many] = BATCHES.map(|batches| count(groups, origin, command, batches));
            row += &format!(" {:8}", (many? - few?) / ((BATCHES[1] - BATCHES[0]) * PIPELINE));
        }
        println!("{row}");
    }
    Ok(())
}

/// Where an HTTP server listens that has one value for every key.
fn origin() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let reply =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {VALUE_BYTES}\r\n\r\n{}", "x".repeat(VALUE_BYTES));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(io::Result::ok) {
            let reply = reply.clone();
            std::thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines().map_while(io::Result::ok);
                // A request ends with an empty line.
                while lines.any(|line| line.is_empty()) && (&stream).write_all(reply.as_bytes()).is_ok() {}
            });
        }
    });
    Ok(address)
}

/// All instructions of a server that is sent so many batches.
fn count(groups: Groups, origin: SocketAddr, command: &str, batches: u64) -> Result<u64> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("groups.toml");
    std::fs::write(&config, groups.config(origin))?;
    let callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let filbert = server_process::command(&callgrind, Path::new(env!("CARGO_BIN_EXE_filbert")));
    let config = config.to_str().ok_or("a temporary path is no text")?;
    let args = ["-l", "127.0.0.1", "-t", "1", "--http-listen", "off", "--config", config];
    let mut server = ServerProcess::spawn(filbert, &args, None)?;
    let ports = server.await_ports().map_err(|error| format!("valgrind: {error}; {}", server.stderr()))?;
    drive((Ipv4Addr::LOCALHOST, ports[0]).into(), groups == Groups::Loaded, command, batches)?;
    server.child.signal(Signal::SIGTERM);
    server.child.wait()?;
    let said = server.stderr();
    let collected = said.lines().find(|line| line.contains("Collected : "));
    let collected = collected.ok_or("callgrind has counted nothing")?;
    Ok(collected.rsplit(' ').next().unwrap_or_default().parse()?)
}

fn drive(address: SocketAddr, loads: bool, command: &str, batches: u64) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let value = "x".repeat(VALUE_BYTES);
    let one = |command: &str, key: &str| match command {
        "get" => {
            (format!("get {key}\r\n"), format!("VALUE {key} 0 {VALUE_BYTES}\r\n{value}\r\nEND\r\n").len())
        }
        "mg" => (format!("mg {key} v\r\n"), format!("VA {VALUE_BYTES}\r\n{value}\r\n").len()),
        _ => (format!("set {key} 0 0 {VALUE_BYTES}\r\n{value}\r\n"), "STORED\r\n".len()),
    };
    let key = |number: u64| format!("key{:013}", number % KEYS);
    for number in 0..KEYS {
        ask(&mut stream, &[one(if loads { "get" } else { "set" }, &key(number))])?;
    }
    for batch in 0..batches {
        let requests: Vec<_> =
            (0..PIPELINE).map(|place| one(command, &key(batch * PIPELINE + place))).collect();
        ask(&mut stream, &requests)?;
    }
    Ok(())
}

/// Sends requests together, and reads as many bytes as their replies have.
fn ask(stream: &mut TcpStream, requests: &[(String, usize)]) -> Result<()> {
    let bytes: String = requests.iter().map(|(request, _)| request.as_str()).collect();
    stream.write_all(bytes.as_bytes())?;
    let mut reply = vec![0; requests.iter().map(|(_, bytes)| bytes).sum()];
    stream.read_exact(&mut reply)?;
    let ends_well = [&b"END\r\n"[..], b"x\r\n", b"STORED\r\n"].iter().any(|end| reply.ends_with(end));
    if ends_well { Ok(()) } else { Err(format!("wrong reply: {}", reply.escape_ascii()).into()) }
}

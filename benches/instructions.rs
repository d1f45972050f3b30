//! How many instructions a command takes in the server, by itself and in a group: `cargo bench --bench instructions`.
//!
//! The server runs under callgrind (Debian: `valgrind`) with one worker thread, for one connection and a pipeline of 16. What
//! the kernel does is not in the count. Each figure is the difference of two runs, so the start is not in it, either.
//! It is the same on every machine, and on a busy one.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", env!("CARGO_BIN_EXE_filbert")]);
    valgrind.args(["-l", "127.0.0.1", "-t", "1", "--http-listen", "off", "-p", &address.port().to_string()]);
    valgrind.arg("--config").arg(config).stderr(Stdio::piped());
    let mut server = Server(valgrind.spawn().map_err(|error| format!("valgrind: {error}"))?);
    drive(address, groups == Groups::Loaded, command, batches)?;
    kill(Pid::from_raw(server.0.id().try_into()?), Signal::SIGTERM)?;
    let said = BufReader::new(server.0.stderr.take().ok_or("no stderr")?);
    let collected = said.lines().map_while(io::Result::ok).find(|line| line.contains("Collected : "));
    let collected = collected.ok_or("callgrind has counted nothing")?;
    server.0.wait()?;
    Ok(collected.rsplit(' ').next().unwrap_or_default().parse()?)
}

/// Killed on drop.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn drive(address: SocketAddr, loads: bool, command: &str, batches: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
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

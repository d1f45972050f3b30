//! How many instructions a command takes in the server, by itself and in a group: `cargo bench --bench instructions`.
//!
//! The server runs under callgrind (Debian: `valgrind`) with one worker thread, for one connection and a pipeline of 16. What
//! the kernel does is not in the count. Each figure is the difference of two runs, so the start is not in it, either.
//! It is the same on every machine, and on a busy one.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
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

/// What stands in the file of groups, by its name in the table.
const GROUPS: [(&str, &str); 4] = [
    ("no groups", ""),
    (
        "a key of no group",
        "[[group]]\nname = 'g'\nprefix = 'other:'\nttl = '1h'\n[group.origin]\nhttp = 'http://127.0.0.1:9/{key}'\n",
    ),
    ("with memory of its own", "[[group]]\nname = 'g'\nprefix = 'key'\nmax-bytes = '32m'\n"),
    (
        "with an origin",
        "[[group]]\nname = 'g'\nprefix = 'key'\nttl = '1h'\nrefresh-ahead = 0.1\n[group.origin]\nhttp = 'http://127.0.0.1:9/{key}'\n",
    ),
];

const COMMANDS: [&str; 3] = ["get", "mg", "set"];

fn main() -> Result<()> {
    println!("instructions for each command; pipeline of {PIPELINE}, values of {VALUE_BYTES} bytes");
    println!("{:24} {:>8} {:>8} {:>8}", "", COMMANDS[0], COMMANDS[1], COMMANDS[2]);
    for (name, groups) in GROUPS {
        let mut row = format!("{name:24}");
        for command in COMMANDS {
            let [few, many] = BATCHES.map(|batches| count(groups, command, batches));
            row += &format!(" {:8}", (many? - few?) / ((BATCHES[1] - BATCHES[0]) * PIPELINE));
        }
        println!("{row}");
    }
    Ok(())
}

/// All instructions of a server that is sent so many batches.
fn count(groups: &str, command: &str, batches: u64) -> Result<u64> {
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("groups.toml");
    std::fs::write(&config, groups)?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", env!("CARGO_BIN_EXE_filbert")]);
    valgrind.args(["-l", "127.0.0.1", "-t", "1", "--http-listen", "off", "-p", &address.port().to_string()]);
    valgrind.arg("--config").arg(config).stderr(Stdio::piped());
    let mut server = Server(valgrind.spawn().map_err(|error| format!("valgrind: {error}"))?);
    drive(address, command, batches)?;
    kill(Pid::from_raw(server.0.id().try_into()?), Signal::SIGTERM)?;
    let said = BufReader::new(server.0.stderr.take().ok_or("no stderr")?);
    let collected =
        said.lines().map_while(std::result::Result::ok).find(|line| line.contains("Collected : "));
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

fn drive(address: SocketAddr, command: &str, batches: u64) -> Result<()> {
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
    let set = |key: &str| (format!("set {key} 0 0 {VALUE_BYTES}\r\n{value}\r\n"), "STORED\r\n".len());
    let one = |key: &str| match command {
        "get" => {
            (format!("get {key}\r\n"), format!("VALUE {key} 0 {VALUE_BYTES}\r\n{value}\r\nEND\r\n").len())
        }
        "mg" => (format!("mg {key} v\r\n"), format!("VA {VALUE_BYTES}\r\n{value}\r\n").len()),
        _ => set(key),
    };
    let key = |number: u64| format!("key{:013}", number % KEYS);
    for number in 0..KEYS {
        ask(&mut stream, &[set(&key(number))])?;
    }
    for batch in 0..batches {
        let requests: Vec<_> = (0..PIPELINE).map(|place| one(&key(batch * PIPELINE + place))).collect();
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

//! Memory for what clients leave unfinished: many of them that do not send the end of a large value, and many that ask
//! for large values and read none.
//!
//! A fresh server with `-m 64` for each run. What the kernel holds in the sockets' buffers is no part of the figures.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::support::Result;
use crate::support::measure;
use crate::support::options::QUICK_PART;
use crate::support::process::{Placement, most_resident_bytes, resident_bytes};
use crate::support::report::{Better, CaseReport, Figure};
use crate::support::server::{Program, Server};

const FLAGS: [&str; 4] = ["-m", "64", "-t", "4"];

/// Memory repeats better than time does.
const MOST_REPETITIONS: usize = 5;

const HALF_SENT: u32 = 500;
const HALF_SENT_BYTES: usize = 1_000_000;
/// What is not sent of a value.
const MISSING_BYTES: usize = 1_000;

const SLOW_READERS: u32 = 200;
const SLOW_READ_BYTES: usize = 500_000;
/// Values that each slow reader asks for: more than the sockets' buffers take.
const GETS: usize = 30;

/// The memory is read so long after the clients have done their part: longer than Filbert lets anyone wait for room.
const SETTLE: Duration = Duration::from_secs(2);
const QUICK_SETTLE: Duration = Duration::from_millis(200);

/// A server that neither takes nor answers what clients send for so long ends the run.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy)]
enum Clients {
    HalfSent,
    SlowReaders,
}

impl Clients {
    const ALL: [Self; 2] = [Self::HalfSent, Self::SlowReaders];

    fn name(self) -> &'static str {
        match self {
            Self::HalfSent => "500 half-sent sets of 1 MB",
            Self::SlowReaders => "200 slow readers of 500 KB",
        }
    }

    fn count(self) -> u32 {
        match self {
            Self::HalfSent => HALF_SENT,
            Self::SlowReaders => SLOW_READERS,
        }
    }

    /// What each of them sends.
    fn message(self) -> Vec<u8> {
        match self {
            Self::HalfSent => {
                let mut half = set("half", HALF_SENT_BYTES);
                half.truncate(half.len() - MISSING_BYTES);
                half
            }
            Self::SlowReaders => b"get large\r\n".repeat(GETS),
        }
    }
}

/// One fresh server.
struct Sample {
    idle_bytes: u64,
    /// At any time.
    most_bytes: u64,
    /// When the clients have done their part and still stay.
    settled_bytes: u64,
    /// Clients whose value is stored when the rest of it comes, or who are still connected.
    kept: u64,
}

/// One report for each kind of clients.
pub fn compare(programs: &[Program; 2], placement: &Placement, options: &Options) -> Result<Vec<CaseReport>> {
    let programs = programs.each_ref().map(|program| {
        let flags = FLAGS.iter().map(|&flag| flag.to_owned());
        Program { flags: program.flags.iter().cloned().chain(flags).collect(), ..program.clone() }
    });
    Clients::ALL
        .iter()
        .map(|&clients| {
            let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
            for repetition in 0..options.load.repetitions.min(MOST_REPETITIONS) {
                for turn in [0, 1] {
                    let side = (turn + repetition) % 2;
                    let server = programs[side].start(placement)?;
                    samples[side].push(server.side().blamed(sample(clients, &server, options.load.quick))?);
                }
            }
            Ok(report(clients, programs.each_ref().map(|program| program.name.clone()), &samples))
        })
        .collect()
}

fn sample(clients: Clients, server: &Server, quick: bool) -> Result<Sample> {
    let (part, settle) = if quick { (QUICK_PART, QUICK_SETTLE) } else { (1, SETTLE) };
    if let Clients::SlowReaders = clients {
        store_large(server)?;
    }
    let idle_bytes = resident_bytes(server.pid())?;
    let others = connections(server)?;
    let streams = (0..clients.count() / part)
        .map(|_| TcpStream::connect(server.address))
        .collect::<io::Result<Vec<_>>>()?;
    send(&streams, &clients.message())?;
    thread::sleep(settle);
    let most_bytes = most_resident_bytes(server.pid())?;
    let settled_bytes = resident_bytes(server.pid())?;
    let kept = match clients {
        Clients::HalfSent => complete(&streams)?,
        Clients::SlowReaders => connections(server)?.saturating_sub(others),
    };
    Ok(Sample { idle_bytes, most_bytes, settled_bytes, kept })
}

fn set(key: &str, value_bytes: usize) -> Vec<u8> {
    let mut set = format!("set {key} 0 0 {value_bytes}\r\n").into_bytes();
    set.resize(set.len() + value_bytes, b'v');
    set.extend_from_slice(b"\r\n");
    set
}

fn store_large(server: &Server) -> Result<()> {
    let mut stream = TcpStream::connect(server.address)?;
    stream.write_all(&set("large", SLOW_READ_BYTES))?;
    let reply = reply(&stream)?;
    if reply == "STORED\r\n" {
        Ok(())
    } else {
        Err(format!("a wrong reply: {}", reply.escape_debug()).into())
    }
}

/// Sends what is missing, and counts whose value is stored.
fn complete(streams: &[TcpStream]) -> Result<u64> {
    let set = set("half", HALF_SENT_BYTES);
    let missing = &set[set.len() - MISSING_BYTES..];
    let mut stored = 0;
    for mut stream in streams {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        // The server may have closed it.
        let outcome = stream.write_all(missing).and_then(|()| reply(stream));
        match outcome {
            Ok(reply) => stored += u64::from(reply == "STORED\r\n"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err("no answer".into()),
            Err(_) => {}
        }
    }
    Ok(stored)
}

/// The first line; nothing when the server closes the connection without one.
fn reply(stream: &TcpStream) -> io::Result<String> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply)?;
    Ok(reply)
}

/// Sends the message on all streams at the same time, on each as fast as the server takes it, and makes them
/// non-blocking. A stream that the server closes is done with.
fn send(streams: &[TcpStream], message: &[u8]) -> Result<()> {
    for stream in streams {
        stream.set_nonblocking(true)?;
    }
    let mut unsent: Vec<(&TcpStream, &[u8])> = streams.iter().map(|stream| (stream, message)).collect();
    let mut moved = Instant::now();
    while !unsent.is_empty() {
        let mut has_moved = false;
        unsent.retain_mut(|(stream, rest)| match stream.write(rest) {
            Ok(count) => {
                has_moved = true;
                *rest = &rest[count..];
                !rest.is_empty()
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        });
        if has_moved {
            moved = Instant::now();
        } else if moved.elapsed() > DEADLINE {
            return Err(format!("it takes no more from {} clients", unsent.len()).into());
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn connections(server: &Server) -> Result<u64> {
    let count = server.ask("stats", "STAT curr_connections ")?.ok_or("stats has no curr_connections")?;
    Ok(count.parse()?)
}

fn report(clients: Clients, sides: [String; 2], samples: &[Vec<Sample>; 2]) -> CaseReport {
    let figure = |key, label, better, value: &dyn Fn(&Sample) -> f64| {
        let values = [0, 1].map(|side: usize| measure::median(samples[side].iter().map(value).collect()));
        Figure { key, label, better, values, ratio_noise: None }
    };
    let kept = match clients {
        Clients::HalfSent => "sets stored when the rest comes",
        Clients::SlowReaders => "clients still connected",
    };
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    CaseReport {
        name: clients.name().into(),
        sides,
        figures: vec![
            figure("resident_idle_mebibytes", "resident before, MiB", Better::Lower, &|sample| {
                mebibytes(sample.idle_bytes)
            }),
            figure("resident_most_mebibytes", "resident at most, MiB", Better::Lower, &|sample| {
                mebibytes(sample.most_bytes)
            }),
            figure("resident_mebibytes", "resident in the end, MiB", Better::Lower, &|sample| {
                mebibytes(sample.settled_bytes)
            }),
            figure("clients_kept", kept, Better::Neither, &|sample| sample.kept as f64),
        ],
        summary_keys: &["resident_most_mebibytes", "resident_mebibytes"],
    }
}

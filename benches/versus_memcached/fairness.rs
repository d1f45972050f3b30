//! What other clients notice of a few that keep a server busy: how long a `get` takes that is sent now and then, while
//! four clients stream `set ... noreply`, or ask for a thousand keys at a time.
//!
//! Nothing is pinned, and both servers have four threads: busy clients, the others and the server share all CPUs, as they
//! would on a machine that is short of them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::options::Options;
use crate::support::Result;
use crate::support::load::Keys;
use crate::support::measure::{self, Side};
use crate::support::process::{CpuTime, Placement};
use crate::support::report::{Better, CaseReport, Figure};
use crate::support::server::Program;

const FLAGS: [&str; 2] = ["-t", "4"];

const BUSY_CLIENTS: u32 = 4;
/// Enough for each thread of the server to have some of them.
const OTHERS: usize = 8;
/// Between two of their gets.
const PAUSE: Duration = Duration::from_micros(200);

/// A stream is sent in pieces of so many sets.
const STREAM_SETS: u32 = 1_000;
const MULTIGET_KEYS: u32 = 1_000;

const RUN: Duration = Duration::from_secs(3);
const QUICK_RUN: Duration = Duration::from_millis(200);

/// Busy clients run for so long before the others are timed.
const LEAD: Duration = Duration::from_millis(100);

/// No reply for so long ends the run.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
enum Busy {
    Nobody,
    Streams,
    Multigets,
}

impl Busy {
    const ALL: [Self; 3] = [Self::Nobody, Self::Streams, Self::Multigets];

    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "others, nobody busy",
            Self::Streams => "others, 4 noreply streams",
            Self::Multigets => "others, 4 x get of 1,000 keys",
        }
    }
}

struct Sample {
    /// Of the others' gets.
    nanos: Histogram<u64>,
    /// Sets sent or keys got by the busy ones.
    busy_kops: f64,
    server_cpu_percent: f64,
}

/// One report for each kind of busy clients.
pub fn compare(programs: &[Program; 2], placement: &Placement, options: &Options) -> Result<Vec<CaseReport>> {
    placement.unpin()?;
    let anywhere = placement.anywhere();
    let keys = Arc::new(Keys::choose(options.load.keyspace, options.load.key_bytes, |_| true)?);
    let run = if options.load.quick { QUICK_RUN } else { RUN };
    let with_flags =
        |program: &Program| Program { flags: FLAGS.map(str::to_owned).into(), ..program.clone() };
    let servers = [with_flags(&programs[0]).start(&anywhere)?, with_flags(&programs[1]).start(&anywhere)?];
    let sides = [servers[0].side(), servers[1].side()];
    for side in &sides {
        side.blamed(measure::preload(side.address, &keys, &options.load))?;
    }
    Busy::ALL
        .iter()
        .map(|&busy| {
            let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
            for repetition in 0..options.load.repetitions {
                for turn in [0, 1] {
                    let side = (turn + repetition) % 2;
                    samples[side].push(sides[side].blamed(sample(
                        busy,
                        &sides[side],
                        &keys,
                        options,
                        run,
                    ))?);
                }
            }
            Ok(report(busy, sides.each_ref().map(|side| side.name.clone()), &samples))
        })
        .collect()
}

fn sample(busy: Busy, side: &Side, keys: &Keys, options: &Options, run: Duration) -> Result<Sample> {
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..BUSY_CLIENTS)
                .filter_map(|number| {
                    let (stop, done) = (&stop, &done);
                    let value_bytes = options.load.value_bytes;
                    match busy {
                        Busy::Nobody => None,
                        Busy::Streams => Some(scope.spawn(move || {
                            stream(side.address, &sets(keys, number, value_bytes), stop, done)
                        })),
                        Busy::Multigets => {
                            Some(scope.spawn(move || multigets(side.address, &get(keys, number), stop, done)))
                        }
                    }
                })
                .collect();
        thread::sleep(LEAD);
        let before = (done.load(Ordering::Relaxed), CpuTime::of(side.pids[0])?, Instant::now());
        let others = time_others(side.address, keys, run);
        let elapsed = before.2.elapsed().as_secs_f64();
        let cpu = CpuTime::of(side.pids[0])?.since(before.1).total.as_secs_f64();
        let busy_kops = (done.load(Ordering::Relaxed) - before.0) as f64 / elapsed / 1e3;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| "a busy client panicked")??;
        }
        Ok(Sample { nanos: others?, busy_kops, server_cpu_percent: 100.0 * cpu / elapsed })
    })
}

fn time_others(address: SocketAddr, keys: &Keys, run: Duration) -> Result<Histogram<u64>> {
    let mut others =
        (0..OTHERS).map(|_| connect(address).map(BufReader::new)).collect::<io::Result<Vec<_>>>()?;
    let longest = u64::try_from(REPLY_DEADLINE.as_nanos())?;
    let mut nanos = Histogram::new_with_bounds(1, longest, 3)?;
    let mut line = Vec::new();
    let started = Instant::now();
    for number in 0_u32.. {
        if started.elapsed() >= run {
            break;
        }
        let other = &mut others[number as usize % OTHERS];
        let key = keys.key(number.wrapping_mul(7919) % keys.count());
        let request = [b"get ", key, b"\r\n"].concat();
        let sent = Instant::now();
        other.get_mut().write_all(&request)?;
        // The values are printable: no line of them ends like a reply.
        loop {
            line.clear();
            if other.read_until(b'\n', &mut line)? == 0 {
                return Err("a connection was closed".into());
            }
            if line == b"END\r\n" {
                break;
            }
        }
        nanos.saturating_record(u64::try_from(sent.elapsed().as_nanos())?);
        thread::sleep(PAUSE);
    }
    Ok(nanos)
}

/// Sends the same sets over and over.
fn stream(address: SocketAddr, sets: &[u8], stop: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let mut stream = connect(address)?;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(sets)?;
        done.fetch_add(STREAM_SETS.into(), Ordering::Relaxed);
    }
    stream.write_all(b"mn\r\n")?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply)?;
    if &reply == b"MN\r\n" { Ok(()) } else { Err(wrong_reply(&reply)) }
}

/// Asks for the same keys over and over.
fn multigets(address: SocketAddr, get: &[u8], stop: &AtomicBool, done: &AtomicU64) -> io::Result<()> {
    let mut stream = connect(address)?;
    let mut reply = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(get)?;
        reply.clear();
        while !reply.ends_with(b"\r\nEND\r\n") {
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => reply.extend_from_slice(&buffer[..count]),
            }
        }
        if !reply.starts_with(b"VALUE ") {
            return Err(wrong_reply(&reply));
        }
        done.fetch_add(MULTIGET_KEYS.into(), Ordering::Relaxed);
    }
    Ok(())
}

fn sets(keys: &Keys, client: u32, value_bytes: usize) -> Vec<u8> {
    let value = vec![b'v'; value_bytes];
    let mut sets = Vec::new();
    for key in mine(keys, client, STREAM_SETS) {
        sets.extend_from_slice(&[b"set ", key].concat());
        sets.extend_from_slice(format!(" 0 0 {value_bytes} noreply\r\n").as_bytes());
        sets.extend_from_slice(&value);
        sets.extend_from_slice(b"\r\n");
    }
    sets
}

fn get(keys: &Keys, client: u32) -> Vec<u8> {
    let mut get = b"get".to_vec();
    for key in mine(keys, client, MULTIGET_KEYS) {
        get.push(b' ');
        get.extend_from_slice(key);
    }
    get.extend_from_slice(b"\r\n");
    get
}

fn mine(keys: &Keys, client: u32, count: u32) -> impl Iterator<Item = &[u8]> {
    (0..count).map(move |number| keys.key((client * count + number) % keys.count()))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(REPLY_DEADLINE))?;
    stream.set_write_timeout(Some(REPLY_DEADLINE))?;
    Ok(stream)
}

fn wrong_reply(reply: &[u8]) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("a wrong reply: {}", reply[..reply.len().min(80)].escape_ascii()),
    )
}

fn report(busy: Busy, sides: [String; 2], samples: &[Vec<Sample>; 2]) -> CaseReport {
    let figure = |key, label, better, value: &dyn Fn(&Sample) -> f64| {
        let values = [0, 1].map(|side: usize| measure::median(samples[side].iter().map(value).collect()));
        Figure { key, label, better, values, ratio_noise: None }
    };
    let millis = |sample: &Sample, percentile| sample.nanos.value_at_percentile(percentile) as f64 / 1e6;
    let mut figures = vec![
        figure("others_p50_ms", "others' p50, ms", Better::Lower, &|sample| millis(sample, 50.0)),
        figure("others_p99_ms", "others' p99, ms", Better::Lower, &|sample| millis(sample, 99.0)),
        figure("others_p999_ms", "others' p99.9, ms", Better::Lower, &|sample| millis(sample, 99.9)),
        figure("server_busy_percent", "server busy, % of a CPU", Better::Neither, &|s| s.server_cpu_percent),
    ];
    if !matches!(busy, Busy::Nobody) {
        let label = "busy clients', 1000 keys/s";
        figures.push(figure("busy_kops", label, Better::Higher, &|sample| sample.busy_kops));
    }
    CaseReport {
        name: busy.name().into(),
        sides,
        figures,
        summary_keys: &["others_p50_ms", "others_p99_ms", "busy_kops"],
    }
}

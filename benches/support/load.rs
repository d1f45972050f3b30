//! A memtier-like load generator: one thread, many connections, a batch of `pipeline` requests in flight on each.
//!
//! A connection sends its batch in one write, reads all the replies, checks each byte of them, and sends the next
//! batch. A run has a fixed number of operations, not a fixed time, so that two servers do the same work and their CPU
//! time per operation can be compared.

mod connection;
mod keys;
mod workload;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use nix::time::{ClockId, clock_gettime};

use self::connection::Connection;
pub use self::keys::Keys;
#[allow(unused_imports)] // Only some of the comparisons mix numbers themselves.
pub use self::workload::{Dialect, GOLDEN, Mix, mixed};
use self::workload::{Schedule, Workload};

/// No reply on any connection for this long means that a server hangs or answered with fewer bytes than it announced.
const STALL: Duration = Duration::from_secs(10);

/// Latencies are kept up to a minute; what is longer counts as a minute.
const LONGEST_LATENCY_NANOS: u64 = 60_000_000_000;

/// Which keys a run touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Uniformly random ones of the keys, the same ones in every run.
    Random,
    /// Each key in turn, starting again at the end: for filling a server.
    Sequential,
}

/// One run: what to send, to whom, and how much of it.
#[derive(Clone, Debug)]
pub struct Load {
    /// Connections are dealt out over these in turn.
    pub addresses: Vec<SocketAddr>,
    pub connections: usize,
    /// Requests in flight on each connection.
    pub pipeline: usize,
    pub mix: Mix,
    pub dialect: Dialect,
    pub order: Order,
    pub keys: Arc<Keys>,
    pub value_bytes: usize,
    /// Operations of the whole run, over all connections.
    pub operations: u64,
}

/// What a run saw; every reply in it was checked.
#[derive(Clone, Debug)]
pub struct Report {
    pub operations: u64,
    /// Gets whose key the server did not hold.
    pub misses: u64,
    /// Sets that the server had no memory for.
    pub refusals: u64,
    /// From the first request sent to the last reply read.
    pub elapsed: Duration,
    /// CPU time of the generating thread within `elapsed`: near `elapsed`, the generator may be what limits throughput.
    pub generator_cpu: Duration,
    /// Nanoseconds from a request's send to its reply, one entry for each operation.
    pub latency_nanos: Histogram<u64>,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The caller's mistake.
    #[error("impossible load: {0}")]
    Impossible(String),
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    /// The server answered something else than the protocol and the stored values call for.
    #[error("wrong reply to `{request}`: expected {expected}, got {actual}")]
    WrongReply { request: String, expected: String, actual: String },
    #[error("the server closed a connection with requests in flight")]
    Closed,
    #[error("no reply for {} s with {waiting} connections waiting", STALL.as_secs())]
    Stalled { waiting: usize },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Report {
    /// Operations per second.
    pub fn throughput(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// Latency in microseconds that `percentile` percent of the requests did not exceed.
    pub fn latency_micros(&self, percentile: f64) -> f64 {
        self.latency_nanos.value_at_percentile(percentile) as f64 / 1e3
    }
}

impl Load {
    /// Runs the load on the calling thread to its end.
    ///
    /// # Errors
    /// The first wrong reply, closed connection or stall ends the run.
    pub fn run(&self) -> Result<Report, LoadError> {
        let workload = Workload::new(self.dialect, Arc::clone(&self.keys), self.value_bytes);
        if self.addresses.is_empty() || self.connections == 0 || self.pipeline == 0 {
            return Err(LoadError::Impossible(
                "an address, a connection and a pipeline of 1 are needed".into(),
            ));
        }
        let mut poll = Poll::new()?;
        let mut connections = self.connect(&poll, &workload)?;
        let mut run = Run {
            workload: &workload,
            schedule: Schedule::new(self.mix, self.order, self.keys.count()),
            pipeline: self.pipeline as u64,
            unsent: self.operations,
            report: Report {
                operations: self.operations,
                misses: 0,
                refusals: 0,
                elapsed: Duration::ZERO,
                generator_cpu: Duration::ZERO,
                latency_nanos: Histogram::new_with_bounds(1, LONGEST_LATENCY_NANOS, 3)
                    .expect("the bounds are constants within what the histogram allows"),
            },
        };
        let cpu_before = thread_cpu()?;
        let started = Instant::now();
        run.drive(&mut poll, &mut connections)?;
        run.report.elapsed = started.elapsed();
        run.report.generator_cpu = thread_cpu()?.saturating_sub(cpu_before);
        Ok(run.report)
    }

    fn connect(&self, poll: &Poll, workload: &Workload) -> Result<Vec<Connection>, LoadError> {
        let mut connections = Vec::with_capacity(self.connections);
        for (index, &address) in self.addresses.iter().cycle().take(self.connections).enumerate() {
            let connected = || -> io::Result<mio::net::TcpStream> {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                let mut stream = mio::net::TcpStream::from_std(stream);
                poll.registry().register(
                    &mut stream,
                    Token(index),
                    Interest::READABLE | Interest::WRITABLE,
                )?;
                Ok(stream)
            };
            let stream = connected().map_err(|source| LoadError::Connect { address, source })?;
            connections.push(Connection::new(stream, self.pipeline, workload.longest_reply_bytes()));
        }
        Ok(connections)
    }
}

/// The state of a run that its connections share.
struct Run<'a> {
    workload: &'a Workload,
    schedule: Schedule,
    pipeline: u64,
    /// Operations that no connection has taken yet.
    unsent: u64,
    report: Report,
}

impl Run<'_> {
    fn drive(&mut self, poll: &mut Poll, connections: &mut [Connection]) -> Result<(), LoadError> {
        let mut waiting = 0;
        for connection in connections.iter_mut() {
            waiting += usize::from(self.send_batch(connection)?);
        }
        let mut events = Events::with_capacity(connections.len().max(1));
        while waiting > 0 {
            match poll.poll(&mut events, Some(STALL)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            if events.is_empty() {
                return Err(LoadError::Stalled { waiting });
            }
            for event in &events {
                let connection = &mut connections[event.token().0];
                if event.is_writable() {
                    connection.flush()?;
                }
                if event.is_readable() && connection.receive(self.workload, &mut self.report)? {
                    waiting -= usize::from(!self.send_batch(connection)?);
                }
            }
        }
        Ok(())
    }

    /// Sends the next batch; false when the run has no operations left.
    fn send_batch(&mut self, connection: &mut Connection) -> Result<bool, LoadError> {
        let batch = self.unsent.min(self.pipeline);
        if batch == 0 {
            return Ok(false);
        }
        self.unsent -= batch;
        connection.send((0..batch).map(|_| self.schedule.next_request()), self.workload)?;
        Ok(true)
    }
}

fn thread_cpu() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

//! One connection: a batch out, its replies in, each one checked and timed.

use std::io::{self, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;

use crate::support::load::workload::{Request, Workload};
use crate::support::load::{LONGEST_LATENCY_NANOS, LoadError, Report};

/// Bytes of a wrong reply that an error message shows.
const SHOWN_BYTES: usize = 120;

pub struct Connection {
    stream: TcpStream,
    /// The batch as bytes, of which `written` have gone out.
    output: Vec<u8>,
    written: usize,
    /// Replies read so far; has room for all the replies of a batch, so one read takes whatever has come.
    input: Box<[u8]>,
    filled: usize,
    /// Bytes of `input` that were replies already checked.
    checked: usize,
    batch: Vec<Request>,
    answered: usize,
    sent_at: Instant,
    /// The reply that is due, kept for its allocation.
    expected: Vec<u8>,
}

impl Connection {
    pub fn new(stream: TcpStream, pipeline: usize, longest_reply_bytes: usize) -> Self {
        Self {
            stream,
            output: Vec::new(),
            written: 0,
            // One byte more than the replies: a full buffer is then never mistaken for a drained socket.
            input: vec![0; pipeline * longest_reply_bytes + 1].into_boxed_slice(),
            filled: 0,
            checked: 0,
            batch: Vec::with_capacity(pipeline),
            answered: 0,
            sent_at: Instant::now(),
            expected: Vec::with_capacity(longest_reply_bytes),
        }
    }

    /// Starts a batch: one write, unless the socket's buffer is full.
    pub fn send(&mut self, requests: impl Iterator<Item = Request>, workload: &Workload) -> io::Result<()> {
        self.batch.clear();
        self.batch.extend(requests);
        self.answered = 0;
        self.filled = 0;
        self.checked = 0;
        self.output.clear();
        self.written = 0;
        for &request in &self.batch {
            workload.append_request(request, &mut self.output);
        }
        self.sent_at = Instant::now();
        self.flush()
    }

    /// Writes what is left of the batch, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once and checks the replies that are complete; true when that was the last reply of the batch.
    ///
    /// One read is enough with edge-triggered events: `input` is never filled by a correct batch, so the read drained
    /// the socket, and bytes that come later raise another event.
    pub fn receive(&mut self, workload: &Workload, report: &mut Report) -> Result<bool, LoadError> {
        match self.stream.read(&mut self.input[self.filled..]) {
            Ok(0) => return Err(LoadError::Closed),
            Ok(count) => self.filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let before = self.answered;
        self.check(workload, report)?;
        if self.answered > before {
            let nanos = u64::try_from(self.sent_at.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let replies = (self.answered - before) as u64;
            report
                .latency_nanos
                .record_n(nanos.clamp(1, LONGEST_LATENCY_NANOS), replies)
                .expect("the value was clamped to the histogram's bounds");
        }
        // An event can come without a batch in flight, and must then not count as the end of one.
        Ok(self.answered > before && self.answered == self.batch.len())
    }

    fn check(&mut self, workload: &Workload, report: &mut Report) -> Result<(), LoadError> {
        while let Some(&request) = self.batch.get(self.answered) {
            workload.blank(&mut self.input[self.checked..self.filled]);
            let input = &self.input[self.checked..self.filled];
            let unheld = workload.unheld(request);
            if input.starts_with(unheld) {
                self.checked += unheld.len();
                self.answered += 1;
                report.misses += u64::from(!request.is_set);
                report.refusals += u64::from(request.is_set);
                continue;
            }
            self.expected.clear();
            workload.append_reply(request, &mut self.expected);
            if input.starts_with(&self.expected) {
                self.checked += self.expected.len();
                self.answered += 1;
            } else if self.expected.starts_with(input) || unheld.starts_with(input) {
                return Ok(());
            } else {
                return Err(wrong_reply(workload.name(request), &self.expected, input));
            }
        }
        if self.checked < self.filled {
            let surplus = &self.input[self.checked..self.filled];
            return Err(wrong_reply("nothing".into(), b"", surplus));
        }
        Ok(())
    }
}

fn wrong_reply(request: String, expected: &[u8], actual: &[u8]) -> LoadError {
    let shown = |bytes: &[u8]| format!("\"{}\"", bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii());
    LoadError::WrongReply { request, expected: shown(expected), actual: shown(actual) }
}

//! The jobs of a link, by number: in front those whose outcomes are awaited, behind them those
//! that wait to be sent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use prost::Message as _;
use tokio::time::Instant;

use crate::pb;
use crate::peer::Job;

/// Operations in a message at most.
const BATCH_LEN: usize = 4_096;

/// A message that has reached so many bytes takes no further operation.
const BATCH_BYTES: usize = 1 << 20;

/// A message expires as a whole, when the first of its operations does; deadlines that differ by
/// more do not travel together.
const BATCH_SPREAD: Duration = Duration::from_millis(25);

/// The key of `Operations.operations` on the wire: field 4, of a known length.
const OPERATION_KEY: u8 = 4 << 3 | 2;

/// Room that is kept for the next jobs; a burst's is given back.
const KEPT_SLOTS: usize = 1_024;

/// Bounded, in the order of their numbers.
#[derive(Debug)]
pub struct Jobs {
    /// An answered job leaves a hole; the first is never one.
    slots: VecDeque<Option<Job>>,
    /// The number of the first slot.
    first: u64,
    /// The number of the first job that was not sent.
    unsent: u64,
    /// The latest deadline so far: deadlines come nearly in order.
    latest: Option<Instant>,
    /// Those that came out of order, with their numbers; some are answered already.
    early: BinaryHeap<Reverse<(Instant, u64)>>,
    bytes: usize,
    queued: usize,
    in_flight: usize,
    len_max: usize,
    bytes_max: usize,
}

/// A job that has been taken out.
#[derive(Debug)]
pub struct Taken {
    /// Its number.
    pub id: u64,
    /// The job.
    pub job: Job,
    /// Whether it was sent.
    pub sent: bool,
}

impl Jobs {
    /// Holds so many jobs at most, and so many bytes of keys and values and one job more.
    pub fn new(len_max: usize, bytes_max: usize) -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            unsent: 0,
            latest: None,
            early: BinaryHeap::new(),
            bytes: 0,
            queued: 0,
            in_flight: 0,
            len_max,
            bytes_max,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many wait to be sent.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How many wait for their outcomes.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The number that the next job to be sent has, or will have.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Whether one more may come in.
    pub fn has_room(&self) -> bool {
        self.slots.len() < self.len_max && self.bytes < self.bytes_max
    }

    /// Takes a job in, for which there is room.
    pub fn push(&mut self, job: Job) {
        match self.latest {
            Some(latest) if job.deadline < latest => {
                self.early.push(Reverse((job.deadline, self.first + self.slots.len() as u64)));
            }
            _ => self.latest = Some(job.deadline),
        }
        self.bytes += job.bytes();
        self.queued += 1;
        self.slots.push_back(Some(job));
    }

    /// Takes out the job of this number, if it was sent and is there.
    pub fn take_sent(&mut self, id: u64) -> Option<Job> {
        (id < self.unsent).then(|| self.take(id))?.map(|taken| taken.job)
    }

    /// Takes out a job that is past its deadline.
    pub fn take_expired(&mut self, now: Instant) -> Option<Taken> {
        // Whatever is in order behind the first one is not earlier than it.
        if let Some(Some(job)) = self.slots.front()
            && job.deadline <= now
        {
            return self.take(self.first);
        }
        while let Some(&Reverse((deadline, id))) = self.early.peek()
            && deadline <= now
        {
            self.early.pop();
            if let Some(taken) = self.take(id) {
                return Some(taken);
            }
        }
        None
    }

    /// Takes out a job that was not sent.
    pub fn take_unsent(&mut self) -> Option<Job> {
        while self.unsent < self.first + self.slots.len() as u64 {
            let id = self.unsent;
            let taken = self.take(id);
            self.unsent = self.unsent.max(id + 1);
            if let Some(taken) = taken {
                return Some(taken.job);
            }
        }
        None
    }

    /// When the next job is past its deadline, or a little earlier.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = self.slots.front()?.as_ref()?.deadline;
        Some(self.early.peek().map_or(first, |early| early.0.0.min(first)))
    }

    /// Writes the next message into the buffer: what waits of one epoch, as far as it goes into
    /// one, and numbers it. `expires_micros` turns the earliest of its deadlines into the peer's
    /// time. Returns the number of operations; 0 when none waits.
    pub fn encode(&mut self, buffer: &mut BytesMut, expires_micros: impl FnOnce(Instant) -> u64) -> usize {
        let (start, mut len) = (buffer.len(), 0);
        let mut head = None;
        let waiting = (self.unsent - self.first) as usize;
        for slot in self.slots.range_mut(waiting..) {
            if let Some(job) = slot {
                let (epoch, earliest, latest) = *head.get_or_insert((job.epoch, job.deadline, job.deadline));
                let (earliest, latest) = (earliest.min(job.deadline), latest.max(job.deadline));
                let full = len == BATCH_LEN || len > 0 && buffer.len() - start + job.bytes() > BATCH_BYTES;
                if full || job.epoch != epoch || latest - earliest > BATCH_SPREAD {
                    break;
                }
                head = Some((epoch, earliest, latest));
                job.set_id(self.unsent);
                buffer.reserve(job.bytes() + 64);
                buffer.put_u8(OPERATION_KEY);
                put(buffer, |buffer| job.operation().encode_length_delimited(buffer));
                len += 1;
            }
            self.unsent += 1;
        }
        if let Some((epoch, earliest, _)) = head {
            let expires_micros = expires_micros(earliest);
            let head = pb::Operations { epoch, expires_micros, ..pb::Operations::default() };
            put(buffer, |buffer| head.encode(buffer));
        }
        self.queued -= len;
        self.in_flight += len;
        len
    }

    fn take(&mut self, id: u64) -> Option<Taken> {
        let index = usize::try_from(id.checked_sub(self.first)?).ok()?;
        let job = self.slots.get_mut(index)?.take()?;
        let sent = id < self.unsent;
        *(if sent { &mut self.in_flight } else { &mut self.queued }) -= 1;
        self.bytes -= job.bytes();
        if index == 0 {
            self.trim();
        }
        Some(Taken { id, job, sent })
    }

    /// Drops the holes in front.
    fn trim(&mut self) {
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        self.unsent = self.unsent.max(self.first);
        if self.slots.is_empty() {
            self.slots.shrink_to(KEPT_SLOTS);
            // What is in there was answered.
            self.early.clear();
        }
    }
}

/// A buffer that grows takes every message.
fn put(buffer: &mut BytesMut, message: impl FnOnce(&mut BytesMut) -> Result<(), prost::EncodeError>) {
    message(buffer).expect("a BytesMut grows");
}

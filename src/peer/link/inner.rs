//! What the ends of a link share: its handle, the stream of messages, the task that hears
//! outcomes and the one that keeps deadlines.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::command::Unavailable;
use crate::pb;
use crate::pb::outcome::Kind;
use crate::peer::PendingOp;
use crate::peer::link::breaker::Breaker;
use crate::peer::link::peer_clock::PeerClock;
use crate::peer::link::pending_ops::{PendingOps, Taken};
use crate::peer::link::stats::{Stats, add};
use crate::peer::options::Options;

/// An operation whose owner said that it is not the owner. It is to be sent to the owner of a view that
/// is at least as new as `epoch`, and will not come back a second time.
#[derive(Debug)]
pub struct Redirected {
    /// The operation.
    pub op: PendingOp,
    /// The epoch of the node that refused it.
    pub epoch: u64,
    /// Whether its owner is to load the value.
    pub loads: bool,
}

/// Without a reading of the peer's clock for this long, nothing is sent: the two clocks may have drifted apart. The
/// peer writes one every few seconds.
const READING_AGE_MAX: Duration = Duration::from_secs(10);

/// One link. Locked for short moments, by one thread.
#[derive(Debug)]
pub struct LinkInner {
    state: Mutex<State>,
    /// Rung when the task with the stream must look around.
    pub changed: Notify,
    /// Rung when the task that keeps deadlines must look at them.
    pub rearm: Notify,
    /// What has been done.
    pub stats: Arc<Stats>,
    /// How long before its deadline an operation sets out.
    operation_timeout: Duration,
    redirected: mpsc::Sender<Redirected>,
}

#[derive(Debug)]
struct State {
    ops: PendingOps,
    breaker: Breaker,
    /// The number of the present stream; an older stream gets no more messages.
    stream: u64,
    /// Once the present stream has come about.
    peer_clock: Option<PeerClock>,
    /// Operations below this number were sent before the peer was last heard of.
    heard: u64,
    /// Whether operations of an earlier stream may still be executed: nothing is sent on another one
    /// before, or a later command on a key could overtake an earlier one.
    draining: bool,
    /// The task that makes messages, while there is nothing to send.
    sender: Option<Waker>,
    /// When deadlines are looked at next.
    armed: Option<Instant>,
    closing: bool,
}

impl LinkInner {
    /// A link that holds no more operations than it may, nor more bytes of keys and values.
    pub fn new(options: &Options, stats: Arc<Stats>, redirected: mpsc::Sender<Redirected>) -> Self {
        let state = State {
            ops: PendingOps::new(options.queue_len, options.queue_bytes),
            breaker: Breaker::default(),
            stream: 0,
            peer_clock: None,
            heard: 0,
            draining: false,
            sender: None,
            armed: None,
            closing: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            rearm: Notify::new(),
            stats,
            operation_timeout: options.operation_timeout,
            redirected,
        }
    }

    /// Takes an operation in, or answers why not.
    pub fn send(&self, op: PendingOp) {
        let mut state = self.state.lock();
        if state.breaker.is_open() || state.closing {
            return self.fail(op, Unavailable::Unreachable);
        }
        if !state.ops.has_room() {
            return self.fail(op, Unavailable::Overloaded);
        }
        let deadline = op.deadline;
        state.ops.push(op);
        if let Some(sender) = state.sender.take() {
            sender.wake();
        }
        if state.armed.is_none_or(|armed| deadline < armed) {
            state.armed = Some(deadline);
            self.rearm.notify_one();
        }
        self.show(&state);
    }

    /// Answers operations past their deadline, and returns when to look again.
    pub fn keep_deadlines(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        self.expire(&mut state, Instant::now());
        state.armed = state.ops.next_deadline();
        state.armed
    }

    /// Ends the present stream; the number of the next one.
    pub fn next_stream(&self) -> u64 {
        let mut state = self.state.lock();
        state.end_stream();
        state.stream
    }

    /// The next message of a stream, written to `buffer`; `None` when the stream is no longer wanted.
    pub fn poll_message(
        &self,
        stream: u64,
        buffer: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<Option<pb::Operations>> {
        let mut state = self.state.lock();
        let message = self.encode(&mut state, stream, buffer);
        if state.stream != stream {
            return Poll::Ready(None);
        }
        let Some((message, len)) = message else {
            match &mut state.sender {
                Some(sender) => sender.clone_from(cx.waker()),
                sender => *sender = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        self.stats.leaves(len, Instant::now().into_std());
        self.show(&state);
        Poll::Ready(Some(message))
    }

    /// Takes over the outcomes of a message of a stream, if that is the present one.
    ///
    /// # Errors
    /// Something in it is no outcome; nothing more is understood on this stream.
    pub fn hear(&self, stream: u64, message: pb::Outcomes) -> Result<(), pb::Malformed> {
        let mut state = self.state.lock();
        if state.stream != stream {
            return Ok(());
        }
        let now = Instant::now();
        match &mut state.peer_clock {
            Some(peer_clock) => {
                peer_clock.read(message.now_micros, now);
                state.breaker.succeed();
            }
            None => {
                state.peer_clock = Some(PeerClock::new(message.now_micros, now));
                state.breaker.greeted();
                add(&self.stats.streams, 1);
                if let Some(sender) = state.sender.take() {
                    sender.wake();
                }
            }
        }
        state.heard = state.ops.unsent();
        let mut outcomes = message.outcomes;
        let mut is_first = true;
        while !outcomes.is_empty() {
            let outcome = pb::take_outcome(&mut outcomes)?;
            // The operation of a late outcome has gone.
            if let Some(op) = state.ops.take_sent(outcome.id) {
                if std::mem::take(&mut is_first) {
                    let set_out = op.deadline - self.operation_timeout;
                    self.stats.heard(set_out.into_std(), now.into_std());
                }
                self.resolve(op, outcome, message.epoch);
            }
        }
        self.after(&state);
        Ok(())
    }

    /// The attempt to open a stream failed, or it broke. Operations that were sent on it may have been executed, or may
    /// still be, until their deadline. They are answered only then, so that an operation reported as failed cannot
    /// happen afterwards. Returns how long to wait before the next attempt.
    pub fn lose(&self) -> Duration {
        let mut state = self.state.lock();
        state.end_stream();
        if state.breaker.fail() {
            self.open_breaker(&mut state);
        }
        self.after(&state);
        state.breaker.pause()
    }

    /// Takes no further operations.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        self.after(&state);
        self.rearm.notify_one();
    }

    /// Whether the link is closed, and the last of its operations answered.
    pub fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.closing && state.ops.is_empty()
    }

    /// Whether the stream is still the present one.
    pub fn is_present(&self, stream: u64) -> bool {
        self.state.lock().stream == stream
    }

    fn encode(
        &self,
        state: &mut State,
        stream: u64,
        buffer: &mut BytesMut,
    ) -> Option<(pb::Operations, usize)> {
        if state.stream != stream || state.peer_clock.is_none() || state.ops.queued() == 0 {
            return None;
        }
        let now = Instant::now();
        self.expire(state, now);
        if state.draining {
            return None;
        }
        // Expired operations may have ended the stream.
        let State { ops, peer_clock: Some(peer_clock), .. } = state else { return None };
        if now.saturating_duration_since(peer_clock.last()) > READING_AGE_MAX {
            state.end_stream();
            self.changed.notify_one();
            return None;
        }
        ops.encode(buffer, |deadline| peer_clock.expires_micros(deadline))
    }

    fn resolve(&self, mut op: PendingOp, outcome: pb::Outcome, epoch: u64) {
        match outcome.kind() {
            Kind::WrongOwner if !op.rerouted => {
                op.rerouted = true;
                match self.redirected.try_send(Redirected { op, epoch, loads: false }) {
                    Ok(()) => add(&self.stats.redirected, 1),
                    Err(error) => self.fail(error.into_inner().op, Unavailable::Moved),
                }
            }
            Kind::WrongOwner => self.fail(op, Unavailable::Moved),
            Kind::Loading => match self.redirected.try_send(Redirected { op, epoch, loads: true }) {
                Ok(()) => add(&self.stats.answered, 1),
                Err(error) => self.fail(error.into_inner().op, Unavailable::Overloaded),
            },
            Kind::Unavailable => self.fail(op, Unavailable::Refused),
            // Of a later version, perhaps.
            Kind::Unspecified => self.fail(op, Unavailable::Unanswered),
            _ => {
                add(&self.stats.answered, 1);
                op.answer(Ok(outcome));
            }
        }
    }

    fn expire(&self, state: &mut State, now: Instant) {
        let (mut expired, mut opens) = (false, false);
        while let Some(Taken { id, op, sent }) = state.ops.take_expired(now) {
            expired = true;
            if sent {
                add(&self.stats.timeouts, 1);
                opens |= id >= state.heard && state.breaker.fail();
            }
            self.fail(op, if sent { Unavailable::Unanswered } else { Unavailable::Unreachable });
        }
        if opens {
            state.end_stream();
            self.open_breaker(state);
        }
        if expired {
            state.drained();
            self.after(state);
        }
    }

    /// Nothing more is sent: neither waiting operations nor new ones.
    fn open_breaker(&self, state: &mut State) {
        add(&self.stats.opened, 1);
        while let Some(op) = state.ops.take_unsent() {
            self.fail(op, Unavailable::Unreachable);
        }
        self.changed.notify_one();
    }

    fn fail(&self, op: PendingOp, why: Unavailable) {
        self.stats.count_failed(why);
        op.answer(Err(why));
    }

    fn after(&self, state: &State) {
        if state.closing && state.ops.is_empty() {
            self.changed.notify_one();
            self.rearm.notify_one();
        }
        self.show(state);
    }

    fn show(&self, state: &State) {
        self.stats.queued.store(state.ops.queued(), Ordering::Relaxed);
        self.stats.in_flight.store(state.ops.in_flight(), Ordering::Relaxed);
        self.stats.open.store(state.breaker.is_open(), Ordering::Relaxed);
    }
}

impl State {
    fn end_stream(&mut self) {
        self.stream += 1;
        self.peer_clock = None;
        self.draining = self.ops.in_flight() > 0;
        // It must learn that its stream is no longer wanted.
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }
    /// Goes on sending once the last operation of an earlier stream has expired.
    fn drained(&mut self) {
        if self.draining && self.ops.in_flight() == 0 {
            self.draining = false;
            if let Some(sender) = self.sender.take() {
                sender.wake();
            }
        }
    }
}

//! Peers' commands, executed here or refused.

use std::sync::Arc;
use std::time::Instant as StdInstant;

use bytes::BytesMut;
use parking_lot::MutexGuard;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use crate::cache::clustered::Clustered;
use crate::cache::handovers::Taker;
use crate::cache::moves::giver::Giver;
use crate::cache::routing::{Place, Routing};
use crate::cache::turn::{Fenced, NotHere, Turn};
use crate::command::{Outcome, Unavailable};
use crate::pb;
use crate::pb::EncodedOp;
use crate::pb::outcome::Kind;
use crate::peer::completions::ReplyTo;
use crate::peer::receive::{Batch, Broken, Executor, OUTCOMES_BYTES};
use crate::peer::{Answer, PendingOp, receive};
use crate::stats::Counter;
use crate::store::{Caller, Expected, TooManyFlushes};

/// A thread keeps its buffer for outcomes up to this size.
const OUTCOMES_KEPT_BYTES: usize = 256 << 10;

/// An operation of a peer that waits, by its number.
struct Waiting {
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Executor for Clustered {
    fn epoch(&self) -> u64 {
        self.routing_handle().hold().epoch
    }

    /// Executes operations in their order, all by the view they were sent by: early ones wait for that view, late ones
    /// are told that another node is the owner.
    async fn execute(&self, batch: &mut Batch) -> Result<pb::Outcomes, Broken> {
        self.make_room(batch).await;
        loop {
            if let Some((outcomes, waiting)) = self.try_execute(batch)? {
                if waiting.is_empty() {
                    return Ok(outcomes);
                }
                return Ok(self.wait_for_all(outcomes, waiting).await);
            }
            let come = self.routing_watch.wait_for(|routing| !must_wait(routing, batch));
            if timeout_at(batch.expires, come).await.is_err() {
                return self.refuse(batch, Kind::Unavailable, self.epoch());
            }
        }
    }

    async fn load(&self, request: pb::LoadRequest) -> Result<pb::Outcome, Broken> {
        self.load_for_peer(request).await
    }

    fn flush_prefix(&self, prefix: &[u8]) -> Result<u64, TooManyFlushes> {
        self.flush_prefix_here(prefix)
    }

    fn giver(self: Arc<Self>, id: String, incarnation: u64, epoch: u64) -> Box<dyn receive::Giver> {
        Box::new(Giver::new(self, Taker { id, incarnation, epoch }))
    }
}

impl Clustered {
    /// Executes a command here, if this is still its place; gives it back when not. One that `repeats` was executed and
    /// counted here before.
    pub(super) fn execute_here(&self, op: PendingOp, repeats: bool) -> Option<PendingOp> {
        let mut turn = self.begin(self.context().store.clock().now(), 0);
        if repeats {
            turn.repeat();
        }
        self.execute_in(turn, op)
    }

    /// Executes a command in this turn, or lets it wait for what it needs; gives it back if this is not its place.
    pub(super) fn execute_in(&self, mut turn: Turn<'_>, op: PendingOp) -> Option<PendingOp> {
        let operation = op.operation().open();
        let Some(command) = operation.ok().and_then(|operation| pb::command(&operation).ok()) else {
            op.answer(Err(Unavailable::Moved));
            return None;
        };
        let executed = turn.execute(&command, |outcome| pb::outcome(0, &outcome));
        let (op, result) = match executed {
            Err(NotHere::At(Place::Warming { .. })) => {
                self.context().moves.take_over(op);
                return None;
            }
            // A later routing may know an owner that is not known yet.
            Err(NotHere::At(_) | NotHere::Unavailable(Unavailable::NoOwner)) => return Some(op),
            Err(NotHere::Unavailable(why)) => (op, Err(why)),
            Err(NotHere::Load(_)) if op.for_peer => {
                (op, Ok(pb::Outcome { kind: Kind::Loading.into(), ..pb::Outcome::default() }))
            }
            Err(NotHere::Load(replaces)) => {
                let (op, outcome) = turn.load(op, replaces)?;
                (op, Ok(outcome))
            }
            Ok(outcome) => (op, Ok(outcome)),
        };
        // A node that was no longer the owner may have executed it.
        let finished = turn.finish().map_err(|Fenced| Unavailable::Unanswered);
        op.answer(finished.and(result));
        None
    }

    /// Makes room for the large values of a batch, step by step; others of this thread come in between. It may take half of
    /// the time that is left.
    async fn make_room(&self, batch: &Batch) {
        let bytes = batch.large_bytes();
        if bytes == 0 || self.epoch() > batch.epoch {
            return;
        }
        let (store, now) = (&self.context().store, Instant::now());
        let until = now + batch.expires.saturating_duration_since(now) / 2;
        let mut expected = Expected::nothing(store.clone());
        expected.reach(bytes);
        while Instant::now() <= until && expected.step(&Caller::new(store.clock().now(), self.counters(), 0))
        {
            yield_now().await;
        }
    }

    /// Executes operations now; `None` when they have to wait for a routing.
    fn try_execute(&self, batch: &mut Batch) -> Result<Option<(pb::Outcomes, Vec<Waiting>)>, Broken> {
        let mut turn = self.begin(self.context().store.clock().now(), 0);
        let Some(routing) = turn.routing() else { return Ok(None) };
        let done = |outcomes| Some((outcomes, Vec::new()));
        let epoch = routing.epoch;
        if epoch > batch.epoch {
            return self.refuse(batch, Kind::WrongOwner, epoch).map(done);
        }
        if must_wait(routing, batch) {
            return Ok(None);
        }
        // Before the time that is left, so that a thread that stands still in between has less of it.
        let started = StdInstant::now();
        let left = batch.expires.saturating_duration_since(Instant::now());
        if left.is_zero() || !turn.serves() {
            return self.refuse(batch, Kind::Unavailable, epoch).map(done);
        }
        turn.expire_at(started + left);
        let expires = batch.expires;
        let mut outcomes = self.lock_outcomes();
        let (mut executed, mut waiting) = (0, Vec::new());
        while outcomes.len() < OUTCOMES_BYTES
            && let Some(operation) = batch.take()?
        {
            let (id, wanted) = (operation.id, operation.wanted());
            let Ok(command) = pb::command(&operation) else {
                pb::put_kind(id, Kind::WrongOwner, &mut outcomes);
                continue;
            };
            let put = |outcome: Outcome<'_>| pb::put_outcome(id, wanted, &outcome, &mut outcomes);
            match turn.execute(&command, put) {
                Ok(()) => executed += 1,
                Err(NotHere::Load(_)) => {
                    executed += 1;
                    pb::put_kind(id, Kind::Loading, &mut outcomes);
                }
                Err(NotHere::At(Place::Warming { .. })) => {
                    executed += 1;
                    waiting.push(self.take_over(id, turn.encode(&command, wanted), epoch, expires));
                }
                Err(_) => pb::put_kind(id, Kind::WrongOwner, &mut outcomes),
            }
        }
        self.counters().add(Counter::PeerOperations, executed);
        // A node that is no longer the owner may have executed something.
        turn.finish()
            .map_err(|Fenced| Broken("this node lost touch with its cluster while it executed".into()))?;
        Ok(Some((pb::Outcomes { outcomes: outcomes.split().freeze(), now_micros: 0, epoch }, waiting)))
    }

    /// Lets an operation wait until what lies under its key was taken over.
    fn take_over(&self, id: u64, operation: EncodedOp, epoch: u64, expires: Instant) -> Waiting {
        let (sender, answer) = oneshot::channel();
        let mut op = PendingOp::new(operation, epoch, expires, ReplyTo::Call(sender));
        op.for_peer = true;
        self.context().moves.take_over(op);
        Waiting { id, answer }
    }

    /// Adds the outcomes of operations that wait, once there are all.
    async fn wait_for_all(&self, outcomes: pb::Outcomes, waiting: Vec<Waiting>) -> pb::Outcomes {
        let mut all = BytesMut::from(&*outcomes.outcomes);
        for Waiting { id, answer } in waiting {
            // It is always answered.
            let result = answer.await.map_or(Err(Unavailable::Unanswered), |answer| answer.result);
            match result {
                Ok(outcome) => pb::put_message(&pb::Outcome { id, ..outcome }, &mut all),
                Err(Unavailable::Moved) => pb::put_kind(id, Kind::WrongOwner, &mut all),
                // It may have been executed.
                Err(Unavailable::Unanswered) => pb::put_kind(id, Kind::Unspecified, &mut all),
                Err(_) => pb::put_kind(id, Kind::Unavailable, &mut all),
            }
        }
        // One that was sent back was so by the present view.
        pb::Outcomes { outcomes: all.freeze(), epoch: self.epoch(), ..outcomes }
    }

    fn refuse(&self, batch: &mut Batch, kind: Kind, epoch: u64) -> Result<pb::Outcomes, Broken> {
        let mut outcomes = self.lock_outcomes();
        while let Some(operation) = batch.take()? {
            pb::put_kind(operation.id, kind, &mut outcomes);
        }
        Ok(pb::Outcomes { outcomes: outcomes.split().freeze(), now_micros: 0, epoch })
    }

    /// Where outcomes are written, empty.
    fn lock_outcomes(&self) -> MutexGuard<'_, BytesMut> {
        let mut outcomes = self.outcomes.lock();
        // A batch that broke may have left something.
        outcomes.clear();
        if outcomes.capacity() > OUTCOMES_KEPT_BYTES {
            *outcomes = BytesMut::new();
        }
        outcomes
    }
}

/// Whether a batch has to wait for another routing: it is of a later view than this one, or
/// for slots that others may still answer for.
fn must_wait(routing: &Routing, batch: &Batch) -> bool {
    let is_shut = |operation: &pb::OpRef<'_>| routing.place(operation.key) == Place::Pending;
    routing.epoch < batch.epoch || routing.epoch == batch.epoch && !routing.is_open() && batch.any(is_shut)
}

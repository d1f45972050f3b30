//! What peers send, executed here or refused.

use std::time::Instant as StdInstant;

use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::cache::routing::{Place, Routing};
use crate::pb;
use crate::pb::operation::Verb as Wire;
use crate::pb::outcome::Kind;
use crate::peer::receive::{Batch, Broken, Executor, OUTCOMES_BYTES};
use crate::store::Caller;

impl Executor for Cache {
    fn epoch(&self) -> u64 {
        self.pane.hold().epoch
    }

    /// Executes operations in their order, all by the view they were sent by: what comes too early
    /// waits for that view, what comes too late is told that it is another one's.
    async fn execute(&self, batch: &mut Batch) -> Result<pb::Outcomes, Broken> {
        loop {
            if let Some(outcomes) = self.try_execute(batch)? {
                return Ok(outcomes);
            }
            let come = self.board.wait_for(|routing| !must_wait(routing, batch));
            if timeout_at(batch.expires, come).await.is_err() {
                return self.refuse(batch, Kind::Unavailable, self.epoch());
            }
        }
    }
}

impl Cache {
    /// Executes operations now; `None` when they have to wait for a routing.
    fn try_execute(&self, batch: &mut Batch) -> Result<Option<pb::Outcomes>, Broken> {
        let routing = self.pane.hold();
        let epoch = routing.epoch;
        if epoch > batch.epoch {
            return self.refuse(batch, Kind::WrongOwner, epoch).map(Some);
        }
        if must_wait(&routing, batch) {
            return Ok(None);
        }
        let left = batch.expires.saturating_duration_since(Instant::now());
        if left.is_zero() || !self.serves() {
            return self.refuse(batch, Kind::Unavailable, epoch).map(Some);
        }
        let caller = Caller { expires: Some(StdInstant::now() + left), ..self.caller() };
        let mut outcomes = Vec::with_capacity(batch.operations.len());
        let mut bytes = 0;
        let mut buffer = self.lock_buffer();
        while bytes < OUTCOMES_BYTES
            && let Some(operation) = batch.next()
        {
            let operation = operation?;
            match (routing.place(&operation.key), pb::command(&operation)) {
                (Place::Here { since }, Ok(command)) => {
                    let caller = Caller { since: Some(since), ..caller };
                    let wants_value = !matches!(&operation.verb, Some(Wire::Get(get)) if get.no_value);
                    self.shared.store.execute(&caller, &command, |outcome| {
                        pb::put_outcome(operation.id, wants_value, &outcome, &mut buffer);
                    });
                }
                _ => pb::put(&refusal(&operation, Kind::WrongOwner), &mut buffer),
            }
            bytes += buffer.len();
            outcomes.push(buffer.split().freeze());
        }
        if self.serves() {
            Ok(Some(pb::Outcomes { outcomes, now_micros: 0, epoch }))
        } else {
            // Something may have been executed by who is not the owner any more.
            Err(Broken("this node lost touch with its cluster while it executed".into()))
        }
    }

    fn refuse(&self, batch: &mut Batch, kind: Kind, epoch: u64) -> Result<pb::Outcomes, Broken> {
        let mut buffer = self.lock_buffer();
        let mut outcomes = Vec::with_capacity(batch.operations.len());
        while let Some(operation) = batch.next() {
            pb::put(&refusal(&operation?, kind), &mut buffer);
            outcomes.push(buffer.split().freeze());
        }
        Ok(pb::Outcomes { outcomes, now_micros: 0, epoch })
    }
}

/// Whether a batch has to wait for another routing: it is of a later view than this one, or
/// for slots that others may still answer for.
fn must_wait(routing: &Routing, batch: &Batch) -> bool {
    let is_shut = |operation: Result<pb::Operation, Broken>| {
        operation.is_ok_and(|operation| routing.place(&operation.key) == Place::Soon)
    };
    routing.epoch < batch.epoch
        || routing.epoch == batch.epoch && !routing.is_open() && batch.rest().any(is_shut)
}

fn refusal(operation: &pb::Operation, kind: Kind) -> pb::Outcome {
    pb::Outcome { id: operation.id, kind: kind.into(), ..pb::Outcome::default() }
}

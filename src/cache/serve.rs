//! What peers send, executed here or refused.

use std::time::Instant as StdInstant;

use tokio::time::{Instant, timeout_at};

use crate::cache::Cache;
use crate::cache::routing::{Place, Routing};
use crate::pb;
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
                return Ok(refuse(batch, Kind::Unavailable, self.epoch()));
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
            return Ok(Some(refuse(batch, Kind::WrongOwner, epoch)));
        }
        if must_wait(&routing, batch) {
            return Ok(None);
        }
        let left = batch.expires.saturating_duration_since(Instant::now());
        if left.is_zero() || !self.serves() {
            return Ok(Some(refuse(batch, Kind::Unavailable, epoch)));
        }
        let caller = Caller { expires: Some(StdInstant::now() + left), ..self.caller() };
        let mut outcomes = Vec::with_capacity(batch.operations.len());
        let mut bytes = 0;
        while bytes < OUTCOMES_BYTES
            && let Some(operation) = batch.operations.next()
        {
            let outcome = match (routing.place(&operation.key), pb::command(&operation)) {
                (Place::Here { since }, Ok(command)) => {
                    let caller = Caller { since: Some(since), ..caller };
                    self.shared.store.execute(&caller, &command, |outcome| pb::outcome(&operation, &outcome))
                }
                _ => refusal(&operation, Kind::WrongOwner),
            };
            bytes += outcome.item.as_ref().map_or(0, |item| item.value.len());
            outcomes.push(outcome);
        }
        if self.serves() {
            Ok(Some(pb::Outcomes { outcomes, now_micros: 0, epoch }))
        } else {
            // Something may have been executed by who is not the owner any more.
            Err(Broken("this node lost touch with its cluster while it executed".into()))
        }
    }
}

/// Whether a batch has to wait for another routing: it is of a later view than this one, or
/// for slots that others may still answer for.
fn must_wait(routing: &Routing, batch: &Batch) -> bool {
    let is_shut = |operation: &pb::Operation| routing.place(&operation.key) == Place::Soon;
    routing.epoch < batch.epoch
        || routing.epoch == batch.epoch
            && !routing.is_open()
            && batch.operations.as_slice().iter().any(is_shut)
}

fn refuse(batch: &mut Batch, kind: Kind, epoch: u64) -> pb::Outcomes {
    let outcomes = batch.operations.by_ref().map(|operation| refusal(&operation, kind)).collect();
    pb::Outcomes { outcomes, now_micros: 0, epoch }
}

fn refusal(operation: &pb::Operation, kind: Kind) -> pb::Outcome {
    pb::Outcome { id: operation.id, kind: kind.into(), ..pb::Outcome::default() }
}

//! Reads that wait for a load at the owner of their key: the two ends of the call.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use crate::cache::clustered::Clustered;
use crate::cache::routing::Place;
use crate::command::Unavailable;
use crate::pb;
use crate::pb::OpRef;
use crate::pb::outcome::Kind;
use crate::peer::PendingOp;
use crate::peer::completions::ReplyTo;
use crate::peer::receive::Broken;

impl Clustered {
    /// Asks the owner of a key to load its value, and waits for it.
    pub(super) async fn load_from_owner(&self, op: PendingOp) {
        let routing = self.routing_handle().hold().clone();
        let Place::Member(index) = routing.place(op.operation().key()) else {
            // It has come here meanwhile, or is about to.
            if let Some(op) = self.execute_here(op, false) {
                op.answer(Err(Unavailable::Moved));
            }
            return;
        };
        let context = self.context();
        let owner = &routing.members()[usize::from(index)];
        let mut operation = BytesMut::new();
        op.operation().put_numbered(0, &mut operation);
        let (call, epoch) = (Some(context.me.call(&owner.id)), routing.epoch);
        let request = pb::LoadRequest { call, epoch, operation: operation.freeze() };
        let patience = self.wait(op.operation().key()) + context.options.operation_timeout;
        let result = match timeout(patience, context.transport.load(owner, request)).await {
            Ok(Ok(outcome)) => match outcome.kind() {
                Kind::WrongOwner => Err(Unavailable::Moved),
                Kind::Unavailable | Kind::Unspecified | Kind::Loading => Err(Unavailable::Refused),
                _ => Ok(outcome),
            },
            Ok(Err(_)) => Err(Unavailable::Unreachable),
            Err(_) => Err(Unavailable::Unanswered),
        };
        op.answer(result);
    }

    /// Answers such a call of another node.
    pub(super) async fn load_for_peer(&self, request: pb::LoadRequest) -> Result<pb::Outcome, Broken> {
        let kind = |kind: Kind| pb::Outcome { kind: kind.into(), ..pb::Outcome::default() };
        let come = self.routing_watch.wait_for(|routing| routing.epoch >= request.epoch);
        if timeout(self.context().options.operation_timeout, come).await.is_err() {
            return Ok(kind(Kind::Unavailable));
        }
        let operation = OpRef::take(&mut &request.operation[..])?;
        let command = pb::command(&operation)?;
        let encoded = self.encode(&command, self.context().store.clock().now(), operation.wanted());
        let (sender, answer) = tokio::sync::oneshot::channel();
        let deadline = self.deadline();
        let op = PendingOp::new(encoded, request.epoch, deadline, ReplyTo::Call(sender));
        if self.execute_here(op, true).is_some() {
            return Ok(kind(Kind::WrongOwner));
        }
        // It is always answered.
        let result = answer.await.map(|answer| answer.result);
        Ok(result.unwrap_or(Err(Unavailable::Unanswered)).unwrap_or_else(|_| kind(Kind::Unavailable)))
    }

    /// How long a read of this key waits for a load.
    fn wait(&self, key: &[u8]) -> Duration {
        let groups = self.context().loads.groups();
        groups.find(key).map_or_else(|| groups.longest_wait(), |group| group.options.wait)
    }
}

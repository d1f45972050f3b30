//! `flush_prefix` in a cluster.

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::cache::clustered::Clustered;
use crate::cluster::State;
use crate::pb;
use crate::store::TooManyFlushes;

/// How long to wait before members are asked again that went by another view.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Clustered {
    /// Has every member flush the keys with a prefix.
    ///
    /// A node that this one does not know of yet answers for keys only when all members of its view go by that view, and one
    /// that was a member does so until everybody has confirmed the view without it. So when this node's view is
    /// confirmed, and all its members answered for their keys by it after they had flushed, there is nobody else; otherwise
    /// all are asked again. A view without members says nothing: a later one may have some.
    ///
    /// # Errors
    /// No member is known. Or who has not confirmed it within [`Clustered::patience_with_all`].
    pub async fn flush_prefix(&self, prefix: &[u8]) -> Result<(), String> {
        let prefix = Bytes::copy_from_slice(prefix);
        let membership = &self.context().membership;
        let until = Instant::now() + self.patience_with_all();
        loop {
            let state = membership.state();
            if state.view.members.is_empty() {
                return Err("the flush was not confirmed by anybody: no member is known".to_owned());
            }
            let unsure = if state.is_converged() {
                let left = until.saturating_duration_since(Instant::now());
                self.flush_members(&prefix, &state, left).await
            } else {
                state.unconfirmed().map(str::to_owned).collect()
            };
            let after = membership.state();
            if state.is_converged() && unsure.is_empty() && after.epoch == state.epoch {
                return Ok(());
            }
            if Instant::now() + ASK_AGAIN >= until {
                let whom =
                    if unsure.is_empty() { "a view that changes".to_owned() } else { unsure.join(", ") };
                return Err(format!("the flush was not confirmed by {whom}"));
            }
            sleep(ASK_AGAIN).await;
        }
    }

    /// Has every member of a view flush, this node included. Returns the ids of those that have not confirmed it by the
    /// deadline, or went by another epoch when they did.
    async fn flush_members(&self, prefix: &Bytes, state: &State, deadline: Duration) -> Vec<String> {
        let (context, epoch) = (self.context(), state.epoch);
        let mut calls = JoinSet::new();
        for member in state.view.members.values() {
            let call = Some(context.me.call(&member.id));
            let request = pb::FlushPrefixRequest { call, prefix: prefix.clone() };
            let (id, flushing) = (member.id.clone(), context.transport.flush_prefix(member, request));
            calls.spawn(async move {
                let is_sure =
                    matches!(timeout(deadline, flushing).await, Ok(Ok(reply)) if reply.epoch == epoch);
                (!is_sure).then_some(id)
            });
        }
        // None of them panics.
        let mut unsure: Vec<String> = calls.join_all().await.into_iter().flatten().collect();
        unsure.sort_unstable();
        unsure
    }

    /// Flushes in this node. Returns the epoch by which it answers for its keys afterwards: whoever asks must hear of a view
    /// that came meanwhile. 0 when it may not answer: others may own them by now.
    pub(super) fn flush_prefix_here(&self, prefix: &[u8]) -> Result<u64, TooManyFlushes> {
        let context = self.context();
        context.store.flush_prefix(prefix)?;
        context.loads.forget_negatives();
        // In this order: one that was put out and has come back meanwhile goes by a later view.
        let serves = context.membership.serves();
        let epoch = context.membership.state().epoch;
        Ok(if serves { epoch } else { 0 })
    }
}

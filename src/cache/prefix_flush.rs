//! `flush_prefix` in a cluster.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::cache::clustered::Clustered;

/// How long to wait before members are asked again that went by another view.
const ASK_AGAIN: Duration = Duration::from_millis(50);

impl Clustered {
    /// Has every member flush the keys with a prefix.
    ///
    /// A node that this one does not know of yet answers for keys only when all members of its view go by that view, and one
    /// that was a member does so until everybody has confirmed the view without it. So when this node's view is
    /// confirmed, and all its members went by it as they flushed, there is nobody else; otherwise all are asked again.
    ///
    /// # Errors
    /// Who has not confirmed it within [`Clustered::patience_with_all`].
    pub async fn flush_prefix(&self, prefix: &[u8]) -> Result<(), String> {
        let shared = self.context();
        let until = Instant::now() + self.patience_with_all();
        loop {
            let state = shared.membership.state();
            let unsure = if state.is_converged() {
                let left = until.saturating_duration_since(Instant::now());
                shared.pings.flush_prefix(prefix, &state, left).await
            } else {
                state.unconfirmed().map(str::to_owned).collect()
            };
            let after = shared.membership.state();
            if state.is_converged() && unsure.is_empty() && after.epoch == state.epoch {
                return Ok(());
            }
            if Instant::now() + ASK_AGAIN >= until {
                let whom =
                    if unsure.is_empty() { "a view that changes".to_owned() } else { unsure.join(", ") };
                return Err(format!("flush_prefix was not confirmed by {whom}"));
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

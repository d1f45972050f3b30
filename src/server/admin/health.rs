//! Whether this node lives, and whether it is ready for clients.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use crate::cluster::MemberStatus;
use crate::server::admin::Admin;
use crate::server::admin::problem::Problem;

/// The process runs and answers, and no thread stands still.
pub(super) async fn alive(State(admin): State<Arc<Admin>>) -> Result<&'static str, Problem> {
    match admin.context.watchdog.stuck() {
        None => Ok("ok\n"),
        Some(stuck) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, stuck.to_string())),
    }
}

/// A load balancer may send clients here.
pub(super) async fn ready(State(admin): State<Arc<Admin>>) -> Result<&'static str, Problem> {
    match admin.unready() {
        None => Ok("ready\n"),
        Some(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

impl Admin {
    /// Why no client should be sent here; `None` when they may.
    pub(super) fn unready(&self) -> Option<&'static str> {
        if self.context.leave.is_cancelled() {
            return Some("this node is draining");
        }
        let shared = self.cluster()?;
        let state = shared.membership.state();
        match state.standing {
            MemberStatus::Joining => Some("this node has not joined its cluster yet"),
            MemberStatus::Leaving => Some("this node is leaving its cluster"),
            MemberStatus::Serving if shared.membership.serves() => {
                (state.owners.slots_of(&state.me) == 0).then_some("this node owns no keys yet")
            }
            MemberStatus::Serving | MemberStatus::Fenced => {
                Some("this node is out of touch with most of its cluster")
            }
        }
    }
}

//! The present routing, for tasks that wait for another one.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cache::routing::Routing;

/// Publishes the routing in force. The task that has waited longest sees the next one first, which a simulation must be
/// able to count on; tokio's `watch` wakes its receivers in any order.
#[derive(Debug)]
pub struct RoutingWatch {
    present: Mutex<Arc<Routing>>,
    posted: Notify,
}

impl RoutingWatch {
    /// A routing watch with the first routing.
    pub(super) fn new(routing: Arc<Routing>) -> Self {
        Self { present: Mutex::new(routing), posted: Notify::new() }
    }

    /// The routing in force.
    pub fn present(&self) -> Arc<Routing> {
        self.present.lock().clone()
    }

    /// Replaces it.
    pub(super) fn post(&self, routing: Arc<Routing>) {
        *self.present.lock() = routing;
        self.posted.notify_waiters();
    }

    /// Waits for a routing that `wanted` accepts, the present one included; some in between may be skipped.
    /// Cancellation safe.
    pub async fn wait_for(&self, wanted: impl Fn(&Routing) -> bool) -> Arc<Routing> {
        loop {
            // Counts from here on, so that none is missed after the look at the present one.
            let posted = self.posted.notified();
            let routing = self.present();
            if wanted(&routing) {
                return routing;
            }
            posted.await;
        }
    }
}

//! stub
use crate::{cluster, pb};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
/// A
pub struct Pings;
impl Pings {
    /// A
    pub fn new(_o: &cluster::etcd::Options, _p: &crate::peer::options::Options) -> Arc<Self> {
        Arc::new(Self)
    }
    /// A
    pub fn start(self: &Arc<Self>, _m: cluster::Membership, _t: &TaskTracker, _s: CancellationToken) {}
    /// A
    pub async fn flush(&self, _delay: u32, _d: Duration) -> Vec<String> {
        vec![]
    }
    /// A
    pub async fn stats(&self, _d: Duration) -> Vec<(String, Option<Vec<pb::Stat>>)> {
        vec![]
    }
}
impl cluster::Reachability for Pings {
    fn reachable(&self, _id: &str) -> bool {
        true
    }
}

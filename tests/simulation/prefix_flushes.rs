//! A flush of a prefix is not confirmed by nodes beside which others may answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use filbert::testkit::network::Network;

use crate::simulation::etcd::Etcd;
use crate::simulation::process::Process;

/// A sole member that goes by the present view.
fn member(network: &Network) -> (Arc<Process>, Etcd) {
    let etcd = Etcd::new();
    let process = Process::start(0, 0, 0, None, network);
    let me = process.me();
    etcd.follow([(me.id.clone(), me)].into(), false);
    process.learn(&etcd.present());
    (process, etcd)
}

#[tokio::test(start_paused = true)]
async fn a_member_confirms_it() {
    let (process, _) = member(&Network::new(1));
    assert!(process.memory().flush_prefix("a:").await);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_knows_no_member_does_not() {
    let process = Process::start(0, 0, 0, None, &Network::new(1));
    assert!(!process.memory().flush_prefix("a:").await);
    let (process, etcd) = member(&Network::new(1));
    etcd.follow(BTreeMap::new(), false);
    process.learn(&etcd.present());
    assert!(!process.memory().flush_prefix("a:").await);
}

/// By now the others may have gone on without it.
#[tokio::test(start_paused = true)]
async fn a_member_without_a_lease_does_not() {
    let (process, _) = member(&Network::new(1));
    process.fence(true);
    assert!(!process.memory().flush_prefix("a:").await);
    process.fence(false);
    assert!(process.memory().flush_prefix("a:").await);
}

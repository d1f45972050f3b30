//! How a process hears of what stands in etcd, and says which epoch it has acknowledged: late, not of everything, and not
//! always in order.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::simulation::etcd::Revision;
use crate::simulation::process::Process;
use crate::simulation::world::World;

/// Between two looks whether etcd is there again.
const RETRY: Duration = Duration::from_millis(10);

/// Follows etcd for ever.
pub async fn run(world: Arc<World>, process: Arc<Process>, mut rng: Rng) {
    loop {
        world.etcd.news(process.seen()).await;
        lag(&world, &process, &mut rng).await;
        follow(&world, &process, &mut rng).await;
        lag(&world, &process, &mut rng).await;
        acknowledge(&world, &process);
    }
}

/// A process catches up with etcd at once, and gets a lease.
pub fn register(world: &World, process: &Process) {
    for revision in world.etcd.since(process.seen()) {
        world.inform(process, &revision);
    }
    process.silence(false);
    acknowledge(world, process);
}

/// Hears of later views from other processes, as pings bring them, with or without etcd.
pub async fn gossip(world: Arc<World>, process: Arc<Process>, mut rng: Rng) {
    loop {
        sleep(Duration::from_millis(rng.u64(20..400))).await;
        let hears = |node: usize| !world.node(node).off_gossip;
        if let Some(other) = rng.choice(world.processes())
            && other.epoch() > process.epoch()
            && hears(other.node)
            && hears(process.node)
        {
            world.gossip(&process, &other);
        }
    }
}

fn acknowledge(world: &World, process: &Process) {
    if !process.is_silent() {
        world.etcd.acknowledge(&process.id, process.number, process.epoch());
    }
}

/// What is read or written arrives later.
async fn lag(world: &World, process: &Process, rng: &mut Rng) {
    let most = match rng.u8(..10) {
        0..6 => 3,
        6..9 => 30,
        _ => 400,
    };
    sleep(Duration::from_millis(rng.u64(..=most))).await;
    while world.node(process.node).off_etcd {
        sleep(RETRY).await;
    }
}

/// Takes over what there is.
async fn follow(world: &World, process: &Process, rng: &mut Rng) {
    let revisions = world.etcd.since(process.seen());
    let Some(last) = revisions.last() else { return };
    match rng.u8(..10) {
        // One after another.
        0..6 => {
            for revision in &revisions {
                if rng.u8(..8) == 0 {
                    sleep(Duration::from_millis(rng.u64(..20))).await;
                }
                world.inform(process, revision);
            }
        }
        // Nothing but the last.
        6 => world.inform(process, last),
        // In any order.
        _ => {
            let mut shuffled: Vec<&Revision> = revisions.iter().collect();
            rng.shuffle(&mut shuffled);
            for revision in shuffled {
                let acknowledged = last.acknowledged.clone();
                world.inform(process, &Revision { number: last.number, acknowledged, ..revision.clone() });
            }
        }
    }
}

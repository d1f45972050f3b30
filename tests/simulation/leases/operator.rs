//! What goes wrong: above all, nodes stand still for about as long as their lease, and etcd is slow.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::simulation::leases::LEASE;
use crate::simulation::leases::member::name;
use crate::simulation::leases::world::World;
use crate::support::history::Moment;

const MS: Duration = Duration::from_millis(1);

/// Does harm until the moment, and returns when all of it is over.
pub async fn run(world: Arc<World>, until: Moment, mut rng: Rng) {
    let mut faults = JoinSet::new();
    while world.now() < until {
        sleep(MS * rng.u32(100..4_000)).await;
        let (kind, rng, world) = (rng.u8(..36), rng.fork(), world.clone());
        _ = match kind {
            0..17 => faults.spawn(stand_still(world, rng)),
            17..20 => faults.spawn(crash(world, rng)),
            20..23 => faults.spawn(leave(world, rng)),
            23..26 => faults.spawn(lose_etcd(world, rng)),
            26..29 => faults.spawn(lose_peers(world, rng)),
            29 => faults.spawn(lose_leases(world)),
            30..33 => faults.spawn(flush(world, rng)),
            _ => faults.spawn(slow_etcd(world, rng)),
        };
    }
    while let Some(fault) = faults.join_next().await {
        fault.expect("no fault panics");
    }
}

/// Waits for any time up to this number of leases.
async fn wait(rng: &mut Rng, leases: f64) {
    sleep(LEASE.mul_f64(rng.f64() * leases)).await;
}

/// For less than a lease, about one, or until the others have gone on without it.
async fn stand_still(world: Arc<World>, mut rng: Rng) {
    let Some(node) = world.engage(&mut rng) else { return };
    if rng.bool()
        && let Some(process) = world.of(node)
    {
        // Answers come while it stands still, and are looked at when it goes on. One that is alone sends no pings.
        _ = timeout(LEASE, process.pinged()).await;
    }
    world.freeze(node);
    match rng.u8(..4) {
        0 => wait(&mut rng, 2.0).await,
        _ => {
            let is_out = || {
                let others = world.processes();
                others.iter().any(|other| {
                    other.node != node && !other.membership.state().view.members.contains_key(&name(node))
                })
            };
            let out = async {
                while !is_out() {
                    sleep(MS * 10).await;
                }
            };
            if timeout(LEASE * 4, out).await.is_ok() {
                wait(&mut rng, 0.5).await;
            }
        }
    }
    world.thaw(node);
    wait(&mut rng, 1.0).await;
    world.let_go(node);
}

async fn crash(world: Arc<World>, mut rng: Rng) {
    let Some(node) = world.engage(&mut rng) else { return };
    world.kill(node);
    wait(&mut rng, 2.0).await;
    world.start(node);
    world.let_go(node);
}

async fn leave(world: Arc<World>, mut rng: Rng) {
    let Some(node) = world.engage(&mut rng) else { return };
    if let Some(process) = world.of(node) {
        world.tell(format!("{} leaves", process.id));
        let left = process.membership.leave(LEASE).await;
        world.tell(format!("{} has left: {left:?}", process.id));
        // What is on its way to it is sent back meanwhile.
        sleep(MS * rng.u32(..300)).await;
        world.kill(node);
        wait(&mut rng, 1.0).await;
        world.start(node);
    }
    world.let_go(node);
}

/// One node does not reach etcd for some time.
async fn lose_etcd(world: Arc<World>, mut rng: Rng) {
    let Some(node) = world.engage(&mut rng) else { return };
    let alone = rng.bool();
    world.tell(format!("{} loses etcd{}", name(node), if alone { " and everybody" } else { "" }));
    world.etcd.cut(&name(node), true);
    if alone {
        isolate(&world, node, true);
    }
    wait(&mut rng, 3.0).await;
    if alone {
        isolate(&world, node, false);
    }
    world.etcd.cut(&name(node), false);
    world.tell(format!("{} finds etcd", name(node)));
    world.let_go(node);
}

async fn lose_peers(world: Arc<World>, mut rng: Rng) {
    let Some(node) = world.engage(&mut rng) else { return };
    world.tell(format!("{} loses everybody but etcd", name(node)));
    isolate(&world, node, true);
    wait(&mut rng, 2.0).await;
    isolate(&world, node, false);
    world.tell(format!("{} finds everybody", name(node)));
    world.let_go(node);
}

fn isolate(world: &World, node: usize, cut: bool) {
    (0..world.nodes()).filter(|other| *other != node).for_each(|other| world.cut(node, other, cut));
}

/// etcd ends all leases before their time, as one whose leader was stuck may (etcd issue 15247), while everybody reaches
/// everybody. Nothing could make up for it while a node is cut off from the others and not from etcd: it renews a lease
/// that they see end, and nobody can tell them that it serves by it for a while.
async fn lose_leases(world: Arc<World>) {
    if !world.quiet().await {
        return;
    }
    // Suspicions of nodes that did not answer are over.
    sleep(LEASE).await;
    world.tell("etcd loses all leases".to_owned());
    world.etcd.lose_leases();
    world.end_quiet();
}

async fn flush(world: Arc<World>, mut rng: Rng) {
    let Some(process) = world.any(&mut rng) else { return };
    let raised = process.membership.raise_flush_generation().await;
    world.tell(format!("{} flushes: {raised:?}", process.id));
}

async fn slow_etcd(world: Arc<World>, mut rng: Rng) {
    set_latency(&world, &mut rng);
}

/// Chooses how far away etcd is.
pub fn set_latency(world: &World, rng: &mut Rng) {
    let latency = rng.choice([1..=4, 5..=30, 25..=35, 60..=60, 80..=300]).expect("there are some");
    world.tell(format!("etcd takes {latency:?} ms each way"));
    world.etcd.delay(latency);
}

/// Makes everything well.
pub fn end(world: &Arc<World>) {
    world.etcd.delay(1..=3);
    for node in 0..world.nodes() {
        if world.of(node).is_none() {
            world.start(node);
        }
    }
}

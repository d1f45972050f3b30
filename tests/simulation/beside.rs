//! What goes on beside the clients, and does no harm.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use filbert::command::{Command, SetMode, Verb};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::simulation::clients::set;
use crate::simulation::database::PREFIX;
use crate::simulation::process::name;
use crate::simulation::world::World;
use crate::support::history::Moment;

const MS: Duration = Duration::from_millis(1);

/// Fills the memory of all nodes with what nobody asks for, until the moment: then moves take their time.
pub async fn fill(world: Arc<World>, until: Moment, mut rng: Rng) {
    while world.now() < until {
        for process in world.nodes().into_iter().filter(|node| !node.frozen).filter_map(|node| node.process) {
            let key = format!("filling-{}", rng.u8(..40));
            let verb = Verb::Set(set(SetMode::Set, b"what nobody asks for"));
            process.memory().execute_here(0, &Command { key: key.as_bytes(), key_binary: false, verb });
        }
        sleep(MS * rng.u32(5..25)).await;
    }
}

/// Gives slots to another node and soon takes them back, until the moment.
pub async fn swing(world: Arc<World>, until: Moment, mut rng: Rng) {
    while world.now() < until {
        sleep(MS * rng.u32(100..900)).await;
        let id = name(rng.usize(..2));
        let weigh = |weight| {
            let mut members = world.etcd.present().view.members.clone();
            let Some(member) = members.get_mut(&id) else { return };
            member.weight = weight;
            let epoch = world.etcd.follow(members, false);
            world.tell(format!("view {epoch} gives {id} the weight {weight}"));
        };
        weigh(300);
        sleep(MS * rng.u32(20..1_000)).await;
        weigh(100);
    }
}

/// Flushes prefixes until the moment: of single keys, of all that have a value in the database, of none.
pub async fn flush_prefixes(world: Arc<World>, until: Moment, mut rng: Rng) {
    let mut flushes = JoinSet::new();
    while world.now() < until {
        sleep(MS * rng.u32(20..600)).await;
        let Some(process) = rng.choice(world.processes()) else { continue };
        let key = rng.choice(&world.keys).expect("there are some");
        let prefix = rng.choice([key, PREFIX, "other"]).expect("there are some").to_owned();
        let world = world.clone();
        flushes.spawn(async move { world.flush_prefix(&process, &prefix).await });
    }
    while let Some(flush) = flushes.join_next().await {
        flush.expect("no flush panics");
    }
}

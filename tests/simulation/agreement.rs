//! Whether every node answers alike in the end.

use fastrand::Rng;
use filbert::command::{Command, Get, SetMode, Verb};
use filbert::pb::outcome::Kind as Came;

use crate::simulation::clients::{Reply, ask, set};
use crate::simulation::world::World;

/// Sets every key through one node, reads it through all, and says what does not work. By now, nothing is in the way.
pub async fn agree(world: &World, rng: &mut Rng) {
    let value = b"in the end";
    for name in &world.keys {
        let (reply, span) = ask(world, rng, name, Verb::Set(set(SetMode::Set, value))).await;
        match reply {
            Reply::Done(outcome) if outcome.kind() == Came::Stored => {}
            Reply::Done(outcome) => world.accuse(format!("in the end, a set of {name} gave {outcome:?}")),
            Reply::Refused(why) => {
                world.accuse(format!(
                    "in the end, a set of {name} through node {} failed: {why:?}",
                    span.node + 1
                ));
            }
            Reply::Unknown => world.accuse(format!("in the end, a set of {name} was not answered")),
        }
        for process in world.processes() {
            let verb = Verb::Get(Get::PLAIN);
            let command = Command { key: name.as_bytes(), key_binary: false, verb };
            let answer = process.memory().execute(0, &command).await;
            let is_right = answer.as_ref().is_some_and(|answer| {
                answer.as_ref().is_ok_and(|outcome| {
                    outcome.item.as_ref().is_some_and(|item| item.value == value.as_slice())
                })
            });
            if !is_right {
                world.accuse(format!("in the end, {} read {answer:?} of {name}", process.id));
            }
        }
    }
}

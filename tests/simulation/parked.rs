//! Commands that wait until their owner is certain do not wait for each other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use filbert::cluster::view::slot;
use filbert::command::{Command, Get, Unavailable, Verb};
use filbert::pb;
use filbert::pb::outcome::Kind;
use filbert::testkit::network::{Delay, Network};
use tokio::time::{Instant, sleep};

use crate::simulation::etcd::{Etcd, Revision};
use crate::simulation::memory::PATIENCE;
use crate::simulation::process::Process;

const MS: Duration = Duration::from_millis(1);

/// Node 1 acts on epoch 1, in which its own slots are shut, and node 2 on epoch 2.
struct Pair {
    one: Arc<Process>,
    next: Revision,
}

impl Pair {
    async fn new() -> Self {
        let (network, etcd) = (Network::new(1), Etcd::new());
        let (one, two) = (Process::start(0, 0, 0, None, &network), Process::start(1, 2, 0, None, &network));
        let members: BTreeMap<_, _> = [one.me(), two.me()].map(|me| (me.id.clone(), me)).into();
        etcd.follow(members.clone(), false);
        one.learn(&etcd.present());
        etcd.acknowledge(&one.id, 0, 1);
        two.learn(&etcd.present());
        assert_eq!(
            get(&one, &key_of(&two.id, &one)).await.0.map(|outcome| outcome.kind()),
            Ok(Kind::NotFound)
        );
        etcd.follow(members, true);
        etcd.acknowledge(&one.id, 0, 2);
        two.learn(&etcd.present());
        for (from, to) in [(&one.id, &two.id), (&two.id, &one.id)] {
            network.delay(from, to, Delay::Fixed(MS * 30));
        }
        // Node 1 does not hear that node 2 has acknowledged it.
        let next = Revision { acknowledged: Arc::default(), ..etcd.present() };
        Self { one, next }
    }
}

/// A key of the node of this id.
fn key_of(id: &str, process: &Process) -> String {
    let owners = process.membership.state().owners.clone();
    let owner = |key: &String| owners.owner(slot(key.as_bytes())).map(|owner| owner.id.clone());
    let mut keys = (0..).map(|number| format!("key-{number}"));
    keys.find(|key| owner(key).as_deref() == Some(id)).expect("every node has slots")
}

/// Reads a key, and says how long that took.
async fn get(process: &Process, key: &str) -> (Result<pb::Outcome, Unavailable>, Duration) {
    let began = Instant::now();
    let command = Command { key: key.as_bytes(), key_binary: false, verb: Verb::Get(Get::PLAIN) };
    let result = process.memory().execute(0, &command).await.expect("nobody kills it");
    (result, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_command_is_answered_by_its_deadline_behind_one_with_a_later_one() {
    let Pair { one, .. } = Pair::new().await;
    let (mine, its) = (key_of("node-1", &one), key_of("node-2", &one));
    let later = async {
        sleep(MS * 20).await;
        get(&one, &mine).await
    };
    // It is there 60 ms later, refused by node 2, which is ahead.
    let ((refused, took), (shut, _)) = tokio::join!(get(&one, &its), later);
    assert_eq!(refused, Err(Unavailable::Moved));
    assert!(took <= PATIENCE + MS * 2, "{took:?}");
    assert_eq!(shut, Err(Unavailable::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn a_shut_slot_holds_up_no_other() {
    let Pair { one, next, .. } = Pair::new().await;
    let (mine, its) = (key_of("node-1", &one), key_of("node-2", &one));
    let later = async {
        sleep(MS * 20).await;
        get(&one, &mine).await
    };
    let learn = async {
        sleep(MS * 70).await;
        one.learn(&next);
    };
    let ((found, took), (shut, _), ()) = tokio::join!(get(&one, &its), later, learn);
    assert_eq!(found.map(|outcome| outcome.kind()), Ok(Kind::NotFound));
    assert!(took <= MS * 135, "{took:?}");
    assert_eq!(shut, Err(Unavailable::Unreachable));
}

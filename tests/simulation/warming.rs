//! Items move with their slots while clients change them, and nothing is lost or done twice.

use std::sync::Arc;
use std::time::Duration;

use filbert::cluster::view::slot;
use filbert::command::{Arithmetic, Command, Get, SetMode, Verb};
use filbert::pb;
use filbert::pb::outcome::Kind;
use filbert::testkit::network::{Delay, Network};
use tokio::time::{Instant, sleep};

use crate::simulation::clients::set;
use crate::simulation::etcd::Etcd;
use crate::simulation::process::Process;

const MS: Duration = Duration::from_millis(1);

/// Nodes that hear of every view at once.
struct Cluster {
    network: Network,
    etcd: Etcd,
    processes: Vec<Arc<Process>>,
}

impl Cluster {
    /// So many nodes, of which all but the last are members. Messages take so long.
    fn new(nodes: usize, bytes_per_second: u64, delay: Duration) -> Self {
        let (network, etcd) = (Network::new(1), Etcd::new());
        let start = |node| Process::start(node, node as u64, bytes_per_second, None, &network);
        let processes: Vec<_> = (0..nodes).map(start).collect();
        for (from, to) in processes.iter().flat_map(|from| processes.iter().map(move |to| (from, to))) {
            network.delay(&from.id, &to.id, Delay::Fixed(delay));
        }
        let members = processes[..nodes - 1].iter().map(|process| (process.id.clone(), process.me()));
        etcd.follow(members.collect(), false);
        let cluster = Self { network, etcd, processes };
        cluster.hear();
        cluster
    }

    /// Everybody comes to the present view, and opens its slots.
    fn hear(&self) {
        for _ in 0..2 {
            for process in &self.processes {
                process.learn(&self.etcd.present());
                self.etcd.acknowledge(&process.id, process.number, process.epoch());
            }
        }
        self.processes.iter().for_each(|process| _ = process.learn(&self.etcd.present()));
    }

    /// A node becomes a member, or gets another weight.
    fn weigh(&self, node: usize, weight: u32) {
        let mut members = self.etcd.present().view.members.clone();
        let mut me = self.processes[node].me();
        me.weight = weight;
        members.insert(me.id.clone(), me);
        self.etcd.follow(members, false);
        self.hear();
    }

    /// A node leaves; its process stays.
    async fn leave(&self, node: usize) {
        self.processes[node].leave().await;
        self.etcd.leave(&self.processes[node].id);
        self.hear();
    }

    fn is_moving(&self) -> bool {
        self.processes.iter().any(|process| process.memory().moving_slots() != (0, 0))
    }

    fn owner(&self, key: &str) -> String {
        let owners = self.etcd.present().owners;
        owners.owner(slot(key.as_bytes())).expect("there are members").id.clone()
    }

    async fn ask(&self, node: usize, key: &str, verb: Verb<'_>) -> pb::Outcome {
        let command = Command { key: key.as_bytes(), key_binary: false, verb };
        let answer = self.processes[node].memory().serve(0, &command).await.expect("nobody kills it");
        answer.unwrap_or_else(|why| panic!("{key}: {why:?}"))
    }

    fn end(self) {
        self.processes.iter().for_each(|process| process.kill(&self.network));
    }
}

/// Counts under every key until nothing moves any more; how often each was counted.
async fn count(cluster: &Cluster, keys: &[String], counted: u64, nodes: &[usize]) -> u64 {
    let (mut rounds, began) = (counted, Instant::now());
    while rounds == counted || cluster.is_moving() {
        assert!(began.elapsed() < Duration::from_secs(30), "it still moves");
        rounds += 1;
        for (number, key) in keys.iter().enumerate() {
            let node = nodes[(number + rounds as usize) % nodes.len()];
            let outcome = cluster.ask(node, key, Verb::Arithmetic(Arithmetic::PLAIN)).await;
            let value = outcome.item.as_ref().map(|item| String::from_utf8_lossy(&item.value).into_owned());
            assert_eq!(value, Some((1_000 + rounds).to_string()), "{key} gave {outcome:?}");
        }
    }
    rounds
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_by_a_planned_change() {
    for rate in [0, 300, 2_000] {
        let cluster = Cluster::new(4, rate, MS * 3);
        let keys: Vec<_> = (0..60).map(|number| format!("key-{number}")).collect();
        for key in &keys {
            let outcome = cluster.ask(0, key, Verb::Set(set(SetMode::Set, b"1000"))).await;
            assert_eq!(outcome.kind(), Kind::Stored);
        }
        let mut counted = 0;
        cluster.weigh(0, 300);
        counted = count(&cluster, &keys, counted, &[0, 1, 2]).await;
        cluster.weigh(3, 100);
        counted = count(&cluster, &keys, counted, &[0, 1, 2, 3]).await;
        cluster.leave(0).await;
        counted = count(&cluster, &keys, counted, &[1, 2, 3]).await;
        cluster.weigh(1, 300);
        _ = count(&cluster, &keys, counted, &[1, 2, 3]).await;
        cluster.end();
    }
}

#[tokio::test(start_paused = true)]
async fn commands_of_one_key_are_executed_in_their_order() {
    let cluster = Cluster::new(3, 0, MS * 20);
    let keys: Vec<_> = (0..200).map(|number| format!("key-{number}")).collect();
    let before: Vec<_> = keys.iter().map(|key| cluster.owner(key)).collect();
    for key in &keys {
        _ = cluster.ask(0, key, Verb::Set(set(SetMode::Set, b":"))).await;
    }
    cluster.weigh(0, 300);
    let came = |(key, before): &(String, String)| *before != "node-1" && cluster.owner(key) == "node-1";
    let keys: Vec<_> = keys.into_iter().zip(before).filter(came).map(|(key, _)| key).take(20).collect();
    assert_eq!(keys.len(), 20);
    let process = &cluster.processes[0];
    let mut appending = Vec::new();
    // Each begins a little later, so that some come with all the rest while a command waits for them.
    for moment in 0..200 {
        for key in keys.iter().take(moment / 5) {
            let (process, key) = (process.clone(), key.clone());
            appending.push(tokio::spawn(async move {
                let value = format!("+{moment:03}");
                let verb = Verb::Set(set(SetMode::Append, value.as_bytes()));
                let command = Command { key: key.as_bytes(), key_binary: false, verb };
                process
                    .memory()
                    .serve(0, &command)
                    .await
                    .expect("nobody kills it")
                    .expect("it is answered")
                    .kind()
            }));
        }
        sleep(MS).await;
    }
    for appended in appending {
        assert_eq!(appended.await.expect("nobody panics"), Kind::Stored);
    }
    for key in &keys {
        let item = cluster.ask(0, key, Verb::Get(Get::PLAIN)).await.item.expect("it is there");
        let value = String::from_utf8_lossy(&item.value).into_owned();
        assert!(value.starts_with(":+") && value.split('+').skip(1).is_sorted(), "{key}: {value}");
    }
    cluster.end();
}

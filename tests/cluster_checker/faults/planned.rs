//! Nodes leave and join while clients work, and die in the middle of it.

use std::thread;
use std::time::{Duration, Instant};

use crate::cluster_checker::faults::{Faults, Outage};
use crate::support::cluster::{Cluster, LEASE};
use crate::support::node::Node;

/// Items beside those of clients, so that a move takes some while at [`MOVE_RATE`], and how large they are.
const ITEMS: usize = 1_500;
const ITEM_BYTES: usize = 500;

/// What nodes are told besides.
pub const MOVE_RATE: [&str; 2] = ["--move-rate", "150k"];

/// How long items may take until they begin to move.
const BEGINNING: Duration = LEASE.saturating_mul(2);

/// How many changes were seen while items moved, and how many nodes died meanwhile.
#[derive(Debug, Default)]
pub struct Planned {
    pub moved: usize,
    pub killed: usize,
}

/// Which node dies while items move.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Nobody,
    /// Who leaves, so the source; or who joins, so the taker.
    Changing,
    Another(usize),
}

impl Faults<'_> {
    /// So many nodes leave or join, one after the other; in two of three cases a node is killed meanwhile. It is whole at the
    /// end.
    ///
    /// # Panics
    ///
    /// When it does not become whole.
    pub fn run_planned(&mut self, changes: usize) -> Planned {
        let mut planned = Planned::default();
        for _ in 0..changes.div_ceil(2) {
            self.rest();
            fill(self.cluster);
            let node = self.rng.usize(..self.cluster.nodes.len());
            let began = self.now();
            self.note(&format!("node {node} (from 0) is told to leave"));
            self.cluster.nodes[node].term();
            for joins in [false, true] {
                if joins {
                    self.note("it has gone, and comes again");
                    self.cluster.nodes[node].start();
                }
                let victim = self.victim(node);
                if self.kill_meanwhile(node, victim, joins) {
                    planned.moved += 1;
                    planned.killed += usize::from(!matches!(victim, Victim::Nobody));
                }
                match victim {
                    Victim::Changing if joins => self.cluster.nodes[node].start(),
                    Victim::Nobody | Victim::Another(_) if !joins => _ = self.cluster.nodes[node].wait_exit(),
                    _ => {}
                }
            }
            self.log.outages.push(Outage { node, from: began, until: self.now() });
        }
        self.rest();
        planned
    }

    fn victim(&mut self, changing: usize) -> Victim {
        let nodes = self.cluster.nodes.len();
        match self.rng.u8(..3) {
            0 => Victim::Nobody,
            1 => Victim::Changing,
            _ => Victim::Another((changing + self.rng.usize(1..nodes)) % nodes),
        }
    }

    /// Waits until items move because a node joins or leaves, and for a part of that; then the victim dies, and another one than
    /// that node comes again. Whether items moved at that moment.
    fn kill_meanwhile(&mut self, changing: usize, victim: Victim, joins: bool) -> bool {
        let deadline = Instant::now() + BEGINNING;
        while !self.is_moving(changing, joins) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.wait(LEASE / 4);
        let is_moving = self.is_moving(changing, joins);
        self.note(&format!("{victim:?} dies; items move: {is_moving}"));
        match victim {
            Victim::Nobody => {}
            Victim::Changing => self.cluster.nodes[changing].kill9(),
            Victim::Another(node) => {
                let from = self.now();
                self.cluster.nodes[node].kill9();
                self.wait(LEASE * 2);
                self.cluster.nodes[node].start();
                self.log.outages.push(Outage { node, from, until: self.now() });
            }
        }
        is_moving
    }

    /// Whether nodes still take over slots. Who leaves takes none, and may end any moment.
    fn is_moving(&self, changing: usize, joins: bool) -> bool {
        let takes = |node: &Node| node.ring_stats()["move_slots_in"] != "0";
        let nodes = self.cluster.nodes.iter().enumerate();
        nodes.filter(|(number, _)| joins || *number != changing).any(|(_, node)| takes(node))
    }
}

/// Fills the cluster, so that something moves. What is not stored is no loss.
fn fill(cluster: &Cluster) {
    let mut wire = cluster.nodes[0].connect();
    let value = "x".repeat(ITEM_BYTES);
    for number in 0..ITEMS {
        wire.send(format!("set ballast-{number} 0 0 {ITEM_BYTES}\r\n{value}\r\n").as_bytes());
        wire.line().expect("an answer");
    }
}

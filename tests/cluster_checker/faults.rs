//! What goes wrong while clients work, by a seed: nodes die, stand still, leave and are cut off, and etcd does, too;
//! single threads stand still, and logs.

mod planned;

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::cluster_checker::workload::Woken;
use crate::support::cluster::{Cluster, LEASE};
use crate::support::history::Moment;

pub use planned::MOVE_RATE;

/// How long a node stands still at most until the others have gone on without it.
const FREEZE: Duration = LEASE.saturating_mul(4);

/// How long a node is waited for that may not answer.
const GLANCE: Duration = Duration::from_millis(200);

/// How long clients ask a node most that has woken up.
const WAKING: Duration = LEASE.saturating_mul(1);

/// Breaks a cluster and mends it, and keeps a log.
pub struct Faults<'a> {
    cluster: &'a mut Cluster,
    woken: Woken,
    rng: Rng,
    start: Instant,
    pub log: Log,
}

/// What went wrong when.
#[derive(Debug, Default)]
pub struct Log {
    pub events: Vec<(Moment, String)>,
    /// When a node may have been silent.
    pub outages: Vec<Outage>,
    /// From when to when the cluster was whole and nothing changed.
    pub calm: Vec<(Moment, Moment)>,
}

#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub node: usize,
    pub from: Moment,
    pub until: Moment,
}

#[derive(Clone, Debug)]
enum Fault {
    Kill(usize),
    Leave(usize),
    Pause(usize),
    /// Stands still until the others have gone on without it. When it wakes up, clients come at once, and each call to
    /// etcd takes this number of milliseconds.
    Freeze(usize, u64),
    KillEtcd,
    PauseEtcd,
    /// What goes from one host to another is lost.
    Cut(Vec<(usize, usize)>),
    /// Nothing reads a node's log.
    Stall(usize),
    /// One thread of a node stands still.
    Hold(usize, &'static str),
}

/// Threads that are made to stand still (`src/watchdog.rs`).
const THREADS: [&str; 6] = ["main", "worker-0", "worker-0.batch", "mover", "sweeper", "http"];

impl<'a> Faults<'a> {
    /// For a cluster that is whole.
    pub fn new(cluster: &'a mut Cluster, woken: Woken, seed: u64, start: Instant) -> Faults<'a> {
        Faults { cluster, woken, rng: Rng::with_seed(seed), start, log: Log::default() }
    }

    /// Breaks and mends it for this time; it is whole at the end.
    ///
    /// # Panics
    ///
    /// When it does not become whole.
    pub fn run(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        self.rest();
        while Instant::now() < end {
            let first = self.fault(None);
            let began = self.begin(&first);
            self.wait(longest(&first));
            // Some come together.
            let second = (self.rng.u8(..3) == 0).then(|| self.fault(Some(&first)));
            let second_began = second.as_ref().map(|fault| self.begin(fault));
            if let (Some(second), Some(second_began)) = (second, second_began) {
                self.wait(longest(&second));
                if self.rng.bool() {
                    self.end(&first, began);
                    self.wait(LEASE);
                    self.end(&second, second_began);
                } else {
                    self.end(&second, second_began);
                    self.wait(LEASE);
                    self.end(&first, began);
                }
            } else {
                self.end(&first, began);
            }
            // And some follow before the last is mended.
            if self.rng.bool() {
                self.rest();
            }
        }
        self.rest();
    }

    /// Waits until the cluster is whole and watches it for a moment.
    fn rest(&mut self) {
        self.cluster.whole();
        let proxy = self.cluster.proxy.as_ref().expect("there is one");
        proxy.slow(Duration::ZERO);
        let (from, before) = (self.now(), self.epochs());
        self.note("whole");
        thread::sleep(Duration::from_millis(self.rng.u64(200..800)));
        let until = self.now();
        // A node that was starved of time may have been removed: then it was no calm.
        if self.epochs() == before {
            self.log.calm.push((from, until));
        }
    }

    fn epochs(&self) -> Vec<u64> {
        self.cluster.rings().iter().map(|ring| ring.epoch).collect()
    }

    /// Something that can happen now, and not to the same node as the other.
    fn fault(&mut self, other: Option<&Fault>) -> Fault {
        let nodes = self.cluster.nodes.len();
        let is_etcds = |fault: &Fault| matches!(fault, Fault::KillEtcd | Fault::PauseEtcd);
        loop {
            let node = self.rng.usize(..nodes);
            let fault = match self.rng.u8(..15) {
                13.. => Fault::Freeze(node, self.rng.u64(30..=60)),
                0..3 => Fault::Kill(node),
                3..6 => Fault::Pause(node),
                6 => Fault::Leave(node),
                7 => Fault::KillEtcd,
                8 => Fault::PauseEtcd,
                10 => Fault::Stall(node),
                11..13 => Fault::Hold(node, THREADS[self.rng.usize(..THREADS.len())]),
                _ if self.cluster.network.is_some() => Fault::Cut(self.cut(node)),
                _ => continue,
            };
            // A cut is one for all: healed with the first.
            let clashes = |other: &Fault| match (&fault, other) {
                (Fault::Cut(_), Fault::Cut(_)) | (Fault::Stall(_), Fault::Stall(_)) => true,
                _ if is_etcds(&fault) => is_etcds(other),
                _ => target(&fault).is_some() && target(&fault) == target(other),
            };
            if !other.is_some_and(clashes) {
                return fault;
            }
        }
    }

    /// One node from some of the others, from etcd or from all, in one direction or in both.
    fn cut(&mut self, node: usize) -> Vec<(usize, usize)> {
        let nodes = self.cluster.nodes.len();
        let hosts: Vec<usize> = match self.rng.u8(..4) {
            0 => (0..nodes).collect(),
            1 => vec![nodes],
            2 => (0..=nodes).collect(),
            _ => (0..=nodes).filter(|_| self.rng.bool()).collect(),
        };
        let way = self.rng.u8(..3);
        let pairs = hosts.into_iter().filter(|&host| host != node).flat_map(|host| match way {
            0 => vec![(node, host)],
            1 => vec![(host, node)],
            _ => vec![(node, host), (host, node)],
        });
        pairs.collect()
    }

    fn begin(&mut self, fault: &Fault) -> Moment {
        let began = self.now();
        self.note(&format!("{fault:?} (nodes from 0)"));
        let nodes = &mut self.cluster.nodes;
        match fault {
            Fault::Kill(node) => nodes[*node].kill9(),
            Fault::Leave(node) => {
                nodes[*node].term();
                nodes[*node].wait_exit();
                self.note("left");
            }
            Fault::Pause(node) => nodes[*node].stop(),
            Fault::Freeze(node, away) => {
                let proxy = self.cluster.proxy.as_ref().expect("there is one");
                proxy.slow(Duration::from_millis(*away) / 2);
                nodes[*node].stop();
            }
            Fault::Stall(node) => nodes[*node].pipe.as_ref().expect("all have one").stall(),
            Fault::Hold(node, thread) => nodes[*node].hold(thread),
            Fault::KillEtcd => self.cluster.etcd.kill(),
            Fault::PauseEtcd => self.cluster.etcd.signal(Signal::SIGSTOP),
            Fault::Cut(pairs) => {
                let network = self.cluster.network.as_mut().expect("only then are there cuts");
                pairs.iter().for_each(|&(from, to)| network.cut(from, to));
            }
        }
        began
    }

    fn end(&mut self, fault: &Fault, began: Moment) {
        if let Fault::Freeze(node, _) = fault {
            self.await_removal(*node);
        }
        self.note(&format!("the end of {fault:?}"));
        let nodes = &mut self.cluster.nodes;
        match fault {
            Fault::Kill(node) | Fault::Leave(node) => nodes[*node].start(),
            Fault::Pause(node) => nodes[*node].cont(),
            Fault::Freeze(node, _) => {
                self.woken.set(Some(*node));
                nodes[*node].cont();
                thread::sleep(WAKING);
                self.woken.set(None);
            }
            Fault::Stall(node) => nodes[*node].pipe.as_ref().expect("all have one").flow(),
            Fault::Hold(node, thread) => nodes[*node].release(thread),
            Fault::KillEtcd => self.cluster.etcd.restart(),
            Fault::PauseEtcd => self.cluster.etcd.signal(Signal::SIGCONT),
            Fault::Cut(_) => self.cluster.network.as_mut().expect("it was cut").heal(),
        }
        if let Some(node) = target(fault) {
            self.log.outages.push(Outage { node, from: began, until: self.now() });
        }
    }

    /// Waits until some node has a view without this one, if that happens. A thread of another node may stand still.
    fn await_removal(&self, node: usize) {
        let deadline = Instant::now() + FREEZE;
        let id = self.cluster.nodes[node].id.as_str();
        let is_out = || {
            let rings = self.cluster.running().filter_map(|node| node.ring_within(GLANCE));
            rings.into_iter().any(|ring| !ring.members.contains_key(id))
        };
        while !is_out() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits up to this time; short waits are more frequent.
    fn wait(&mut self, longest: Duration) {
        let part = self.rng.f64();
        thread::sleep(Duration::from_millis(200).min(longest) + longest.mul_f64(part * part));
    }

    fn note(&mut self, what: &str) {
        self.log.events.push((self.now(), what.to_owned()));
    }

    fn now(&self) -> Moment {
        self.start.elapsed()
    }
}

/// The node that clients may miss meanwhile.
fn target(fault: &Fault) -> Option<usize> {
    match fault {
        Fault::Kill(node)
        | Fault::Leave(node)
        | Fault::Pause(node)
        | Fault::Freeze(node, _)
        | Fault::Hold(node, _) => Some(*node),
        Fault::KillEtcd | Fault::PauseEtcd | Fault::Cut(_) | Fault::Stall(_) => None,
    }
}

fn longest(fault: &Fault) -> Duration {
    match fault {
        // Restarted at once, too: before anybody has noticed.
        Fault::Kill(_) | Fault::Leave(_) => LEASE + LEASE / 2,
        Fault::Pause(_) | Fault::Freeze(..) | Fault::Cut(_) | Fault::Stall(_) => LEASE * 2,
        // Only then is it noticed.
        Fault::Hold(..) => LEASE * 4,
        Fault::KillEtcd | Fault::PauseEtcd => LEASE * 3 / 2,
    }
}

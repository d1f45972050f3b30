//! Changes the cluster, and does it harm. What etcd and the nodes agree on stays true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use filbert::cluster::view::Member;
use filbert::testkit::network::{Cut, Delay};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::simulation::database::DATABASE;
use crate::simulation::process::{Process, name};
use crate::simulation::session;
use crate::simulation::world::World;
use crate::support::history::Moment;

/// How long a lease lives that is not renewed.
const LEASE: Duration = Duration::from_millis(500);

const MS: Duration = Duration::from_millis(1);

/// What may happen in a history.
#[derive(Clone, Copy, Debug)]
pub struct Harm {
    pub views: bool,
    /// Whether views change as they do when all is well, so seldom that items move with their slots.
    pub planned: bool,
    pub processes: bool,
    pub network: bool,
}

impl Harm {
    pub const NONE: Self = Self { views: false, planned: false, processes: false, network: false };

    pub fn of(rng: &mut Rng) -> Self {
        let (views, processes, network) = match rng.u8(..10) {
            0 => (false, false, false),
            1 => (true, false, false),
            2 => (false, false, true),
            3 => (true, true, false),
            4..6 => (true, false, true),
            _ => (true, true, true),
        };
        Self { views, planned: rng.bool(), processes, network }
    }
}

/// Starts every node, and makes most of them members.
pub fn begin(world: &Arc<World>, rng: &mut Rng) {
    for node in 0..world.nodes().len() {
        let process = world.start(node);
        session::register(world, &process);
    }
    world.delay_all(rng);
    let mut members: Vec<_> = world.processes();
    rng.shuffle(&mut members);
    members.truncate(members.len().max(3) - rng.usize(..2));
    let members = members.iter().map(|process| (process.id.clone(), process.me())).collect();
    world.etcd.follow(members, false);
}

/// Does harm until the moment, and returns when all of it is over.
pub async fn run(world: Arc<World>, harm: Harm, until: Moment, mut rng: Rng) {
    let mut faults = JoinSet::new();
    while world.now() < until {
        // Now and then in quick succession: then one change comes while another one has not converged.
        let pause = match harm.planned {
            true => 100..1_000,
            false if rng.u8(..4) == 0 => 2..40,
            false => 10..300,
        };
        sleep(MS * rng.u32(pause)).await;
        let kind = rng.u8(..10);
        let fault_rng = rng.fork();
        match kind {
            0..5 if harm.views => {
                let began = world.now();
                if world.change_view(harm.planned, &mut rng) {
                    let (world, mut rng) = (world.clone(), fault_rng);
                    faults.spawn(async move { confirm_flush(&world, began, &mut rng).await });
                }
            }
            5 if harm.processes => _ = faults.spawn(crash(world.clone(), fault_rng)),
            6 if harm.processes => _ = faults.spawn(stand_still(world.clone(), fault_rng)),
            7 if harm.processes => _ = faults.spawn(lose_etcd(world.clone(), fault_rng)),
            8 if harm.views => _ = faults.spawn(leave(world.clone(), fault_rng)),
            9 if rng.bool() => world.delay_some(&mut rng),
            _ if harm.network => _ = faults.spawn(cut(world.clone(), fault_rng)),
            _ => {}
        }
    }
    while let Some(fault) = faults.join_next().await {
        fault.expect("no fault panics");
    }
}

/// Makes everything well: all nodes run and are members, and nothing is slow.
pub fn end(world: &Arc<World>) {
    let nodes = world.nodes();
    for (number, node) in nodes.iter().enumerate() {
        if node.process.is_none() {
            world.start(number);
        }
        for other in (0..nodes.len()).filter(|other| *other != number) {
            world.network.delay(&name(number), &name(other), Delay::Fixed(MS));
        }
        for (from, to) in world.ways(number) {
            world.network.heal(&from, &to);
        }
    }
    world.database.iter().for_each(|database| database.get_well());
    world.processes().iter().for_each(|process| session::register(world, process));
    let members = world.processes().iter().map(|process| (process.id.clone(), process.me())).collect();
    world.etcd.follow(members, false);
}

impl World {
    /// Writes another view, of those that may come next; whether it flushes. A planned one removes nobody and
    /// flushes nothing.
    fn change_view(&self, planned: bool, rng: &mut Rng) -> bool {
        let present = self.etcd.present();
        let mut members = present.view.members.clone();
        let missing: Vec<_> = self
            .processes()
            .into_iter()
            .filter(|process| self.etcd.lease(&process.id) == Some(process.number) && !process.is_silent())
            .filter(|process| self.admits(process, &members))
            .map(|process| process.me())
            .filter(|me| self.etcd.is_new(me))
            .collect();
        let mut flush = false;
        let ids: Vec<_> = members.keys().cloned().collect();
        let weighty: Vec<_> = ids.iter().filter(|id| is_weighty(id)).cloned().collect();
        let kind = if planned { rng.choice([0, 5, 6]).expect("there are some") } else { rng.u8(..8) };
        let chosen = rng.choice(if (5..7).contains(&kind) { &weighty } else { &ids });
        match (kind, rng.choice(&missing), chosen) {
            (0..4, Some(me), _) => _ = members.insert(me.id.clone(), me.clone()),
            (0..3, ..) => missing.iter().for_each(|me| _ = members.insert(me.id.clone(), me.clone())),
            (3..5, _, Some(id)) if ids.len() > 1 => _ = members.remove(id),
            (5..7, _, Some(id)) => {
                let member = members.get_mut(id).expect("it is one of them");
                member.weight = if member.weight == 100 { 300 } else { 100 };
            }
            (7, ..) => flush = true,
            _ => {}
        }
        if members != present.view.members || flush {
            let shown: Vec<_> = members.values().map(|member| member.id.as_str()).collect();
            let shown = format!("[{}]{}", shown.join(" "), if flush { " flushed" } else { "" });
            let epoch = self.etcd.follow(members, flush);
            self.tell(format!("view {epoch} is {shown}"));
        }
        flush
    }

    /// Whether most members with a lease reach a process and are reached by it. For some, what was
    /// said of that is out of date.
    fn admits(&self, process: &Process, members: &BTreeMap<String, Member>) -> bool {
        let has_lease = |id: &&String| **id != process.id && self.etcd.lease(id).is_some();
        let is_mutual =
            |id: &&String| !self.network.is_cut(id, &process.id) && !self.network.is_cut(&process.id, id);
        let (reached, missed): (Vec<_>, Vec<_>) = members.keys().filter(has_lease).partition(is_mutual);
        process.number.is_multiple_of(4) || reached.len() > missed.len() || missed.is_empty()
    }

    fn remove(&self, id: &str) {
        let mut members = self.etcd.present().view.members.clone();
        if members.remove(id).is_some() {
            let epoch = self.etcd.follow(members, false);
            self.tell(format!("view {epoch} is without {id}"));
        }
    }

    /// A node that can be harmed, with its process; it is the caller's alone until it is let go.
    fn victim(&self, rng: &mut Rng) -> Option<Arc<Process>> {
        let process = self.any_process(rng)?;
        self.engage(process.node).then_some(process)
    }

    /// A process; one of those that move items if there are some, every other time.
    fn any_process(&self, rng: &mut Rng) -> Option<Arc<Process>> {
        let (moving, others): (Vec<_>, Vec<_>) =
            self.processes().into_iter().partition(|process| process.memory().moving_slots() != (0, 0));
        let chosen = if rng.bool() && !moving.is_empty() { moving } else { [moving, others].concat() };
        rng.choice(chosen)
    }

    fn let_go(&self, process: &Process) {
        self.change(process.node, |node| node.busy = false);
    }

    /// The lease of a process that could not renew it is over: first for the process, then in etcd.
    async fn end_lease(&self, process: &Process, rng: &mut Rng) {
        self.fence(process);
        process.silence(true);
        sleep(MS * rng.u32(..100)).await;
        self.etcd.end_lease(&process.id, process.number);
        self.tell(format!("{} has no lease", process.id));
        self.expel(process, rng).await;
    }

    /// A process without a lease is removed, most often before it gets another one.
    async fn expel(&self, process: &Process, rng: &mut Rng) {
        sleep(MS * rng.u32(..50)).await;
        let has_others = self.etcd.present().view.members.len() > 1;
        if rng.u8(..4) > 0 && has_others && self.etcd.lease(&process.id).is_none() {
            self.remove(&process.id);
        }
    }

    fn delay_all(&self, rng: &mut Rng) {
        let nodes = self.nodes().len();
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from) {
                self.network.delay(&name(from), &name(to), delay(rng));
            }
        }
    }

    fn delay_some(&self, rng: &mut Rng) {
        let nodes = self.nodes().len();
        let (from, to) = (rng.usize(..nodes), rng.usize(..nodes));
        let delay = delay(rng);
        self.network.delay(&name(from), &name(to), delay);
        self.tell(format!("{} to {}: {delay:?}", name(from), name(to)));
    }

    /// All ways from and to a node, those to the database included.
    fn ways(&self, node: usize) -> Vec<(String, String)> {
        let others = (0..self.nodes().len()).filter(|other| *other != node).map(name);
        let others = others.chain(self.database.is_some().then(|| DATABASE.to_owned()));
        others.flat_map(|other| [(name(node), other.clone()), (other, name(node))]).collect()
    }
}

/// Flushes all, as a client does.
pub async fn flush_all(world: &World, rng: &mut Rng) {
    let began = world.now();
    let epoch = world.etcd.follow(world.etcd.present().view.members.clone(), true);
    world.tell(format!("view {epoch} is flushed"));
    confirm_flush(world, began, rng).await;
}

/// Has any process say when all have flushed.
async fn confirm_flush(world: &World, began: Moment, rng: &mut Rng) {
    let generation = world.etcd.present().view.flush_generation;
    let Some(process) = rng.choice(world.processes()) else { return };
    if process.membership.flushed(generation, LEASE * 2).await.is_ok() {
        world.flushed(String::new(), began);
    }
}

/// Dies without a word, and comes back later as another process that knows nothing.
async fn crash(world: Arc<World>, mut rng: Rng) {
    let Some(process) = world.victim(&mut rng) else { return };
    world.kill(&process);
    let lease = MS * rng.u32(..=LEASE.as_millis() as u32);
    let down = MS * rng.u32(1..1_200);
    sleep(lease.min(down)).await;
    if lease < down {
        world.etcd.end_lease(&process.id, process.number);
        world.tell(format!("{} has no lease", process.id));
        world.expel(&process, &mut rng).await;
        sleep(down - lease).await;
    }
    world.start(process.node);
    world.let_go(&process);
}

/// Stands still: neither hears nor says anything, and goes on later.
async fn stand_still(world: Arc<World>, mut rng: Rng) {
    let Some(process) = world.victim(&mut rng) else { return };
    world.tell(format!("{} stands still", process.id));
    world.change(process.node, |node| (node.frozen, node.off_etcd, node.off_gossip) = (true, true, true));
    let ways = world.ways(process.node);
    ways.iter().for_each(|(from, to)| world.network.cut(from, to, Cut::Held));
    be_away(&world, &process, &mut rng).await;
    ways.iter().for_each(|(from, to)| world.network.heal(from, to));
    world.change(process.node, |node| (node.frozen, node.off_etcd, node.off_gossip) = (false, false, false));
    world.tell(format!("{} goes on", process.id));
    come_back(&world, &process, &mut rng).await;
}

/// Hears nothing of etcd for some time, and perhaps nothing of the other nodes; clients ask it all the same.
async fn lose_etcd(world: Arc<World>, mut rng: Rng) {
    let Some(process) = world.victim(&mut rng) else { return };
    let alone = rng.bool();
    let ways = if alone { world.ways(process.node) } else { Vec::new() };
    let cut = any_cut(&mut rng);
    world.tell(format!("{} loses etcd{}", process.id, if alone { " and everybody" } else { "" }));
    world.change(process.node, |node| (node.off_etcd, node.off_gossip) = (true, alone));
    ways.iter().for_each(|(from, to)| world.network.cut(from, to, cut));
    be_away(&world, &process, &mut rng).await;
    ways.iter().for_each(|(from, to)| world.network.heal(from, to));
    world.change(process.node, |node| (node.off_etcd, node.off_gossip) = (false, false));
    world.tell(format!("{} finds etcd", process.id));
    come_back(&world, &process, &mut rng).await;
}

async fn be_away(world: &World, process: &Process, rng: &mut Rng) {
    let away = MS * rng.u32(20..1_500);
    sleep(away.min(LEASE)).await;
    if away > LEASE {
        world.end_lease(process, rng).await;
        sleep(away - LEASE).await;
    }
}

/// Gets its lease back when it had lost it.
async fn come_back(world: &World, process: &Process, rng: &mut Rng) {
    sleep(MS * rng.u32(..50)).await;
    if process.is_silent() {
        session::register(world, process);
        process.fence(false);
        world.tell(format!("{} has a lease", process.id));
    }
    world.let_go(process);
}

/// Leaves as it should, ends, and is started again later. Most often it waits until others have its items, but not
/// for long.
async fn leave(world: Arc<World>, mut rng: Rng) {
    let Some(process) = world.victim(&mut rng) else { return };
    world.tell(format!("{} leaves", process.id));
    process.leave().await;
    let epoch = world.etcd.leave(&process.id);
    world.tell(format!("view {epoch} is what {} has left", process.id));
    while process.epoch() < epoch {
        sleep(MS).await;
    }
    process.silence(true);
    world.etcd.end_lease(&process.id, process.number);
    let patience = if rng.u8(..3) == 0 { rng.u32(..400) } else { 1_500 };
    for _ in 0..patience {
        if process.memory().moving_slots().1 == 0 {
            world.tell(format!("nothing goes from {} any more", process.id));
            break;
        }
        sleep(MS).await;
    }
    world.kill(&process);
    sleep(MS * rng.u32(..800)).await;
    world.start(process.node);
    world.let_go(&process);
}

/// Cuts the network somewhere for some time.
async fn cut(world: Arc<World>, mut rng: Rng) {
    let nodes = world.nodes().len();
    let node = world.any_process(&mut rng).map_or(0, |process| process.node);
    let other = name((node + rng.usize(1..nodes)) % nodes);
    let mut ways = world.ways(node);
    // One other node or all, in one direction or in both.
    if rng.bool() {
        ways.retain(|(from, to)| *from == other || *to == other);
    }
    match rng.u8(..4) {
        0 => ways.retain(|(from, _)| *from == name(node)),
        1 => ways.retain(|(_, to)| *to == name(node)),
        _ => {}
    }
    let cut = any_cut(&mut rng);
    world.tell(format!("{cut:?}: {ways:?}"));
    ways.iter().for_each(|(from, to)| world.network.cut(from, to, cut));
    sleep(MS * rng.u32(5..700)).await;
    ways.iter().for_each(|(from, to)| world.network.heal(from, to));
    world.tell(format!("healed: {ways:?}"));
}

fn any_cut(rng: &mut Rng) -> Cut {
    rng.choice([Cut::Lost, Cut::Held, Cut::Broken]).expect("there are some")
}

fn delay(rng: &mut Rng) -> Delay {
    match rng.u8(..10) {
        0 => Delay::Fixed(Duration::ZERO),
        1..8 => Delay::Between(MS, MS * rng.u32(2..10)),
        8 => Delay::Between(MS, MS * rng.u32(20..120)),
        _ => Delay::Between(MS * 50, MS * 400),
    }
}

/// Not every node's weight changes: owners are computed once for each combination of weights.
fn is_weighty(id: &str) -> bool {
    [name(0), name(1)].iter().any(|name| name == id)
}

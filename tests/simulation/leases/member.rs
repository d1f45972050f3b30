//! A process that takes part in a cluster in earnest: the code that talks to etcd, pings that are only played, and its
//! memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use filbert::cache::ownership::Ownership;
use filbert::cluster::etcd::{self, Options, Part};
use filbert::cluster::failure_detector::{Contact, FailureDetector, Timing};
use filbert::cluster::view::{Member, View};
use filbert::cluster::{Hooks, MemberStatus, Membership, State};
use filbert::command::Command;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::simulation::leases::fault::Fault;
use crate::simulation::leases::freezer::Freezer;
use crate::simulation::leases::world::World;
use crate::simulation::leases::{CALL_TIMEOUT, LEASE};
use crate::simulation::memory::{self, Executed, Memory};

/// How much later [`Fault::AcksBeforeHooks`] does what a view asks for.
const LATE: Duration = Duration::from_millis(500);

/// A running process.
pub struct Process {
    pub node: usize,
    pub id: String,
    pub dead: CancellationToken,
    pub freezer: Freezer,
    pub membership: Membership,
    pub memory: Memory,
    pings: Arc<Pings>,
    /// `false` for [`Fault::BatchesWithoutClock`].
    has_clock: bool,
}

impl Process {
    /// Starts a process of a node.
    pub fn start(world: &Arc<World>, node: usize) -> Arc<Self> {
        let id = name(node);
        let (dead, freezer) = (CancellationToken::new(), Freezer::new());
        let (store, ownership) = memory::empty(node as u64);
        let options = Options {
            cluster: "simulation".to_owned(),
            endpoints: vec!["one".to_owned(), "another".to_owned()],
            node_id: id.clone(),
            peer_addr: format!("{id}:11212"),
            memcached_addr: format!("{id}:11211"),
            lease_ttl: LEASE,
            call_timeout: CALL_TIMEOUT,
            gone_after: LEASE * 10,
            ..Options::default()
        };
        let pings =
            Arc::new(Pings { timing: options.timing(), peers: Mutex::default(), sent: Notify::new() });
        let line = world.etcd.line(&id);
        let (late_hooks, late) = late_hooks(ownership.clone());
        let hooks: Arc<dyn Hooks> =
            if world.breaks(Fault::AcksBeforeHooks) { Arc::new(late_hooks) } else { ownership.clone() };
        let Part { membership, session, watch } = etcd::part(line, options, hooks, pings.clone());
        let memory = Memory::start(
            1,
            0,
            (store, ownership.clone()),
            membership.clone(),
            None,
            &world.network,
            dead.clone(),
        );
        let process = Arc::new(Self {
            node,
            id,
            dead,
            freezer,
            membership: membership.clone(),
            memory,
            pings,
            has_clock: !world.breaks(Fault::BatchesWithoutClock),
        });
        process.run(session);
        process.run(late);
        process.run(watch);
        process.run(open_slots(ownership, membership));
        process.run(ping_all(world.clone(), process.clone()));
        process
    }

    /// Runs a task until the process dies; it stands still with it.
    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.dead.clone().run_until_cancelled_owned(self.freezer.hold(task)));
    }

    pub fn epoch(&self) -> u64 {
        self.membership.state().epoch
    }

    /// Executes a command as a client's connection does, when it belongs here.
    pub fn execute_here(&self, command: &Command<'_>) -> Executed {
        let state = self.membership.state();
        if !self.has_clock
            && state.standing == MemberStatus::Serving
            && let Some(outcome) = self.memory.execute_without_clock(command)
        {
            return Executed::Here(outcome);
        }
        self.memory.execute_here(0, command)
    }

    /// Returns when it has sent pings that are not answered yet.
    pub async fn pinged(&self) {
        self.pings.sent.notified().await;
    }
}

/// Hooks for [`Fault::AcksBeforeHooks`], and the task that does what they were told, later.
fn late_hooks(ownership: Arc<Ownership>) -> (LateHooks, impl Future<Output = ()> + Send + 'static) {
    let (hooks, mut told) = mpsc::unbounded_channel::<HookCall>();
    let late = async move {
        while let Some(call) = told.recv().await {
            sleep(LATE).await;
            call(&ownership);
        }
    };
    (LateHooks(hooks), late)
}

type HookCall = Box<dyn FnOnce(&Ownership) + Send>;

struct LateHooks(mpsc::UnboundedSender<HookCall>);

impl Hooks for LateHooks {
    fn forget(&self) {
        _ = self.0.send(Box::new(Ownership::forget));
    }

    fn change(&self, before: &State, after: &State) {
        let (before, after) = (before.clone(), after.clone());
        _ = self.0.send(Box::new(move |ownership| ownership.change(&before, &after)));
    }
}

pub fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

async fn open_slots(ownership: Arc<Ownership>, mut membership: Membership) {
    while let Some(state) = membership.changed().await {
        ownership.open_slots(&state);
    }
}

/// What a process knows from its pings, by id and incarnation.
struct Pings {
    timing: Timing,
    peers: Mutex<BTreeMap<(String, u64), Contact>>,
    /// Rung when a ping has been sent.
    sent: Notify,
}

impl FailureDetector for Pings {
    fn contact(&self, member: &Member) -> Contact {
        *self.peers.lock().entry(key(member)).or_insert_with(unheard)
    }
}

/// One that has not answered yet is heard of now.
fn unheard() -> Contact {
    Contact { answered: Some(Instant::now().into_std()), ..Contact::default() }
}

impl Pings {
    fn reaches(&self, member: Option<&Member>) -> bool {
        let Some(member) = member else { return false };
        let now = Instant::now().into_std();
        self.peers.lock().get(&key(member)).is_some_and(|contact| contact.is_reached(now, self.timing))
    }
}

fn key(member: &Member) -> (String, u64) {
    (member.id.clone(), member.incarnation)
}

/// What a ping is answered.
struct Answer {
    incarnation: u64,
    epoch: u64,
    view: View,
    reaches_caller: bool,
}

async fn ping_all(world: Arc<World>, process: Arc<Process>) {
    let interval = process.pings.timing.ping_interval();
    loop {
        let slept = Instant::now();
        sleep(interval).await;
        if slept.elapsed() > interval * 2 {
            // The others have closed its connections: it makes new ones for the next ping.
            continue;
        }
        let state = process.membership.state();
        let others = state.view.members.values().filter(|member| member.id != process.id);
        for member in others.chain(state.candidates.iter().map(|candidate| &candidate.member)) {
            process.run(ping(world.clone(), process.clone(), member.clone(), interval));
        }
    }
}

async fn ping(world: Arc<World>, process: Arc<Process>, member: Member, patience: Duration) {
    let sent = Instant::now().into_std();
    // Goes on while this process stands still.
    let asked = tokio::spawn(answer(world.clone(), process.id.clone(), member.clone()));
    process.pings.sent.notify_waiters();
    let Ok(Ok(Some(answer))) = timeout(patience, asked).await else { return };
    if answer.incarnation != member.incarnation {
        return;
    }
    let is_news = {
        let mut peers = process.pings.peers.lock();
        let contact = peers.entry(key(&member)).or_insert_with(unheard);
        let is_news = !contact.is_proven;
        (contact.is_proven, contact.answered) = (true, Some(sent));
        if answer.reaches_caller {
            let is_late = world.breaks(Fault::GrantsCountFromAnswers);
            contact.granted = Some(if is_late { Instant::now().into_std() } else { sent });
        }
        contact.epoch = answer.epoch;
        is_news
    };
    if is_news {
        process.membership.heard();
    }
    let is_member = process.membership.state().view.members.get(&member.id) == Some(&member);
    if answer.epoch > process.epoch() && is_member {
        sleep(world.latency()).await;
        process.membership.learn(answer.epoch, answer.view);
    }
}

async fn answer(world: Arc<World>, caller: String, member: Member) -> Option<Answer> {
    sleep(world.latency()).await;
    world.passes(&caller, &member.id).await;
    let other = world.process(&member.id)?;
    other.freezer.thawed().await;
    // In this order (`Membership::may_grant`).
    let known = other.membership.state().view.members.get(&caller).cloned();
    let reaches_caller = other.pings.reaches(known.as_ref()) && other.membership.may_grant(&caller);
    let state = other.membership.state();
    sleep(world.latency()).await;
    world.passes(&member.id, &caller).await;
    let (incarnation, epoch, view) = (state.incarnation, state.epoch, View::clone(&state.view));
    Some(Answer { incarnation, epoch, view, reaches_caller })
}

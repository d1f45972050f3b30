//! The rules at work: nodes that lose etcd and each other, alone or many at once and for long, hear
//! of views late, join, leave and start anew, at random. However it goes, when a view counts as
//! converged, nobody serves under an older one; and when all is well again, everybody is let in
//! whom the others reach, and nobody else. A rule that is broken on purpose ([`Fault`]) is found.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// How long a grant counts, in ticks: long enough for much to happen meanwhile.
const GRANT_COUNTS: u32 = 20;

/// How long a member must be out of reach to be suspected: more than that.
const SUSPECTED_AFTER: u32 = 21;

/// How long a member must be without a lease to count as gone, in one history or another; half of it
/// is how long it serves before all others must grant it. So the grants of some are over by then; or
/// it serves by those of most for long.
const GONE_AFTER: [u32; 3] = [2 * GRANT_COUNTS + 8, 2 * GRANT_COUNTS + 8, 20 * GRANT_COUNTS];

/// Histories of a run.
const HISTORIES: u64 = 3_000;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// S1: a view counts as converged when its members have acknowledged it.
    WaitsForMembersAlone,
    /// S2: the grant of one other member is enough, however large the view.
    OneGrantIsEnough,
    /// S2: a member grants one that it has said to suspect.
    GrantsTheSuspected,
    /// S3: members come and go while one member has a lease.
    OneLeaseIsEnough,
    /// S3: a member without a lease goes when one other suspects it.
    OneSuspicionIsEnough,
    /// S4: a view is followed when one member of the view before has acknowledged it.
    OneAcknowledgementIsEnough,
    /// S4: a view removes members at once.
    RemovesAtOnce,
    /// S5: a suspicion is said before the grants of before it are over.
    SuspectsEarly,
    /// S7: a member counts as gone as soon as it has no lease.
    GoneAtOnce,
    /// S7: a member that counts as gone goes on by the grants of most, not of all.
    NeverNeedsAll,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::WaitsForMembersAlone,
        Self::OneGrantIsEnough,
        Self::GrantsTheSuspected,
        Self::OneLeaseIsEnough,
        Self::OneSuspicionIsEnough,
        Self::OneAcknowledgementIsEnough,
        Self::RemovesAtOnce,
        Self::SuspectsEarly,
        Self::GoneAtOnce,
        Self::NeverNeedsAll,
    ];
}

struct Node {
    incarnation: u64,
    epoch: usize,
    /// Whether it is connected to etcd.
    etcd: bool,
    /// Its lease lives, and with it what it has acknowledged.
    lease: bool,
    registered: bool,
    /// Whom it has told the others that it suspects.
    said: BTreeMap<String, u64>,
    /// Whom it has told the others that it reaches, and which incarnation of it has.
    reach: (u64, BTreeMap<String, u64>),
    /// When its last lease ended.
    lost: Option<u32>,
    /// When another one, of which incarnation, granted it last, and the epoch that one had
    /// acknowledged.
    grants: BTreeMap<String, (u64, u32, usize)>,
    /// Until when it serves by grants.
    until: u32,
    leaving: bool,
}

struct World {
    fault: Option<Fault>,
    gone_after: u32,
    /// Until when nothing goes wrong.
    calm_until: u32,
    random: fastrand::Rng,
    clock: u32,
    nodes: BTreeMap<String, Node>,
    /// The pairs that do not reach each other, and since when.
    cut: BTreeMap<(String, String), u32>,
    /// By epoch, each with who took itself out.
    views: Vec<(View, Option<String>)>,
    /// The epoch that enough have acknowledged, and since when.
    confirmed: Option<(usize, u32)>,
    /// Views that were written while less than half had a lease.
    by_few: usize,
    /// Which nodes are not registered, and since when.
    absent: BTreeMap<String, u32>,
    /// When, who did what, and the epoch afterwards.
    log: Vec<(u32, &'static str, u8, usize)>,
}

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let node = |etcd| Node {
            incarnation: 1,
            epoch: 0,
            etcd,
            lease: false,
            registered: false,
            said: BTreeMap::new(),
            reach: (0, BTreeMap::new()),
            lost: None,
            grants: BTreeMap::new(),
            until: 0,
            leaving: false,
        };
        let nodes = NAMES.map(|id| (id.to_owned(), node(random.bool()))).into();
        let views = vec![(View::default(), None)];
        Self {
            fault,
            gone_after: GONE_AFTER[seed as usize % GONE_AFTER.len()],
            calm_until: 0,
            random,
            clock: GRANT_COUNTS,
            nodes,
            cut: BTreeMap::new(),
            views,
            confirmed: None,
            by_few: 0,
            absent: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn node(&mut self, id: &str) -> &mut Node {
        self.nodes.get_mut(id).expect("it is one of them")
    }

    fn any(&mut self) -> &'static str {
        NAMES[self.random.usize(..NAMES.len())]
    }

    fn now(&self) -> usize {
        self.views.len() - 1
    }

    fn view_of(&self, id: &str) -> &View {
        &self.views[self.nodes[id].epoch].0
    }

    fn is_member(&self, id: &str) -> bool {
        self.view_of(id).members.get(id).is_some_and(|it| it.incarnation == self.nodes[id].incarnation)
    }

    fn reach(&self, from: &str, to: &str) -> bool {
        !self.cut.contains_key(&pair(from, to))
    }

    fn step(&mut self) {
        let (id, action) = (self.any(), self.random.u8(..32));
        let Node { epoch, etcd, lease, registered, leaving, .. } = self.nodes[id];
        let up_to_date = etcd && epoch == self.now();
        if self.clock < self.calm_until && matches!(action, 0..=2 | 15 | 30 | 31) {
            return;
        }
        match action {
            0 => {
                let (pair, clock) = (pair(id, self.any()), self.clock);
                if self.cut.remove(&pair).is_none() {
                    self.cut.insert(pair, clock);
                }
            }
            1 => self.node(id).etcd = !etcd,
            2 if !etcd && lease => self.lose_lease(id),
            3..=6 if etcd && !up_to_date => {
                let epoch = self.random.usize(epoch + 1..=self.now());
                self.hear(id, epoch);
            }
            7 | 8 => {
                let other = self.any();
                if self.reach(id, other) && self.nodes[other].epoch > epoch {
                    self.hear(id, self.nodes[other].epoch);
                }
            }
            9..=11 if up_to_date && !registered && !leaving => {
                (self.node(id).lease, self.node(id).registered) = (true, true);
                self.say(id);
            }
            12..=14 if up_to_date && lease => self.say(id),
            15 if up_to_date && registered && self.may_leave(id) => {
                // Its registration goes with its place.
                (self.node(id).leaving, self.node(id).registered) = (true, false);
                let view = left(&self.views[epoch].0, id);
                self.views.push((view, Some(id.to_owned())));
            }
            16..=19 if up_to_date && registered && !leaving => {
                self.propose(id);
                let removes = |views: &[(View, _)]| views[0].0.members.len() > views[1].0.members.len();
                if self.now() > epoch && removes(&self.views[epoch..]) && self.random.u8(..4) == 0 {
                    self.split_off_one_more(id);
                }
            }
            20..30 => self.tick(),
            31 if up_to_date && registered && self.random.bool() && self.may_follow(id) => {
                let view = flushed(&self.views[epoch].0);
                self.views.push((view, None));
            }
            30 => match self.random.u8(..16) {
                0 | 1 => {
                    let off = NAMES.into_iter().filter(|_| self.random.u8(..3) > 0).collect();
                    self.split(&off);
                }
                2 => self.heal(),
                3 | 4 => self.restart(id),
                _ => return,
            },
            _ => return,
        }
        self.note_absent();
        self.log.push((self.clock, id, action, self.now()));
    }

    fn note_absent(&mut self) {
        for (id, node) in &self.nodes {
            if node.registered {
                self.absent.remove(id);
            } else {
                self.absent.entry(id.clone()).or_insert(self.clock);
            }
        }
    }

    /// Everybody reaches etcd, and each other but for one of them, for long.
    fn come_to_rest(&mut self, alone: Option<&str>) {
        self.heal();
        for other in NAMES.into_iter().filter(|other| alone.is_some_and(|id| id != *other)) {
            self.cut.insert(pair(alone.unwrap_or_default(), other), self.clock);
        }
        for _ in 0..self.gone_after * 4 {
            self.tick();
            for id in NAMES {
                if self.nodes[id].epoch < self.now() {
                    self.hear(id, self.now());
                }
                let node = self.node(id);
                if !node.leaving {
                    (node.lease, node.registered) = (true, true);
                }
                self.say(id);
            }
            self.note_absent();
            for id in NAMES {
                let Node { epoch, registered, leaving, .. } = self.nodes[id];
                if registered && !leaving && epoch == self.now() {
                    self.propose(id);
                }
            }
        }
    }

    /// The members whose incarnation is the one that runs.
    fn current_members(&self) -> Vec<&str> {
        let is_member = |id: &&str| {
            let member = self.views[self.now()].0.members.get(*id);
            member.is_some_and(|member| member.incarnation == self.nodes[*id].incarnation)
        };
        NAMES.into_iter().filter(is_member).collect()
    }

    fn lose_lease(&mut self, id: &str) {
        let clock = self.clock;
        let node = self.node(id);
        (node.lease, node.registered, node.lost) = (false, false, Some(clock));
        node.reach.1.clear();
    }

    /// Some are cut off from etcd and all others at once, and reach each other.
    fn split(&mut self, off: &BTreeSet<&str>) {
        for id in NAMES {
            let is_off = off.contains(id);
            self.node(id).etcd = !is_off;
            if is_off && self.nodes[id].lease {
                self.lose_lease(id);
            }
            for other in NAMES.into_iter().filter(|other| *other > id) {
                let (pair, clock) = (pair(id, other), self.clock);
                if off.contains(other) == is_off {
                    self.cut.remove(&pair);
                } else {
                    self.cut.entry(pair).or_insert(clock);
                }
            }
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        NAMES.into_iter().for_each(|id| self.node(id).etcd = true);
    }

    /// The process ends, and another one with its id begins.
    fn restart(&mut self, id: &str) {
        if self.nodes[id].lease {
            self.lose_lease(id);
        }
        let node = self.node(id);
        node.incarnation += 1;
        (node.epoch, node.until, node.leaving) = (0, 0, false);
        node.grants.clear();
        node.said.clear();
    }

    fn gone(&self) -> BTreeSet<String> {
        let after = if self.breaks(Fault::GoneAtOnce) { 0 } else { self.gone_after };
        let gone = self.absent.iter().filter(|&(_, since)| self.clock >= since + after);
        gone.map(|(id, _)| id.clone()).collect()
    }

    fn story(&self) -> String {
        let views = self.views.iter().map(|(view, _)| format!("{:?}\n", view.members.keys()));
        format!("{:?}\n{}", self.log, views.collect::<String>())
    }

    fn hear(&mut self, id: &str, epoch: usize) {
        let was = self.is_member(id);
        let missed = epoch > self.nodes[id].epoch + 1;
        self.node(id).epoch = epoch;
        let is = self.is_member(id);
        let node = self.node(id);
        if !is && node.leaving {
            (node.lease, node.registered, node.leaving) = (false, false, false);
        } else if !is && (was || missed) {
            node.incarnation += 1;
            node.registered = false;
        }
    }

    /// Says whom it has not reached for long and whom it reaches, and withdraws what is not so any
    /// more.
    fn say(&mut self, id: &str) {
        let after = if self.breaks(Fault::SuspectsEarly) { 1 } else { SUSPECTED_AFTER };
        let long = |other: &str| self.cut.get(&pair(id, other)).is_some_and(|at| self.clock >= at + after);
        let members = self.view_of(id).members.values();
        let suspected = members.filter(|member| member.id != id && long(&member.id));
        self.node(id).said = suspected.map(|member| (member.id.clone(), member.incarnation)).collect();
        let reached = self.nodes.iter().filter(|(other, _)| self.reach(id, other));
        let reached = reached.map(|(other, node)| (other.clone(), node.incarnation)).collect();
        self.node(id).reach = (self.nodes[id].incarnation, reached);
    }

    /// Everybody pings everybody.
    fn tick(&mut self) {
        self.clock += 1;
        for id in NAMES {
            for other in NAMES {
                let Node { incarnation, epoch, leaving, .. } = self.nodes[other];
                let known = self.view_of(id).members.get(other);
                if !self.reach(id, other) || known.is_none_or(|known| known.incarnation != incarnation) {
                    continue;
                }
                let may_grant = self.is_member(other)
                    && !leaving
                    && self.view_of(other).members.contains_key(id)
                    && (!self.nodes[other].said.contains_key(id) || self.breaks(Fault::GrantsTheSuspected));
                let clock = self.clock;
                let grant = self.node(id).grants.entry(other.to_owned()).or_default();
                let before = if grant.0 == incarnation { grant.1 } else { 0 };
                *grant = (incarnation, if may_grant { clock } else { before }, epoch);
            }
            let Node { epoch, lease, leaving, lost, .. } = self.nodes[id];
            if self.is_member(id) && !lease && !leaving {
                let grants = &self.nodes[id].grants;
                let grant = |member: &Member| {
                    let &(incarnation, at, acknowledged) = grants.get(&member.id)?;
                    (incarnation == member.incarnation && acknowledged <= epoch && at > 0).then_some(at)
                };
                let all = lost.is_some_and(|at| self.clock >= at + self.gone_after / 2)
                    && !self.breaks(Fault::NeverNeedsAll);
                let granted = if self.breaks(Fault::OneGrantIsEnough) {
                    self.view_of(id).members.values().filter_map(grant).max()
                } else {
                    granted(self.view_of(id), id, all, self.clock, grant)
                };
                let node = self.node(id);
                node.until = node.until.max(granted.map_or(0, |at| at + GRANT_COUNTS));
            }
        }
    }

    fn may_follow(&mut self, proposer: &str) -> bool {
        let (view, departed) = &self.views[self.now()];
        let has_acknowledged = |id: &str| {
            let node = &self.nodes[id];
            departed.as_deref() == Some(id)
                || node.epoch == self.now() && (node.lease || self.reach(proposer, id))
        };
        let gone = if self.breaks(Fault::OneAcknowledgementIsEnough) { everybody() } else { self.gone() };
        if self.confirmed.is_none_or(|(epoch, _)| epoch < self.now())
            && enough(view.previous.iter(), has_acknowledged, &gone)
        {
            let members = |epoch: usize| &self.views[epoch].0.members;
            let since = match self.confirmed {
                Some((epoch, since)) if epoch + 1 == self.now() && members(epoch) == members(self.now()) => {
                    since
                }
                _ => self.clock,
            };
            self.confirmed = Some((self.now(), since));
        }
        self.confirmed.is_some_and(|(epoch, _)| epoch == self.now())
    }

    fn may_leave(&mut self, id: &str) -> bool {
        self.is_member(id) && self.nodes[id].until <= self.clock && self.may_follow(id)
    }

    fn propose(&mut self, proposer: &str) {
        if !self.may_follow(proposer) {
            return;
        }
        let live = || self.nodes.iter().filter(|(_, node)| node.lease);
        let registered = live().filter(|(_, node)| node.registered);
        let registered: BTreeMap<_, _> =
            registered.map(|(id, node)| (id.clone(), tests::member(id, node.incarnation))).collect();
        let mut suspicions: Suspicions = live().map(|(id, node)| (id.clone(), node.said.clone())).collect();
        if self.breaks(Fault::OneSuspicionIsEnough) {
            let all: BTreeMap<String, u64> =
                suspicions.values().flatten().map(|(id, at)| (id.clone(), *at)).collect();
            suspicions.values_mut().for_each(|said| said.clone_from(&all));
        }
        let may_remove = self.confirmed.is_some_and(|(_, at)| self.clock >= at + GRANT_COUNTS)
            || self.breaks(Fault::RemovesAtOnce);
        let gone = if self.breaks(Fault::OneLeaseIsEnough) { everybody() } else { self.gone() };
        let says = live().filter(|(_, node)| node.reach.0 == node.incarnation);
        let reached = &says.map(|(id, node)| (id.clone(), node.reach.1.clone())).collect();
        // Some have waited for long.
        let founder = (self.clock.is_multiple_of(4)).then_some(proposer);
        let (registered, suspicions, gone) = (&registered, &suspicions, &gone);
        let is_moving = false;
        let evidence = Evidence { registered, suspicions, reached, founder, gone, is_moving, may_remove };
        let next = next_view(&self.views[self.now()].0, &evidence, |id| self.reach(proposer, id));
        if let Some(next) = next {
            let members = &self.views[self.now()].0.members;
            let leased = members.keys().filter(|id| registered.contains_key(*id)).count();
            self.by_few += usize::from(leased * 2 < members.len());
            for id in NAMES.into_iter().filter(|id| !next.members.contains_key(*id)) {
                self.node(id).registered = false;
            }
            self.views.push((next, None));
        }
    }

    /// One that has not heard of the present view goes over to those that are cut off from etcd. The others have time to
    /// suspect it, and to agree on views without it.
    fn split_off_one_more(&mut self, proposer: &str) {
        let behind =
            |id: &&str| *id != proposer && self.nodes[*id].lease && self.nodes[*id].epoch < self.now();
        let behind: Vec<_> = NAMES.into_iter().filter(behind).collect();
        let Some(more) = self.random.choice(behind) else { return };
        let off = NAMES.into_iter().filter(|id| *id == more || !self.nodes[*id].etcd).collect();
        self.split(&off);
        self.note_absent();
        (0..=SUSPECTED_AFTER).for_each(|_| self.tick());
        self.calm_until = self.clock + 6 * GRANT_COUNTS;
    }

    fn serves(&self, id: &str) -> bool {
        self.is_member(id) && (self.nodes[id].lease || self.clock < self.nodes[id].until)
    }

    fn is_converged(&self) -> bool {
        let has_acknowledged = |id: &String| self.nodes[id].epoch == self.now();
        self.views[self.now()].0.members.keys().all(has_acknowledged)
            && (self.breaks(Fault::WaitsForMembersAlone)
                || self.nodes.iter().all(|(id, node)| !node.lease || has_acknowledged(id)))
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.min(b).to_owned(), a.max(b).to_owned())
}

fn everybody() -> BTreeSet<String> {
    NAMES.map(str::to_owned).into()
}

/// What happened in a history, or in several.
#[derive(Debug, Default)]
struct Counts {
    views: usize,
    /// Views that were written while less than half had a lease.
    by_few: usize,
    /// Steps after which the present view had converged.
    converged: usize,
    /// How often one then served by grants.
    by_grants: usize,
}

/// Runs the history of a seed, and counts into `counts`.
///
/// # Errors
/// Somebody serves under an older view than the converged one; all that happened.
fn history(seed: u64, fault: Option<Fault>, counts: &mut Counts) -> Result<(), String> {
    let mut world = World::new(seed, fault);
    for _ in 0..1_000 {
        world.step();
        if !world.is_converged() {
            continue;
        }
        counts.converged += 1;
        for id in NAMES.into_iter().filter(|id| world.serves(id)) {
            if world.nodes[id].epoch != world.now() {
                return Err(format!("seed {seed}, {id}: {}", world.story()));
            }
            counts.by_grants += usize::from(!world.nodes[id].lease);
        }
    }
    counts.views += world.now();
    counts.by_few += world.by_few;
    Ok(())
}

#[test]
fn nobody_serves_under_an_older_view_than_the_converged_one() {
    let mut counts = Counts::default();
    for seed in 0..HISTORIES {
        history(seed, None, &mut counts).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    // It is about something.
    let Counts { views, by_few, converged, by_grants } = counts;
    assert!(views > 20_000 && by_few > 250 && converged > 500_000 && by_grants > 100_000, "{counts:?}");
}

#[test]
fn each_broken_rule_is_found() {
    let is_found = |fault: &Fault| {
        let found = (0..HISTORIES).find(|&seed| history(seed, Some(*fault), &mut Counts::default()).is_err());
        println!("{fault:?}: the first seed that finds it is {found:?}");
        found.is_some()
    };
    let missed: Vec<_> = Fault::ALL.into_iter().filter(|fault| !is_found(fault)).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn everybody_is_let_in_whom_the_others_reach() {
    // In these histories members are gone soon.
    for seed in (0..600).step_by(GONE_AFTER.len()) {
        let mut world = World::new(seed, None);
        (0..300).for_each(|_| world.step());
        world.come_to_rest(None);
        assert_eq!(world.current_members(), NAMES, "seed {seed}: {}", world.story());
    }
}

#[test]
fn nobody_is_let_in_whom_nobody_reaches() {
    let (mut out, mut first) = (0, 0);
    // In these histories members are gone soon.
    for seed in (0..600).step_by(GONE_AFTER.len()) {
        let mut world = World::new(seed, None);
        (0..300).for_each(|_| world.step());
        world.come_to_rest(Some("c"));
        match *world.current_members() {
            ["a", "b", "d", "e"] => out += 1,
            // It was alone, and does not reach those who would join it.
            ["c"] => first += 1,
            ref other => panic!("seed {seed}: {other:?}: {}", world.story()),
        }
    }
    assert!(out > 150, "{out} {first}");
}

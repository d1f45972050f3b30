//! Events of this node and its cluster, as this node saw them, kept for people who look later.
//!
//! The HTTP thread looks once a second and notes each change. It may miss what comes and goes within a second; the log
//! has it.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use serde::Serialize;

use crate::cache::clustered::ClusterContext;
use crate::server::history::Reading;
use crate::stats::Counter;

/// Events that are kept.
const EVENTS_MAX: usize = 200;

/// Members that have left and are remembered.
const GONE_MAX: usize = 64;

/// How long they are remembered.
const GONE_SECONDS: u64 = 300;

/// A trouble is over when it was not seen for this long.
const QUIET_SECONDS: u64 = 60;

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Info,
    Warn,
    Bad,
}

/// Something that was seen to happen.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Event {
    /// Counts the events of this process.
    number: u64,
    /// Seconds of Unix time.
    at: u64,
    level: Level,
    text: String,
}

/// A member that is no longer in the view.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Gone {
    id: String,
    memcached_addr: String,
    /// Since when, in seconds of Unix time.
    at: u64,
    /// Whether it stopped answering; otherwise it left in order.
    lost: bool,
}

/// Something that harms clients, or did.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Trouble {
    kind: &'static str,
    /// When it was seen first and last, in seconds of Unix time.
    began: u64,
    last: u64,
    /// How many were concerned.
    count: u64,
    over: bool,
}

/// The kinds of troubles: their names, what is counted, and the texts for their begin and their end.
const TROUBLES: [(&str, &[Counter], &str, &str); 3] = [
    (
        "commands",
        &[Counter::UnavailableReads, Counter::UnavailableWrites],
        "Commands fail: the owners of their keys cannot be asked",
        "commands had failed",
    ),
    (
        "memory",
        &[Counter::StoreNoMemory],
        "Writes fail: memory is full, and nothing may be evicted (-M)",
        "writes had failed for want of memory",
    ),
    (
        "clients",
        &[Counter::RejectedConnections],
        "Clients are refused: there are as many as -c allows",
        "clients had been refused",
    ),
];

/// What this node knows of the past.
#[derive(Debug, Default)]
pub(super) struct Incidents(Mutex<Inside>);

#[derive(Debug, Default)]
struct Inside {
    last: Option<Look>,
    number: u64,
    events: VecDeque<Event>,
    gone: VecDeque<Gone>,
    troubles: [Option<Trouble>; TROUBLES.len()],
}

/// The part of it that is shown: the newest event last.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    events: Vec<Event>,
    gone: Vec<Gone>,
    troubles: Vec<Trouble>,
}

/// What can be seen at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    at: u64,
    me: String,
    members: BTreeMap<String, Peer>,
    epoch: u64,
    standing: &'static str,
    etcd: Option<bool>,
    /// Flushes so far.
    flushes: u64,
    /// What is counted of each trouble.
    counts: [u64; TROUBLES.len()],
}

#[derive(Debug, Clone, Default)]
struct Peer {
    incarnation: u64,
    memcached_addr: String,
    reachable: bool,
    breaker_open: bool,
}

impl Look {
    /// The state of this node, called `me`, at this moment.
    pub(super) fn of(me: &str, cluster: Option<&ClusterContext>, reading: &Reading) -> Self {
        let counts = TROUBLES.map(|(_, counters, ..)| counters.iter().map(|&one| reading.count(one)).sum());
        let alone = Self {
            at: reading.at,
            me: me.to_owned(),
            standing: "alone",
            flushes: reading.count(Counter::CmdFlush),
            counts,
            ..Self::default()
        };
        let Some(shared) = cluster else { return alone };
        let state = shared.membership.state();
        let links = shared.links.totals(|id| state.view.members.contains_key(id));
        let peer = |(id, member): (&String, &crate::cluster::view::Member)| {
            let peer = Peer {
                incarnation: member.incarnation,
                memcached_addr: member.memcached_addr.clone(),
                reachable: *id == state.me || shared.pings.reaches(id),
                breaker_open: links.get(id).is_some_and(|links| links.open > 0),
            };
            (id.clone(), peer)
        };
        Self {
            members: state.view.members.iter().map(peer).collect(),
            epoch: state.epoch,
            standing: state.standing.name(),
            etcd: shared.membership.etcd_health().map(|health| health.connected),
            flushes: state.view.flush_generation,
            ..alone
        }
    }

    /// The differences from the last look.
    fn since(&self, before: &Self) -> Vec<(Level, String)> {
        let mut events = Vec::new();
        let mut note = |level, text: String| events.push((level, text));
        for (id, old) in before.members.iter().filter(|(id, _)| **id != self.me) {
            match self.members.get(id) {
                None if old.reachable => note(Level::Warn, format!("{id} left the cluster")),
                None => note(Level::Warn, format!("{id} was lost: others have its keys now")),
                Some(new) => old.compare(id, new, &mut note),
            }
        }
        for id in self.members.keys().filter(|id| **id != self.me && !before.members.is_empty()) {
            if !before.members.contains_key(id) {
                note(Level::Info, format!("{id} joined the cluster"));
            }
        }
        if self.epoch != before.epoch {
            let members = self.members.len();
            let what = if members == 1 { "member" } else { "members" };
            note(Level::Info, format!("Epoch {}, with {members} {what}", self.epoch));
        }
        if self.standing != before.standing {
            let level = if self.standing == "fenced" { Level::Bad } else { Level::Info };
            note(level, format!("{} is {} (was {})", self.me, self.standing, before.standing));
        }
        match (before.etcd, self.etcd) {
            (Some(true), Some(false)) => note(Level::Warn, format!("{} does not reach etcd", self.me)),
            (Some(false), Some(true)) => note(Level::Info, format!("{} reaches etcd again", self.me)),
            _ => {}
        }
        // The first view also brings flushes from before this node started.
        let is_first = before.members.is_empty() && !self.members.is_empty();
        if self.flushes > before.flushes && !is_first {
            note(Level::Info, "Everything was flushed".to_owned());
        }
        events
    }
}

impl Peer {
    fn compare(&self, id: &str, new: &Self, note: &mut impl FnMut(Level, String)) {
        if self.incarnation != new.incarnation {
            note(Level::Warn, format!("{id} is back, and empty"));
        }
        match (self.reachable, new.reachable) {
            (true, false) => note(Level::Bad, format!("{id} does not answer")),
            (false, true) => note(Level::Info, format!("{id} answers again")),
            _ => {}
        }
        match (self.breaker_open, new.breaker_open) {
            (false, true) => note(Level::Warn, format!("Calls to {id} fail, and are held back")),
            (true, false) => note(Level::Info, format!("Calls to {id} get through again")),
            _ => {}
        }
    }
}

impl Incidents {
    /// Notes what has changed since the last look.
    pub(super) fn look(&self, look: Look) {
        let mut inside = self.0.lock();
        match inside.last.take() {
            None => inside.note(look.at, Level::Info, format!("{} was started", look.me)),
            Some(before) => {
                for (level, text) in look.since(&before) {
                    inside.note(look.at, level, text);
                }
                inside.remember_gone(&before, &look);
                inside.follow_troubles(&before, &look);
            }
        }
        inside.last = Some(look);
    }

    pub(super) fn told(&self) -> Told {
        let inside = self.0.lock();
        Told {
            events: inside.events.iter().cloned().collect(),
            gone: inside.gone.iter().cloned().collect(),
            troubles: inside.troubles.iter().flatten().cloned().collect(),
        }
    }
}

impl Inside {
    fn note(&mut self, at: u64, level: Level, text: String) {
        self.number += 1;
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(Event { number: self.number, at, level, text });
    }

    fn remember_gone(&mut self, before: &Look, now: &Look) {
        let at = now.at;
        self.gone
            .retain(|gone| !now.members.contains_key(&gone.id) && at.saturating_sub(gone.at) < GONE_SECONDS);
        for (id, peer) in &before.members {
            if *id == now.me || now.members.contains_key(id) {
                continue;
            }
            if self.gone.len() == GONE_MAX {
                self.gone.pop_front();
            }
            let memcached_addr = peer.memcached_addr.clone();
            self.gone.push_back(Gone { id: id.clone(), memcached_addr, at, lost: !peer.reachable });
        }
    }

    fn follow_troubles(&mut self, before: &Look, now: &Look) {
        for (place, (kind, _, begins, ends)) in TROUBLES.into_iter().enumerate() {
            let grown = now.counts[place].saturating_sub(before.counts[place]);
            let at = now.at;
            match &mut self.troubles[place] {
                Some(trouble) if !trouble.over && grown > 0 => {
                    (trouble.last, trouble.count) = (at, trouble.count + grown);
                }
                Some(trouble) if !trouble.over && at.saturating_sub(trouble.last) >= QUIET_SECONDS => {
                    trouble.over = true;
                    let text = format!("Over since {QUIET_SECONDS} s: {} {ends}", trouble.count);
                    self.note(at, Level::Info, text);
                }
                trouble if grown > 0 => {
                    *trouble = Some(Trouble { kind, began: at, last: at, count: grown, over: false });
                    self.note(at, Level::Bad, begins.to_owned());
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, ids: &[&str]) -> Look {
        let peer = |id: &&str| {
            let peer = Peer {
                incarnation: 1,
                memcached_addr: format!("{id}:1"),
                reachable: true,
                breaker_open: false,
            };
            ((*id).to_owned(), peer)
        };
        Look {
            at,
            me: "a".into(),
            members: ids.iter().map(peer).collect(),
            epoch: ids.len() as u64,
            standing: "serving",
            etcd: Some(true),
            ..Look::default()
        }
    }

    fn texts(incidents: &Incidents) -> Vec<String> {
        incidents.told().events.into_iter().map(|event| event.text).collect()
    }

    fn silent(mut look: Look, id: &str) -> Look {
        look.members.get_mut(id).expect("a member").reachable = false;
        look
    }

    #[test]
    fn who_is_lost_is_remembered_until_it_is_back_or_long_ago() {
        let incidents = Incidents::default();
        incidents.look(look(10, &["a", "b", "c"]));
        incidents.look(silent(look(11, &["a", "b", "c"]), "b"));
        incidents.look(look(12, &["a", "c"]));
        incidents.look(look(13, &["a"]));
        assert_eq!(
            texts(&incidents),
            [
                "a was started",
                "b does not answer",
                "b was lost: others have its keys now",
                "Epoch 2, with 2 members",
                "c left the cluster",
                "Epoch 1, with 1 member",
            ]
        );
        let gone = incidents.told().gone;
        let gone: Vec<_> = gone.iter().map(|gone| (gone.id.as_str(), gone.at, gone.lost)).collect();
        assert_eq!(gone, [("b", 12, true), ("c", 13, false)]);
        incidents.look(look(14, &["a", "c"]));
        assert_eq!(incidents.told().gone.len(), 1, "c is back");
        assert!(texts(&incidents).contains(&"c joined the cluster".to_owned()));
        incidents.look(look(12 + GONE_SECONDS, &["a", "c"]));
        assert!(incidents.told().gone.is_empty());
    }

    #[test]
    fn what_joins_with_the_first_view_is_no_event() {
        let incidents = Incidents::default();
        incidents.look(Look { flushes: 0, ..look(1, &[]) });
        incidents.look(Look { flushes: 4, ..look(2, &["a", "b"]) });
        assert_eq!(texts(&incidents), ["a was started", "Epoch 2, with 2 members"]);
        incidents.look(Look { flushes: 5, etcd: Some(false), standing: "fenced", ..look(3, &["a", "b"]) });
        let texts = texts(&incidents);
        let rest = ["a is fenced (was serving)", "a does not reach etcd", "Everything was flushed"];
        assert_eq!(texts[2..], rest);
    }

    #[test]
    fn a_trouble_is_told_when_it_begins_and_when_it_is_over() {
        let incidents = Incidents::default();
        let failed = |at, count| incidents.look(Look { counts: [count, 0, 0], ..look(at, &["a"]) });
        failed(1, 0);
        failed(2, 5);
        failed(3, 7);
        failed(4, 7);
        let trouble = incidents.told().troubles.remove(0);
        assert_eq!((trouble.began, trouble.last, trouble.count, trouble.over), (2, 3, 7, false));
        failed(3 + QUIET_SECONDS, 7);
        assert!(incidents.told().troubles[0].over);
        failed(99, 8);
        let trouble = incidents.told().troubles.remove(0);
        assert_eq!((trouble.began, trouble.count, trouble.over), (99, 1, false), "a new one");
        let texts = texts(&incidents);
        assert_eq!(texts[2], format!("Over since {QUIET_SECONDS} s: 7 commands had failed"));
        assert_eq!((texts.len(), &texts[1]), (4, &texts[3]));
    }

    #[test]
    fn only_so_many_are_kept() {
        let incidents = Incidents::default();
        for at in 0..2 * EVENTS_MAX as u64 {
            incidents.look(Look { epoch: at, ..look(at, &["a"]) });
        }
        let events = incidents.told().events;
        assert_eq!((events.len(), events[0].number), (EVENTS_MAX, 1 + EVENTS_MAX as u64));
    }
}

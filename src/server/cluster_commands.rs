//! The commands about the cluster, and those that concern all of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cache::Cache;
use crate::cluster;
use crate::cluster::view::{SLOTS, slot};
use crate::command::{Command, Outcome, Verb};
use crate::item::Exptime;
use crate::pb;
use crate::protocol::binary::{self, Head};
use crate::protocol::error::ProtocolError;
use crate::protocol::reply::write_line;
use crate::server::report::Lines;
use crate::server::session::Session;

/// How many times as long as for a command (`--peer-timeout`) every member may take to confirm a
/// `flush_all`, and to send its statistics: a second by default.
const ALL_MEMBERS: u32 = 4;

/// Statistics of a process that mean nothing as a sum.
const NOT_SUMMED: [&str; 6] = ["pid", "pointer_size", "threads", "time", "uptime", "verbosity"];

/// Something that concerns the whole cluster and takes its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// `flush_all`
    Flush { delay: Exptime, quiet: bool },
    /// `stats cluster`
    Stats,
    /// `why`
    Why { key: Vec<u8> },
    /// One of these, asked for in the binary protocol.
    Binary(Head, Box<Task>),
}

impl Task {
    /// Does it, and returns what the client is told.
    pub(super) async fn run(self, cache: &Cache) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Flush { delay, quiet } => {
                let line = match flush(cache, delay).await {
                    Ok(()) => "OK".to_owned(),
                    Err(why) => format!("SERVER_ERROR {why}").replace(['\r', '\n'], " "),
                };
                if !quiet {
                    write_line(&mut out, &line);
                }
            }
            Self::Stats => stats(cache, &mut out).await,
            Self::Why { key } => why(cache, &key, &mut out).await,
            Self::Binary(head, task) => {
                let lines = Box::pin(task.run(cache)).await;
                binary::reply::write_lines(&mut out, head, &lines);
            }
        }
        out
    }
}

impl Session {
    /// Begins something that concerns the cluster; false when this node is alone.
    pub(super) fn later(&mut self, task: Task) -> bool {
        let Some(forward) = &mut self.forward else { return false };
        forward.later(&mut self.out, task);
        true
    }

    pub(super) fn why(&mut self, key: &[u8]) {
        if self.later(Task::Why { key: key.to_vec() }) {
            return;
        }
        let command = Command { key, key_binary: false, verb: Verb::Inspect };
        let Self { context, out, .. } = self;
        let mut lines = Lines(out);
        lines.stat("key", key.escape_ascii());
        lines.stat("slot", slot(key));
        let caller = crate::store::Caller::new(self.now, &self.counters, self.connection.id);
        context.store.execute(&caller, &command, |outcome| write_presence(&mut lines, &outcome));
        lines.end();
    }

    /// `config get cluster`, as ElastiCache's auto discovery answers it: a version that grows, and
    /// a line of `host|address|port` for each node.
    pub(super) fn cluster_config(&mut self) {
        let Some(forward) = &self.forward else { return self.answer(ProtocolError::Unknown.as_str()) };
        let nodes: Vec<_> =
            forward.routing().members().iter().filter_map(|m| config_node(&m.memcached_addr)).collect();
        let config = format!("{}\n{}\n", forward.routing().epoch, nodes.join(" "));
        self.answer(&format!("CONFIG cluster 0 {}", config.len()));
        self.answer(&config);
        self.answer("END");
    }

    pub(super) fn stats_ring(&mut self) {
        let Some(forward) = &self.forward else { return };
        let (routing, state) = (forward.routing().clone(), forward.cache.shared().membership.state());
        let owners = routing.owners();
        let mut lines = Lines(&mut self.out);
        lines.stat("node", &state.me);
        lines.stat("standing", state.standing.name());
        lines.stat("epoch", routing.epoch);
        lines.stat("digest", format_args!("{:016x}", owners.digest()));
        lines.stat("members", state.view.members.len());
        let settled = forward.cache.shared().is_settled();
        lines.stat("settled", if settled { "yes" } else { "no" });
        let unconfirmed: Vec<_> = state.unconfirmed().collect();
        if !unconfirmed.is_empty() {
            lines.stat("unconfirmed", unconfirmed.join(" "));
        }
        for member in state.view.members.values() {
            let slots = owners.slots_of(&member.id);
            let share = slots as f64 / SLOTS as f64;
            lines.stat(
                format_args!("member:{}", member.id),
                format_args!(
                    "share={share:.4} slots={slots} weight={} addr={} peer={} zone={}",
                    member.weight, member.memcached_addr, member.peer_addr, member.zone
                ),
            );
        }
        lines.end();
    }
}

/// `host|address|port`; the address is empty when the host is a name that is not known here,
/// which clients take for "look it up".
fn config_node(addr: &str) -> Option<String> {
    let (host, port) = addr.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let ip = host.parse::<std::net::IpAddr>().map(|ip| ip.to_string()).unwrap_or_default();
    Some(format!("{host}|{ip}|{port}"))
}

fn patience(cache: &Cache) -> Duration {
    cache.shared().options.operation_timeout * ALL_MEMBERS
}

async fn flush(cache: &Cache, delay: Exptime) -> Result<(), String> {
    let shared = cache.shared();
    let clock = shared.store.clock();
    let now = clock.now();
    let due = clock.deadline(delay, now);
    if due > now {
        let failed = shared.pings.flush(due - now, patience(cache)).await;
        return if failed.is_empty() { Ok(()) } else { Err(unconfirmed(&failed)) };
    }
    let generation = shared
        .membership
        .raise_flush_generation()
        .await
        .map_err(|error: cluster::Error| error.to_string())?;
    shared.membership.flushed(generation, patience(cache)).await.map_err(|ids| unconfirmed(&ids))
}

fn unconfirmed(ids: &[String]) -> String {
    format!("flush_all was not confirmed by {}", ids.join(", "))
}

/// Sums what can be summed, and lists what each member said.
async fn stats(cache: &Cache, out: &mut Vec<u8>) {
    let members = cache.shared().pings.stats(patience(cache)).await;
    let mut sums = BTreeMap::<&str, u64>::new();
    let mut order = Vec::new();
    for stat in members.iter().filter_map(|(_, stats)| stats.as_ref()).flatten() {
        let Ok(number) = stat.value.parse::<u64>() else { continue };
        if NOT_SUMMED.contains(&stat.name.as_str()) {
            continue;
        }
        let sum = sums.entry(&stat.name).or_insert_with(|| {
            order.push(stat.name.as_str());
            0
        });
        *sum = sum.saturating_add(number);
    }
    let mut lines = Lines(out);
    let answered = members.iter().filter(|(_, stats)| stats.is_some()).count();
    lines.stat("members", members.len());
    lines.stat("members_answered", answered);
    for name in order {
        lines.stat(name, sums[name]);
    }
    for (id, stats) in &members {
        match stats {
            None => lines.stat(format_args!("member:{id}"), "no answer"),
            Some(stats) => {
                for pb::Stat { name, value } in stats {
                    lines.stat(format_args!("member:{id}:{name}"), value);
                }
            }
        }
    }
    lines.end();
}

async fn why(cache: &Cache, key: &[u8], out: &mut Vec<u8>) {
    let routing = cache.routing_handle().hold().clone();
    let slot = slot(key);
    let answer = cache.call(&Command { key, key_binary: false, verb: Verb::Inspect }).await;
    let mut lines = Lines(out);
    lines.stat("key", key.escape_ascii());
    lines.stat("slot", slot);
    lines.stat("epoch", routing.epoch);
    if let Some(owner) = routing.owners().owner(slot) {
        lines.stat("owner", &owner.id);
        lines.stat("owner_addr", &owner.memcached_addr);
    }
    match answer.result.as_ref().map(|message| pb::view(message, key)) {
        Ok(Some(outcome)) => write_presence(&mut lines, &outcome),
        Ok(None) => lines.stat("present", "unknown"),
        Err(why) => {
            lines.stat("present", "unknown");
            lines.stat("unavailable", format!("{why:?}").to_lowercase());
        }
    }
    lines.end();
}

fn write_presence(lines: &mut Lines<'_>, outcome: &Outcome<'_>) {
    let Outcome::Found(found) = outcome else { return lines.stat("present", "no") };
    lines.stat("present", "yes");
    match found.item.ttl_seconds {
        Some(seconds) => lines.stat("ttl", seconds),
        None => lines.stat("ttl", -1),
    }
    lines.stat("size", found.item.value_len);
}

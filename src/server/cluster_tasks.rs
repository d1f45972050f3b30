//! What concerns all of the cluster and takes its time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cache::Cache;
use crate::cluster;
use crate::cluster::view::slot;
use crate::command::{Command, Outcome, Verb};
use crate::item::Exptime;
use crate::pb;
use crate::protocol::binary::{self, Head};
use crate::protocol::reply::write_line;
use crate::server::report::Lines;

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

pub(super) fn write_presence(lines: &mut Lines<'_>, outcome: &Outcome<'_>) {
    let Outcome::Found(found) = outcome else { return lines.stat("present", "no") };
    lines.stat("present", "yes");
    match found.item.ttl_seconds {
        Some(seconds) => lines.stat("ttl", seconds),
        None => lines.stat("ttl", -1),
    }
    lines.stat("size", found.item.value_len);
}

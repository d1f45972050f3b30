//! Commands that take time: those that concern the whole cluster, and those that read files.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::clustered::Clustered;
use crate::cluster;
use crate::cluster::view::slot;
use crate::command::{Command, Outcome, Verb};
use crate::item::Exptime;
use crate::pb;
use crate::protocol::binary::{self, Head};
use crate::protocol::error::ProtocolError;
use crate::protocol::reply::write_line;
use crate::server::ServerContext;
use crate::server::statistics::{self, Lines, Sink as _};

/// Statistics of a process that mean nothing as a sum.
const NOT_SUMMED: [&str; 6] = ["pid", "pointer_size", "threads", "time", "uptime", "verbosity"];

/// A command that takes time, and replies when it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server::memcached) enum Task {
    /// `flush_all` in a cluster.
    Flush { delay: Exptime, quiet: bool },
    /// `flush_prefix` and `flush_group` in a cluster.
    FlushPrefix { prefix: Vec<u8>, quiet: bool },
    /// `stats cluster`
    Stats,
    /// `why` in a cluster.
    Why { key: Vec<u8> },
    /// `refresh_certs`
    RefreshCerts,
    /// One of these, asked for in the binary protocol.
    Binary(Head, Box<Task>),
}

impl Task {
    /// Does it, and returns what the client is told.
    pub(in crate::server::memcached) async fn run(
        self,
        cache: &Cache,
        context: Arc<ServerContext>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        match (self, cache.cluster()) {
            (Self::RefreshCerts, _) => write_line(&mut out, &refresh_certs(context).await),
            (Self::Binary(head, task), _) => {
                let lines = Box::pin(task.run(cache, context)).await;
                binary::reply::write_lines(&mut out, head, &lines);
            }
            (Self::Flush { delay, quiet }, Some(cluster)) => {
                let line = match flush(cluster, delay).await {
                    Ok(()) => "OK".to_owned(),
                    Err(why) => server_error(why),
                };
                if !quiet {
                    write_line(&mut out, &line);
                }
            }
            (Self::FlushPrefix { prefix, quiet }, Some(cluster)) => {
                let line = match cluster.flush_prefix(&prefix).await {
                    Ok(()) => "OK".to_owned(),
                    Err(why) => server_error(why),
                };
                if !quiet {
                    write_line(&mut out, &line);
                }
            }
            (Self::Stats, Some(cluster)) => stats(cluster, &mut out).await,
            (Self::Why { key }, Some(cluster)) => why(cluster, &key, &mut out).await,
            (Self::Flush { .. } | Self::FlushPrefix { .. } | Self::Stats | Self::Why { .. }, None) => {
                write_line(&mut out, ProtocolError::Unknown.as_str());
            }
        }
        out
    }
}

fn server_error(why: impl std::fmt::Display) -> String {
    format!("SERVER_ERROR {why}").replace(['\r', '\n'], " ")
}

/// Reads the files in a thread where they keep no client waiting.
async fn refresh_certs(context: Arc<ServerContext>) -> String {
    let reloaded = tokio::task::spawn_blocking(move || {
        context.certificates.as_ref().map(|certificates| certificates.reload().map_err(server_error))
    });
    match reloaded.await {
        Ok(Some(Ok(()))) => "OK".to_owned(),
        Ok(Some(Err(line))) => line,
        Ok(None) => ProtocolError::Unknown.as_str().to_owned(),
        Err(error) => server_error(error),
    }
}

async fn flush(cluster: &Clustered, delay: Exptime) -> Result<(), String> {
    let shared = cluster.context();
    let clock = shared.store.clock();
    let now = clock.now();
    let due = clock.deadline(delay, now);
    if due > now {
        let failed = shared.pings.flush(due - now, cluster.patience_with_all()).await;
        return if failed.is_empty() { Ok(()) } else { Err(unconfirmed(&failed)) };
    }
    let generation = shared
        .membership
        .raise_flush_generation()
        .await
        .map_err(|error: cluster::Error| error.to_string())?;
    shared.membership.flushed(generation, cluster.patience_with_all()).await.map_err(|ids| unconfirmed(&ids))
}

fn unconfirmed(ids: &[String]) -> String {
    format!("flush_all was not confirmed by {}", ids.join(", "))
}

/// Sums what can be summed, and lists what each member said.
async fn stats(cluster: &Clustered, out: &mut Vec<u8>) {
    let members = cluster.context().pings.stats(cluster.patience_with_all()).await;
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

async fn why(cluster: &Clustered, key: &[u8], out: &mut Vec<u8>) {
    let routing = cluster.routing_handle().hold().clone();
    let slot = slot(key);
    let answer = cluster.call(&Command { key, key_binary: false, verb: Verb::Inspect }).await;
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
    let context = cluster.context();
    let mut turn = routing.place(key).is_here().then(|| cluster.begin(context.store.clock().now(), 0));
    statistics::why(&context.loads, &context.store, turn.as_mut(), key, &mut lines);
    lines.end();
}

/// What `why` says of an item.
pub(super) fn write_presence(lines: &mut Lines<'_>, outcome: &Outcome<'_>) {
    let Outcome::Found(found) = outcome else { return lines.stat("present", "no") };
    lines.stat("present", "yes");
    match found.item.ttl_seconds {
        Some(seconds) => lines.stat("ttl", seconds),
        None => lines.stat("ttl", -1),
    }
    lines.stat("size", found.item.value_len);
}

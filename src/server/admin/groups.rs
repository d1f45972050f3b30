//! `/api/v1/groups`: the groups of keys, and their flushes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::groups::Group;
use crate::groups::stats::Result as Ended;
use crate::server::admin::Admin;
use crate::server::admin::problem::Problem;
use crate::store::{GroupUse, TooManyFlushes};

#[derive(Serialize)]
pub(super) struct Listing {
    groups: Vec<Shown>,
    /// The same on all nodes that have the same groups.
    digest: String,
    /// By id. All nodes should have the same groups.
    members_with_other_groups: Vec<String>,
}

#[derive(Serialize)]
struct Shown {
    name: String,
    /// For people: what is not UTF-8 is replaced.
    prefix: String,
    origin: Option<&'static str>,
    /// While the origin has failed too often, and is asked only now and then.
    origin_broken: bool,
    items: u64,
    bytes: u64,
    max_bytes: Option<u64>,
    evictions: u64,
    hits: u64,
    misses: u64,
    negative_hits: u64,
    stale: u64,
    timeouts: u64,
    waiting: u64,
    in_flight: u64,
    /// By what came of them.
    loads: Map<String, Value>,
    load_p50_seconds: Option<f64>,
    load_p99_seconds: Option<f64>,
}

impl Shown {
    fn new(group: &Group, memory: Option<&GroupUse>) -> Self {
        let (options, stats) = (&group.options, &group.stats);
        let GroupUse { items, bytes, hits, misses, evictions } = memory.copied().unwrap_or_default();
        let latency = stats.latency();
        Self {
            name: options.name.clone(),
            prefix: String::from_utf8_lossy(&options.prefix).into_owned(),
            origin: options.origin.as_ref().map(|origin| origin.kind()),
            origin_broken: group.is_broken(),
            items,
            bytes,
            max_bytes: options.max_bytes,
            evictions,
            hits,
            misses,
            negative_hits: stats.negative_hits.load(Ordering::Relaxed),
            stale: stats.stale.load(Ordering::Relaxed),
            timeouts: stats.timeouts.load(Ordering::Relaxed),
            waiting: stats.waiting.load(Ordering::Relaxed),
            in_flight: stats.inflight.load(Ordering::Relaxed),
            loads: Ended::ALL
                .iter()
                .map(|ended| (ended.name().to_owned(), stats.loads(*ended).into()))
                .collect(),
            load_p50_seconds: latency.quantile(0.5),
            load_p99_seconds: latency.quantile(0.99),
        }
    }
}

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<Listing> {
    let groups = admin.context.loads.groups();
    let uses = admin.context.store.group_uses();
    let shown = groups.iter().map(|group| Shown::new(group, uses.get(&*group.options.prefix)));
    let mut shown: Vec<Shown> = shown.collect();
    shown.sort_by(|one, other| one.name.cmp(&other.name));
    Json(Listing {
        groups: shown,
        digest: format!("{:016x}", groups.digest()),
        members_with_other_groups: admin
            .cluster()
            .map(|shared| shared.pings.with_other_groups())
            .unwrap_or_default(),
    })
}

pub(super) async fn flush(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    if !admin.context.options.flush_allowed {
        return Err(Problem::new(StatusCode::FORBIDDEN, "flushing is not allowed here (-F)"));
    }
    let groups = admin.context.loads.groups();
    let group = groups.iter().find(|group| group.options.name == name);
    let group = group.ok_or_else(|| Problem::not_found(format!("there is no group {name:?}")))?;
    let prefix = &group.options.prefix;
    match admin.cache.cluster() {
        Some(cluster) => {
            let flushed = cluster.flush_prefix(prefix).await;
            flushed.map_err(|why| Problem::new(StatusCode::GATEWAY_TIMEOUT, why))?;
        }
        None => admin.context.flush_prefix(prefix).map_err(|TooManyFlushes| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many prefixes are being flushed")
        })?,
    }
    Ok(StatusCode::NO_CONTENT)
}

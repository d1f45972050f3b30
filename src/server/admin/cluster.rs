//! `/api/v1/cluster` and `/api/v1/owner/{key}`: the members, and which of them owns a key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;

use crate::cache::clustered::ClusterContext;
use crate::cache::moves::stats::Report;
use crate::cluster::etcd::health;
use crate::cluster::view::{Member, SLOTS, slot};
use crate::cluster::{self, Candidate};
use crate::command::{Failure, Outcome, Verb};
use crate::peer::link::stats::Totals;
use crate::server::admin::problem::Problem;
use crate::server::admin::stats::Buckets;
use crate::server::admin::{Admin, items};

#[derive(Serialize)]
pub(super) struct Cluster {
    node: String,
    cluster: String,
    version: &'static str,
    clustered: bool,
    standing: &'static str,
    serving: bool,
    ready: bool,
    draining: bool,
    epoch: u64,
    settled: bool,
    unconfirmed: Vec<String>,
    members: Vec<MemberView>,
    /// The nodes that have registered and are not members.
    candidates: Vec<CandidateView>,
    etcd: Option<Etcd>,
    moves: Option<Moves>,
}

#[derive(Serialize)]
struct CandidateView {
    id: String,
    here: bool,
    peer_addr: String,
    /// The reason it is not let in, for people.
    troubles: Vec<String>,
}

#[derive(Serialize)]
struct MemberView {
    id: String,
    here: bool,
    memcached_addr: String,
    peer_addr: String,
    zone: String,
    weight: u32,
    slots: usize,
    share: f64,
    reachable: bool,
    forward: Option<Forward>,
}

/// What this node has sent to a member.
#[derive(Serialize)]
struct Forward {
    breaker_open: bool,
    queued: u64,
    in_flight: u64,
    sent: u64,
    answered: u64,
    failed: u64,
    durations: Buckets,
}

#[derive(Serialize)]
struct Etcd {
    connected: bool,
    lease_ttl_seconds: f64,
    lease_remaining_seconds: f64,
}

/// What moves to this node and from it, and has moved since its start.
#[derive(Serialize)]
struct Moves {
    slots_in: u64,
    slots_out: u64,
    items_left: u64,
    bytes_left: u64,
    seconds_left: u64,
    items_in: u64,
    items_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
pub(super) struct Ownership {
    /// For people: what is not UTF-8 is replaced.
    key: String,
    slot: u16,
    epoch: u64,
    owner: Option<Owner>,
    /// `null` when the owner could not be asked.
    item: Option<Item>,
    unavailable: Option<String>,
}

#[derive(Serialize)]
struct Owner {
    id: String,
    memcached_addr: String,
    here: bool,
}

#[derive(Serialize)]
struct Item {
    present: bool,
    ttl_seconds: Option<u32>,
    size_bytes: usize,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Json<Cluster> {
    let ready = admin.unready().is_none();
    let draining = admin.context.leave.is_cancelled();
    let (node, version) = (admin.name.clone(), env!("CARGO_PKG_VERSION"));
    let Some(shared) = admin.cluster() else {
        return Json(Cluster {
            node,
            cluster: String::new(),
            version,
            clustered: false,
            standing: "alone",
            serving: true,
            ready,
            draining,
            epoch: 0,
            settled: true,
            unconfirmed: Vec::new(),
            members: vec![admin.alone()],
            candidates: Vec::new(),
            etcd: None,
            moves: None,
        });
    };
    let state = shared.membership.state();
    Json(Cluster {
        node,
        cluster: shared.me.cluster.clone(),
        version,
        clustered: true,
        standing: state.standing.name(),
        serving: shared.membership.serves(),
        ready,
        draining,
        epoch: state.epoch,
        settled: shared.is_converged(),
        unconfirmed: state.unconfirmed().map(str::to_owned).collect(),
        members: members(shared),
        candidates: candidates(&state),
        etcd: shared.membership.etcd_health().map(Etcd::from),
        moves: Some(shared.moving().into()),
    })
}

/// Answers which node owns a key, and whether the item exists. Changes nothing, not even the time of last use.
pub(super) async fn owner(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Json<Ownership>, Problem> {
    let key = items::key(&uri, "/api/v1/owner/")?;
    let slot = slot(&key);
    let (epoch, owner) = match admin.cluster() {
        None => {
            let MemberView { id, memcached_addr, .. } = admin.alone();
            (0, Some(Owner { id, memcached_addr, here: true }))
        }
        Some(shared) => {
            let state = shared.membership.state();
            let owner = state.owners.owner(slot).map(|member| Owner {
                id: member.id.clone(),
                memcached_addr: member.memcached_addr.clone(),
                here: member.id == state.me,
            });
            (state.epoch, owner)
        }
    };
    let show = |outcome: Outcome<'_>| match outcome {
        Outcome::Found(found) => {
            let item = &found.item;
            Ok(Item { present: true, ttl_seconds: item.ttl_seconds, size_bytes: item.value_len })
        }
        Outcome::Failed(Failure::Unavailable(why)) => Err(format!("{why:?}").to_lowercase()),
        _ => Ok(Item { present: false, ttl_seconds: None, size_bytes: 0 }),
    };
    let (item, unavailable) = match admin.cache.execute(&items::command(&key, Verb::Inspect), show).await {
        Ok(item) => (Some(item), None),
        Err(why) => (None, Some(why)),
    };
    let key = String::from_utf8_lossy(&key).into_owned();
    Ok(Json(Ownership { key, slot, epoch, owner, item, unavailable }))
}

fn candidates(state: &cluster::State) -> Vec<CandidateView> {
    let view = |Candidate { member, troubles }: &Candidate| CandidateView {
        id: member.id.clone(),
        here: member.id == state.me,
        peer_addr: member.peer_addr.clone(),
        troubles: troubles.clone(),
    };
    state.candidates.iter().map(view).collect()
}

fn members(shared: &ClusterContext) -> Vec<MemberView> {
    let state = shared.membership.state();
    let mut links = shared.links.totals(|id| state.view.members.contains_key(id));
    let view = |member: &Member| {
        let Member { id, memcached_addr, peer_addr, zone, weight, .. } = member.clone();
        let (here, slots) = (id == state.me, state.owners.slots_of(&id));
        let reachable = here || shared.pings.reaches(&id);
        let forward = (!here).then(|| Forward::from(links.remove(&id).unwrap_or_default()));
        let share = slots as f64 / SLOTS as f64;
        MemberView { id, here, memcached_addr, peer_addr, zone, weight, slots, share, reachable, forward }
    };
    state.view.members.values().map(view).collect()
}

impl Admin {
    /// The only member there is.
    fn alone(&self) -> MemberView {
        MemberView {
            id: self.name.clone(),
            here: true,
            memcached_addr: self.memcached_addr.clone(),
            peer_addr: String::new(),
            zone: String::new(),
            weight: 100,
            slots: SLOTS,
            share: 1.0,
            reachable: true,
            forward: None,
        }
    }
}

impl From<Totals> for Forward {
    fn from(totals: Totals) -> Self {
        Self {
            breaker_open: totals.open > 0,
            queued: totals.queued,
            in_flight: totals.in_flight,
            sent: totals.sent,
            answered: totals.answered(),
            failed: totals.failed(),
            durations: (&totals.durations).into(),
        }
    }
}

impl From<health::Report> for Etcd {
    fn from(report: health::Report) -> Self {
        Self {
            connected: report.connected,
            lease_ttl_seconds: report.lease_ttl.as_secs_f64(),
            lease_remaining_seconds: report.lease_remaining.as_secs_f64(),
        }
    }
}

impl From<Report> for Moves {
    fn from(report: Report) -> Self {
        Self {
            slots_in: report.slots_in,
            slots_out: report.slots_out,
            items_left: report.items_left,
            bytes_left: report.bytes_left,
            seconds_left: report.seconds_left,
            items_in: report.items_in,
            items_out: report.items_out,
            bytes_in: report.bytes_in,
            bytes_out: report.bytes_out,
        }
    }
}

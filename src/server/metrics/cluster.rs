//! A member's metrics of its cluster, its etcd and its peers.

use std::collections::BTreeMap;

use crate::cache::clustered::ClusterContext;
use crate::cache::moves::stats::Report;
use crate::cluster::MemberStatus;
use crate::cluster::view::SLOTS;
use crate::peer::link::stats::Totals;

/// What the links to each of the other members have done.
pub(super) fn links(shared: &ClusterContext) -> BTreeMap<String, Totals> {
    let state = shared.membership.state();
    let is_peer = |id: &str| id != state.me && state.view.members.contains_key(id);
    shared.links.totals(is_peer)
}

pub(super) fn publish(shared: &ClusterContext, links: &BTreeMap<String, Totals>) {
    publish_view(shared);
    publish_etcd(shared);
    publish_moves(&shared.moving());
    for (peer, totals) in links {
        publish_links(peer, totals);
    }
    let state = shared.membership.state();
    for peer in state.view.members.keys().filter(|id| **id != state.me) {
        let reachable = shared.pings.reaches(peer);
        metrics::gauge!("filbert_peer_reachable", "peer" => peer.clone()).set(truth(reachable));
    }
}

fn publish_view(shared: &ClusterContext) {
    let state = shared.membership.state();
    let owned = state.owners.slots_of(&state.me) as f64 / SLOTS as f64;
    metrics::counter!("filbert_cluster_view_changes_total").absolute(shared.ownership.changes());
    for (name, value) in [
        ("filbert_cluster_epoch", state.epoch as f64),
        ("filbert_cluster_members", state.view.members.len() as f64),
        ("filbert_cluster_owned_ratio", if state.is_member() { owned } else { 0.0 }),
        ("filbert_cluster_settled", truth(shared.is_converged())),
        ("filbert_cluster_serving", truth(shared.membership.serves())),
        ("filbert_cluster_unconfirmed_members", state.unconfirmed().count() as f64),
        ("filbert_cluster_members_with_other_groups", shared.pings.with_other_groups().len() as f64),
    ] {
        metrics::gauge!(name).set(value);
    }
    for standing in MemberStatus::ALL {
        let is_so = state.standing == standing;
        metrics::gauge!("filbert_cluster_standing", "standing" => standing.name()).set(truth(is_so));
    }
    // Its zone stands in the view.
    if let Some(member) = state.view.members.get(&state.me) {
        metrics::gauge!(
            "filbert_node_info",
            "node" => state.me.clone(),
            "cluster" => shared.me.cluster.clone(),
            "zone" => member.zone.clone(),
        )
        .set(1.0);
    }
}

fn publish_etcd(shared: &ClusterContext) {
    let Some(etcd) = shared.membership.etcd_health() else { return };
    for (name, value) in [
        ("filbert_etcd_connected", truth(etcd.connected)),
        ("filbert_etcd_lease_ttl_seconds", etcd.lease_ttl.as_secs_f64()),
        ("filbert_etcd_lease_remaining_seconds", etcd.lease_remaining.as_secs_f64()),
        ("filbert_etcd_watch_revision", etcd.revision as f64),
    ] {
        metrics::gauge!(name).set(value);
    }
    for (name, value) in [
        ("filbert_etcd_lease_renewals_total", etcd.lease_renewals),
        ("filbert_etcd_session_failures_total", etcd.session_failures),
        ("filbert_etcd_watch_restarts_total", etcd.watch_restarts),
    ] {
        metrics::counter!(name).absolute(value);
    }
}

fn publish_moves(moves: &Report) {
    for (direction, slots, items, bytes) in [
        ("in", moves.slots_in, moves.items_in, moves.bytes_in),
        ("out", moves.slots_out, moves.items_out, moves.bytes_out),
    ] {
        metrics::gauge!("filbert_move_slots", "direction" => direction).set(slots as f64);
        metrics::counter!("filbert_move_items_total", "direction" => direction).absolute(items);
        metrics::counter!("filbert_move_bytes_total", "direction" => direction).absolute(bytes);
    }
    for (result, takes) in
        [("found", moves.takes_found), ("absent", moves.takes_absent), ("failed", moves.takes_failed)]
    {
        metrics::counter!("filbert_move_takes_total", "result" => result).absolute(takes);
    }
    for (name, left) in [
        ("filbert_move_remaining_items", moves.items_left),
        ("filbert_move_remaining_bytes", moves.bytes_left),
        ("filbert_move_remaining_seconds", moves.seconds_left),
    ] {
        metrics::gauge!(name).set(left as f64);
    }
}

fn publish_links(peer: &str, totals: &Totals) {
    for (name, value) in [
        ("filbert_forward_queue_operations", totals.queued as f64),
        ("filbert_forward_in_flight_operations", totals.in_flight as f64),
        ("filbert_forward_breaker_open", truth(totals.open > 0)),
    ] {
        metrics::gauge!(name, "peer" => peer.to_owned()).set(value);
    }
    for (name, value) in [
        ("filbert_forward_breaker_opened_total", totals.opened),
        ("filbert_forward_streams_total", totals.streams),
        ("filbert_forward_batches_total", totals.batches),
        ("filbert_forward_timeouts_total", totals.timeouts),
    ] {
        metrics::counter!(name, "peer" => peer.to_owned()).absolute(value);
    }
    for (result, count) in totals.results {
        let labels = [("peer", peer.to_owned()), ("result", result.to_owned())];
        metrics::counter!("filbert_forwarded_operations_total", &labels).absolute(count);
    }
}

/// Leaves out the histograms of peers that have gone, which the recorder keeps.
pub(super) fn without_others(text: &str, shared: &ClusterContext) -> String {
    let state = shared.membership.state();
    let labels: Vec<String> = state.view.members.keys().map(|id| format!("peer={id:?}")).collect();
    let is_of_another = |line: &str| {
        line.starts_with("filbert_forward_")
            && line.contains("{peer=\"")
            && !labels.iter().any(|label| line.contains(label))
    };
    text.split_inclusive('\n').filter(|line| !is_of_another(line)).collect()
}

fn truth(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

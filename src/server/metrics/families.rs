//! Every metric of ours: its name, its kind and what it means.

/// A metric, with all of its labels.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// Whether it goes up only.
    pub kind: Kind,
    /// Its labels, as the documentation names them.
    pub labels: &'static str,
    /// What it means, in a sentence.
    pub help: &'static str,
}

/// What a number does over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It goes up only, from 0 at the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It tells how values are distributed.
    Histogram,
}

/// All of them but the process's own, which are Prometheus' usual ones.
pub const FAMILIES: &[Family] = &[
    // Commands.
    counter(
        "filbert_commands_total",
        "command, result",
        "Commands executed in this node's memory, whoever was asked for them.",
    ),
    counter("filbert_meta_commands_total", "", "Meta commands that clients of this node have sent."),
    counter("filbert_peer_operations_total", "", "Commands executed for clients of other nodes."),
    histogram(
        "filbert_command_duration_seconds",
        "command, route, result",
        "Time from reading a command to having its reply, of some of the commands of this node's clients; of reads that wait for a load, those that another node answers.",
    ),
    counter(
        "filbert_unavailable_commands_total",
        "kind",
        "Commands of this node's clients whose owner could not be asked: reads answered as a miss, writes with an error.",
    ),
    counter(
        "filbert_get_flushed_total",
        "",
        "Keys asked for whose items a flush or a change of owner had ended.",
    ),
    // Clients.
    gauge("filbert_connections_open", "", "Client connections."),
    gauge("filbert_connections_limit", "", "Client connections there may be (-c)."),
    gauge("filbert_accepting_connections", "", "1 unless the limit of connections keeps new ones waiting."),
    counter("filbert_connections_accepted_total", "", "Client connections accepted."),
    counter("filbert_connections_rejected_total", "", "Client connections refused at the limit."),
    counter("filbert_connections_idle_closed_total", "", "Client connections closed by the idle timeout."),
    counter(
        "filbert_tls_handshake_failures_total",
        "",
        "Client connections that did not come to agree on TLS.",
    ),
    counter("filbert_connection_yields_total", "", "Times that a busy connection let others go first."),
    counter("filbert_listen_disabled_total", "", "Times that new connections had to wait at the limit."),
    counter(
        "filbert_listen_disabled_seconds_total",
        "",
        "Time in which new connections had to wait, in whole seconds.",
    ),
    counter("filbert_network_received_bytes_total", "", "Bytes read from clients."),
    counter("filbert_network_sent_bytes_total", "", "Bytes written to clients."),
    counter("filbert_logins_total", "", "Logins tried."),
    counter("filbert_login_failures_total", "", "Logins that failed."),
    gauge(
        "filbert_buffers_used_bytes",
        "direction",
        "Memory for values on their way in, and for replies on their way out, beside that of the items.",
    ),
    gauge("filbert_buffers_limit_bytes", "direction", "How much of it there may be; 0 is any amount."),
    counter(
        "filbert_buffers_refused_total",
        "direction",
        "Times that there was none for a client, or that one was closed because others needed what it held.",
    ),
    // Memory.
    gauge("filbert_items", "", "Items in memory."),
    gauge("filbert_item_bytes", "", "Memory that items take, with their share of the tables."),
    gauge("filbert_item_size_limit_bytes", "", "Largest item that is taken (-I)."),
    gauge("filbert_memory_used_bytes", "", "Memory that counts against the limit."),
    gauge("filbert_memory_limit_bytes", "", "Memory that items and tables may take (-m)."),
    counter("filbert_items_stored_total", "", "Items stored."),
    counter("filbert_evictions_total", "", "Live items dropped for room."),
    counter("filbert_evictions_unfetched_total", "", "Of those, the ones that were never asked for."),
    histogram(
        "filbert_eviction_age_seconds",
        "",
        "Time since an evicted item was last used, of some of them.",
    ),
    counter(
        "filbert_expirations_total",
        "found_by",
        "Items dropped because their time was over, by what came upon them; sweeps and writes also come upon what a flush had ended.",
    ),
    counter("filbert_expirations_unfetched_total", "", "Expired items that were never asked for."),
    counter("filbert_direct_reclaims_total", "", "Writes that had to make room first."),
    counter("filbert_sweeps_total", "", "Sweeps for expired items."),
    counter("filbert_sweep_checked_items_total", "", "Items that sweeps have looked at."),
    // Cluster.
    gauge("filbert_cluster_epoch", "", "Number of the view that this node acts on."),
    gauge("filbert_cluster_members", "", "Members of that view."),
    gauge("filbert_cluster_owned_ratio", "", "Share of all keys that this node owns."),
    gauge("filbert_cluster_settled", "", "1 when every member acts on this view."),
    gauge("filbert_cluster_serving", "", "1 when this node may answer for its keys."),
    gauge(
        "filbert_cluster_standing",
        "standing",
        "1 for what this node is in its cluster, 0 for what it is not.",
    ),
    gauge("filbert_cluster_unconfirmed_members", "", "Nodes that may still act on an older view."),
    gauge(
        "filbert_cluster_members_with_other_groups",
        "",
        "Members whose groups are configured otherwise than this node's.",
    ),
    counter("filbert_cluster_view_changes_total", "", "Views that this node has come to."),
    gauge("filbert_node_info", "node, cluster, zone", "1, with the names of this node."),
    // Moves.
    gauge(
        "filbert_move_slots",
        "direction",
        "Slots whose items are on their way, to this node (`in`) and from it (`out`).",
    ),
    counter("filbert_move_items_total", "direction", "Items that came with their slots, or went with them."),
    counter("filbert_move_bytes_total", "direction", "Bytes of their keys and values."),
    counter(
        "filbert_move_takes_total",
        "result",
        "Commands that waited for what lay under their key on its node before: something did, nothing did, or there was no answer in time, which is a miss.",
    ),
    gauge(
        "filbert_move_remaining_items",
        "",
        "Items that are still to come to this node, as far as that is known.",
    ),
    gauge("filbert_move_remaining_bytes", "", "Bytes of their keys and values."),
    gauge(
        "filbert_move_remaining_seconds",
        "",
        "How long they will take, at the speed so far; 0 when nothing comes.",
    ),
    // etcd.
    gauge("filbert_etcd_connected", "", "1 when etcd answers and is watched."),
    gauge(
        "filbert_etcd_lease_ttl_seconds",
        "",
        "How long this node's lease lasts in etcd unless it is renewed.",
    ),
    gauge("filbert_etcd_lease_remaining_seconds", "", "How long it still lasts; 0 without one."),
    counter("filbert_etcd_lease_renewals_total", "", "Times that the lease was granted or renewed."),
    counter(
        "filbert_etcd_session_failures_total",
        "",
        "Sessions with etcd that ended or did not come about.",
    ),
    counter("filbert_etcd_watch_restarts_total", "", "Times that the watch was behind and was begun anew."),
    gauge("filbert_etcd_watch_revision", "", "Revision of etcd up to which everything is known."),
    // Peers.
    counter(
        "filbert_forwarded_operations_total",
        "peer, result",
        "Commands sent to the owner of their key, by what came of them.",
    ),
    histogram(
        "filbert_forward_duration_seconds",
        "peer",
        "Time from a command's setting out for its owner to hearing its outcome, waiting included, of some of them.",
    ),
    histogram(
        "filbert_forward_batch_operations",
        "peer",
        "Commands that left in one message, of some messages.",
    ),
    counter("filbert_forward_batches_total", "peer", "Messages of commands sent."),
    counter(
        "filbert_forward_timeouts_total",
        "peer",
        "Commands that were sent and not answered in time (--peer-timeout).",
    ),
    counter(
        "filbert_forward_streams_total",
        "peer",
        "Streams that came about; each after the first follows one that broke.",
    ),
    gauge("filbert_forward_queue_operations", "peer", "Commands that wait to be sent."),
    gauge("filbert_forward_in_flight_operations", "peer", "Commands that wait for their outcome."),
    gauge(
        "filbert_forward_breaker_open",
        "peer",
        "1 when the peer is taken for unreachable, and commands for it fail at once.",
    ),
    counter("filbert_forward_breaker_opened_total", "peer", "Times that it was."),
    gauge("filbert_peer_reachable", "peer", "1 when the peer answers pings."),
    // Groups.
    counter(
        "filbert_group_reads_total",
        "group, result",
        "Reads of the group's keys that found an item, and that found none. Of those, where there is an origin: that were \
         answered with a value past its time, that were told at once that there is none, and that were answered with a \
         miss because no load ended in time.",
    ),
    gauge("filbert_group_items", "group", "Items."),
    gauge("filbert_group_item_bytes", "group", "Bytes of the items, without the index."),
    gauge(
        "filbert_group_limit_bytes",
        "group",
        "Bytes that the group's items may take: `max-bytes`, where it has one.",
    ),
    counter("filbert_group_evictions_total", "group", "Items that gave way."),
    // Groups with an origin.
    gauge("filbert_group_reads_waiting", "group", "Reads that wait for a load."),
    counter(
        "filbert_group_loads_total",
        "group, result",
        "Loads from the group's origin, by what came of them.",
    ),
    gauge("filbert_group_loads_in_flight", "group", "Loads that ask the origin."),
    histogram("filbert_group_load_duration_seconds", "group", "Time that the origin took to answer."),
    gauge(
        "filbert_group_origin_broken",
        "group",
        "1 while the origin has failed too often, and is asked only now and then.",
    ),
    // The process.
    counter("filbert_http_requests_total", "code", "HTTP requests answered, by class of status."),
    counter(
        "filbert_log_lines_total",
        "level",
        "Errors and warnings logged, or left out because there were too many.",
    ),
    counter(
        "filbert_log_lines_lost_total",
        "",
        "Lines of the log that nobody took, or that could not be written.",
    ),
    gauge(
        "filbert_thread_beat_age_seconds",
        "thread",
        "Time since a thread was last seen to go on; a stuck one's grows.",
    ),
    gauge("filbert_build_info", "version, memcached_version", "1, with the version."),
];

const fn counter(name: &'static str, labels: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static str, help: &'static str) -> Family {
    Family { name, kind: Kind::Histogram, labels, help }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::stats::Counter;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = HashSet::new();
        for Family { name, kind, help, .. } in FAMILIES {
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(help.ends_with('.'), "{name}: {help}");
        }
    }

    #[test]
    fn every_counter_is_described() {
        let named = Counter::ALL.iter().map(|counter| counter.metric_name()).filter(|name| !name.is_empty());
        for name in named {
            assert!(FAMILIES.iter().any(|family| family.name == name), "{name}");
        }
    }
}

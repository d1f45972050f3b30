//! The commands about the cluster.

use crate::cluster::view::{SLOTS, slot};
use crate::command::{Command, Verb};
use crate::protocol::error::ProtocolError;
use crate::server::memcached::commands::scope::{Done, Scope};
use crate::server::memcached::commands::task::{Task, write_presence};
use crate::server::statistics::{self, Lines, Sink as _};

/// `why`: whose key it is, and whether there is an item.
pub(super) fn why(scope: &mut Scope<'_, '_>, key: &[u8]) -> Done {
    if let Some(later) = scope.in_cluster(Task::Why { key: key.to_vec() }) {
        return later;
    }
    let command = Command { key, key_binary: false, verb: Verb::Inspect };
    let mut lines = Lines(scope.out);
    lines.stat("key", key.escape_ascii());
    lines.stat("slot", slot(key));
    // On a node that is alone no key is elsewhere.
    _ = scope.turn.execute(&command, |outcome| write_presence(&mut lines, &outcome));
    let context = &scope.context;
    statistics::why(&context.loads, &context.store, Some(&mut scope.turn), key, &mut lines);
    lines.end();
    Done::Now
}

/// `config get cluster`, as ElastiCache's auto discovery answers it: a version that grows, and
/// a line of `host|address|port` for each node.
pub(super) fn config(scope: &mut Scope<'_, '_>) -> Done {
    let Some(routing) = scope.turn.routing() else {
        return scope.answer(ProtocolError::Unknown.as_str());
    };
    let nodes: Vec<_> = routing.members().iter().filter_map(|m| config_node(&m.memcached_addr)).collect();
    let config = format!("{}\n{}\n", routing.epoch, nodes.join(" "));
    scope.answer(&format!("CONFIG cluster 0 {}", config.len()));
    scope.answer(&config);
    scope.answer("END")
}

/// `stats ring`; false on a node that is alone.
pub(super) fn ring(scope: &mut Scope<'_, '_>) -> bool {
    let (Some(clustered), Some(routing)) = (scope.turn.cluster(), scope.turn.routing()) else {
        return false;
    };
    let (context, owners) = (clustered.context(), routing.owners());
    let state = context.membership.state();
    let mut lines = Lines(scope.out);
    lines.stat("node", &state.me);
    lines.stat("standing", state.standing.name());
    lines.stat("epoch", routing.epoch);
    lines.stat("digest", format_args!("{:016x}", owners.digest()));
    lines.stat("members", state.view.members.len());
    lines.stat("settled", if context.is_converged() { "yes" } else { "no" });
    let unconfirmed: Vec<_> = state.unconfirmed().collect();
    if !unconfirmed.is_empty() {
        lines.stat("unconfirmed", unconfirmed.join(" "));
    }
    lines.stat("groups_digest", format_args!("{:016x}", context.pings.groups_digest()));
    let others = context.pings.with_other_groups();
    if !others.is_empty() {
        lines.stat("groups_differ", others.join(" "));
    }
    let moves = context.moving();
    lines.stat("move_slots_in", moves.slots_in);
    lines.stat("move_slots_out", moves.slots_out);
    lines.stat("move_items_left", moves.items_left);
    lines.stat("move_seconds_left", moves.seconds_left);
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
    true
}

/// `host|address|port`; the address is empty when the host is a name that is not known here,
/// which clients take for "look it up".
fn config_node(addr: &str) -> Option<String> {
    let (host, port) = addr.rsplit_once(':')?;
    let host = host.trim_matches(['[', ']']);
    let ip = host.parse::<std::net::IpAddr>().map(|ip| ip.to_string()).unwrap_or_default();
    Some(format!("{host}|{ip}|{port}"))
}

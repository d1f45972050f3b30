//! The commands about the cluster.

use crate::cluster::view::{SLOTS, slot};
use crate::command::{Command, Verb};
use crate::protocol::error::ProtocolError;
use crate::server::cluster_tasks::{Task, write_presence};
use crate::server::report::Lines;
use crate::server::session::Session;

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

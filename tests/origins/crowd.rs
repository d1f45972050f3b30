//! Very many clients who want the same at the same time.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::origins::{Config, value};
use crate::support::cluster::{Cluster, STEADY};
use crate::support::node::{Node, stats};
use crate::support::origin::Origin;
use crate::support::server::eventually;
use crate::support::wire::Wire;

const CLIENTS: usize = 1_000;

#[test]
fn a_thousand_clients_of_three_nodes_ask_the_origin_once() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("it can be read");
    // One connection of each client, and what other tests have open.
    let wanted = hard.min(4 * CLIENTS as u64).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).expect("it can be raised up to the hard limit");

    let origin = Origin::start();
    origin.has("cold", "value");
    origin.hold();
    let config = Config::new(&origin.config("wait = \"60s\""));
    let cluster = Cluster::start_with(3, &[&STEADY[..], &config.args()].concat());
    let nodes = cluster.nodes.iter().cycle();
    let mut clients: Vec<Wire> = nodes.take(CLIENTS).map(Node::connect).collect();
    clients.iter_mut().for_each(|client| client.send(b"get g:cold\r\n"));
    let mut owner = cluster.nodes[cluster.owner_of("g:cold")].connect();
    eventually("all wait at the owner", || {
        stats(&mut owner, "stats groups")["g:waiting"] == CLIENTS.to_string()
    });
    origin.release();
    for client in &mut clients {
        client.expect(&value("g:cold", "value"));
    }
    assert_eq!(origin.asked("cold"), 1);
    assert_eq!(stats(&mut owner, "stats groups")["g:loads_stored"], "1");
}

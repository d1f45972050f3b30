//! An item lives as long as its client said, whichever node owns it.

use std::time::{Duration, Instant};

use crate::cluster::get;
use crate::support::cluster::Cluster;
use crate::support::server::eventually;

#[test]
fn the_time_to_live_goes_with_the_item() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    for owner in 0..3 {
        let key = cluster.key_owned_by(owner);
        for setter in 0..3 {
            let asker = (setter + 1) % 3;
            let mut left = |command: &str, reply: &str, wanted: i64| {
                let asked = Instant::now();
                wires[setter].ask(&format!("{command}\r\n"), &format!("{reply}\r\n"));
                wires[asker].send(format!("mg {key} t\r\n").as_bytes());
                let line = wires[asker].line().expect("the reply comes in time");
                let line = String::from_utf8(line).expect("the reply is text");
                let ttl = line.trim_end().strip_prefix("HD t").and_then(|ttl| ttl.parse::<i64>().ok());
                let ttl = ttl.unwrap_or_else(|| panic!("{line:?} tells the time left"));
                // Clocks count whole seconds.
                let passed = asked.elapsed().as_secs() as i64 + 2;
                let may_be = if wanted < 0 { wanted..=wanted } else { wanted - passed..=wanted };
                assert!(may_be.contains(&ttl), "{command:?}: {ttl} of {wanted} seconds left");
            };
            left(&format!("set {key} 0 1000 1\r\nx"), "STORED", 1000);
            left(&format!("touch {key} 2000"), "TOUCHED", 2000);
            left(&format!("gat 3000 {key}"), &format!("VALUE {key} 0 1\r\nx\r\nEND"), 3000);
            left(&format!("ms {key} 1 T4000\r\nx"), "HD", 4000);
            left(&format!("mg {key} T5000"), "HD", 5000);
            left(&format!("touch {key} 0"), "TOUCHED", -1);
        }
    }
}

#[test]
fn an_item_expires_on_every_node() {
    let cluster = Cluster::steady(3);
    let mut wires = cluster.connect_all();
    let keys: Vec<_> = (0..3).map(|owner| cluster.key_owned_by(owner)).collect();
    for (owner, key) in keys.iter().enumerate() {
        let set = Instant::now();
        wires[(owner + 1) % 3].ask(&format!("set {key} 0 3 1\r\nx\r\n"), "STORED\r\n");
        let still_there = get(&mut wires[(owner + 2) % 3], key) == "x";
        // Clocks count whole seconds.
        assert!(still_there || set.elapsed() > Duration::from_secs(2), "{key} went too soon");
    }
    for key in &keys {
        for wire in &mut wires {
            eventually("it expires", || {
                wire.send(format!("mg {key}\r\n").as_bytes());
                wire.line().expect("the reply comes in time") == b"EN\r\n"
            });
            wire.ask(&format!("set {key} 0 -1 1\r\nx\r\nget {key}\r\n"), "STORED\r\nEND\r\n");
        }
    }
}

//! Groups with memory of their own: `max-bytes`.

use std::fmt::Write as _;
use std::fs;

use nix::sys::signal::Signal;

use super::Config;
use crate::support::node::stats;
use crate::support::server::eventually;
use crate::support::wire::Wire;

fn group(name: &str, bound: &str) -> String {
    format!("[[group]]\nname = \"{name}\"\nprefix = \"{name}:\"\n{bound}\n")
}

/// Sets items of 1,000 bytes under keys with these numbers.
fn fill(wire: &mut Wire, prefix: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let mut request = format!("set {prefix}{number} 0 0 1000 noreply\r\n");
        writeln!(request, "{:1000}\r", number).expect("a string takes all");
        wire.send(request.as_bytes());
    }
    wire.ask("mn\r\n", "MN\r\n");
}

fn number(wire: &mut Wire, name: &str) -> u64 {
    stats(wire, "stats groups")[name].parse().expect("a number")
}

#[test]
fn a_group_keeps_to_its_bound_and_to_its_share() {
    let config =
        Config::new(&(group("small", "max-bytes = \"4m\"") + &group("large", "max-bytes = \"16m\"")));
    let server = config.start();
    let mut wire = server.connect();
    fill(&mut wire, "small:", 0..3_000);
    fill(&mut wire, "other", 0..3_000);
    assert_eq!(number(&mut wire, "small:curr_items"), 3_000);
    fill(&mut wire, "large:", 0..40_000);
    let large = number(&mut wire, "large:bytes");
    assert!((12 << 20..=16 << 20).contains(&large), "{large}");
    let gone = number(&mut wire, "large:evictions");
    assert_eq!(gone + number(&mut wire, "large:curr_items"), 40_000);
    assert_eq!(number(&mut wire, "small:evictions"), 0, "its neighbour makes room among its own");
    assert_eq!(stats(&mut wire, "stats")["curr_items"].parse::<u64>().expect("a number"), 46_000 - gone);
    // More than all the memory there is.
    fill(&mut wire, "other", 0..80_000);
    assert_eq!(number(&mut wire, "small:curr_items"), 3_000);
    assert_eq!(number(&mut wire, "small:evictions"), 0);
    let still = number(&mut wire, "large:bytes");
    assert!(still >= 12 << 20, "{still}");
    wire.ask("get small:7\r\n", &format!("VALUE small:7 0 1000\r\n{:1000}\r\nEND\r\n", 7));
    assert_eq!(stats(&mut wire, "stats groups")["small:limit_maxbytes"], (4 << 20).to_string());
}

#[test]
fn another_bound_counts_from_hup_on() {
    let config = Config::new(&group("a", "max-bytes = \"16m\""));
    let server = config.start();
    let mut wire = server.connect();
    fill(&mut wire, "a:", 0..10_000);
    assert_eq!(number(&mut wire, "a:curr_items"), 10_000);
    fs::write(&config.path, group("a", "max-bytes = \"4m\"")).expect("it can be written");
    server.signal(Signal::SIGHUP);
    eventually("what is too much goes, though nobody writes", || number(&mut wire, "a:bytes") <= 4 << 20);
    assert!(number(&mut wire, "a:bytes") > 2 << 20);
    fs::write(&config.path, group("a", "")).expect("it can be written");
    server.signal(Signal::SIGHUP);
    eventually("it has no bound", || !stats(&mut wire, "stats groups").contains_key("a:limit_maxbytes"));
    fill(&mut wire, "a:", 0..10_000);
    assert_eq!(number(&mut wire, "a:curr_items"), 10_000, "it shares all the memory");
}

//! Memory: what happens when the limit of `-m` is reached.

use std::fmt::Write as _;

use crate::support::cluster::Cluster;
use crate::support::node::stats;
use crate::support::server::{Product, Server, eventually};
use crate::support::wire::Wire;

/// Size of each value. Large, so that few are needed; under the default `-I`.
const VALUE_BYTES: usize = 500_000;
/// `-m 8` holds at most 16 such values; a server that takes this many has no limit.
const VALUES: usize = 60;

#[test]
fn memcached_evicts_old_items_for_new_ones() {
    evicts_old_items_for_new_ones(Product::Memcached);
}

#[test]
fn filbert_evicts_old_items_for_new_ones() {
    evicts_old_items_for_new_ones(Product::Filbert);
}

#[test]
fn memcached_refuses_new_items_with_m() {
    refuses_new_items_with_m(Product::Memcached);
}

#[test]
fn filbert_refuses_new_items_with_m() {
    refuses_new_items_with_m(Product::Filbert);
}

/// Not all at once when it is there: others would wait for that.
#[test]
fn room_for_a_large_value_is_made_while_it_comes_in() {
    let server = Server::filbert(&["-m", "8", "-t", "1"]);
    let mut wire = server.connect();
    for batch in 0..100 {
        let sets = (0..1_000).fold(String::new(), |mut sets, n| {
            let _ = write!(sets, "ms {batch}-{n} 100 q\r\n{}\r\n", "v".repeat(100));
            sets
        });
        wire.ask(&format!("{sets}mn\r\n"), "MN\r\n");
    }
    let mut other = server.connect();
    let (before, clients) = (other.stat("evictions"), other.stat("curr_connections"));
    assert!(before > 0);
    let value = "v".repeat(VALUE_BYTES);
    let (some, rest) = value.split_at(VALUE_BYTES - 1);
    let begun = format!("set large 0 0 {VALUE_BYTES}\r\n{some}");
    // Of some 130 bytes each.
    let items = VALUE_BYTES as u64 / 130;
    wire.send(begun.as_bytes());
    eventually("room is made", || other.stat("evictions") >= before + items * 4 / 5);
    drop(wire);
    eventually("the client has gone", || other.stat("curr_connections") < clients);
    // The room is there for others, and for the next one who tries.
    let before = other.stat("evictions");
    for n in 0..items / 2 {
        other.ask(&format!("set again-{n} 0 0 100\r\n{}\r\n", "v".repeat(100)), "STORED\r\n");
    }
    assert_eq!(other.stat("evictions"), before);
    let mut wire = server.connect();
    let read = other.stat("bytes_read");
    wire.send(begun.as_bytes());
    eventually("all of it is read", || other.stat("bytes_read") >= read + begun.len() as u64);
    let meanwhile = other.stat("evictions");
    assert!(meanwhile >= before + items * 2 / 5, "{}", meanwhile - before);
    wire.ask(&format!("{rest}\r\n"), "STORED\r\n");
    let at_once = other.stat("evictions") - meanwhile;
    assert!(
        at_once < items / 4,
        "{at_once} items went when all of it was there, {} before",
        meanwhile - before
    );
    // A long line is no value.
    let keys = (0..2_000).fold(String::new(), |keys, n| keys + &format!(" none-{n:0>20}"));
    let before = other.stat("evictions");
    wire.ask(&format!("get{keys}\r\n"), "END\r\n");
    assert_eq!(other.stat("evictions"), before);
}

/// In a cluster for what is to lie there, and for nothing else.
#[test]
fn a_member_makes_room_for_its_own_large_values() {
    let cluster = Cluster::start_with(2, &["-m", "8", "-t", "1"]);
    let mut other = cluster.nodes[0].connect();
    let mut evictions = || stats(&mut other, "stats")["evictions"].parse::<u64>().expect("a number");
    let small = "v".repeat(100);
    let mut wire = cluster.nodes[0].connect();
    for batch in 0..200 {
        let sets = (0..1_000)
            .fold(String::new(), |sets, n| sets + &format!("set {batch}-{n} 0 0 100 noreply\r\n{small}\r\n"));
        wire.ask(&format!("{sets}mn\r\n"), "MN\r\n");
    }
    let full = evictions();
    assert!(full > 0);
    let value = "v".repeat(VALUE_BYTES);
    let (some, rest) = value.split_at(VALUE_BYTES - 1);
    let begun = |owner| format!("set {} 0 0 {VALUE_BYTES}\r\n{some}", cluster.key_owned_by(owner));
    // Of some 130 bytes each.
    let items = VALUE_BYTES as u64 / 130;
    wire.send(begun(0).as_bytes());
    eventually("room is made", || evictions() >= full + items * 4 / 5);
    let made = evictions();
    wire.ask(&format!("{rest}\r\n"), "STORED\r\n");
    assert!(evictions() - made < items / 4, "{} items went when all of it was there", evictions() - made);
    let before = evictions();
    wire.send(begun(1).as_bytes());
    wire.ask(&format!("{rest}\r\n"), "STORED\r\n");
    assert_eq!(evictions(), before, "it lies elsewhere");
}

fn evicts_old_items_for_new_ones(product: Product) {
    let server = Server::start(product, &["-m", "8", "-t", "1"]);
    let mut wire = server.connect();
    for n in 0..VALUES {
        assert_eq!(store(&mut wire, n), "STORED\r\n", "value {n}");
    }
    wire.ask("mg k0\r\n", "EN\r\n");
    wire.ask(&format!("mg k{} s\r\n", VALUES - 1), &format!("HD s{VALUE_BYTES}\r\n"));
    let evictions = wire.stat("evictions");
    assert!(evictions > 0, "{evictions} evictions");
    assert_eq!(wire.stat("limit_maxbytes"), 8 * 1024 * 1024);
    assert_eq!(wire.stat("store_no_memory"), 0);
}

/// -M: error instead of eviction.
fn refuses_new_items_with_m(product: Product) {
    let server = Server::start(product, &["-m", "8", "-M", "-t", "1"]);
    let mut wire = server.connect();
    let refused = (0..VALUES).find(|n| store(&mut wire, *n) != "STORED\r\n").expect("the limit is reached");
    assert!(refused > 0, "8 MiB hold at least one value");
    assert_eq!(store(&mut wire, refused), "SERVER_ERROR out of memory storing object\r\n");
    wire.ask("mg k0 s\r\n", &format!("HD s{VALUE_BYTES}\r\n"));
    wire.ask(&format!("mg k{refused}\r\n"), "EN\r\n");
    assert_eq!(wire.stat("evictions"), 0);
    assert_eq!(wire.stat("store_no_memory"), 2);
}

fn store(wire: &mut Wire, n: usize) -> String {
    let mut request = format!("set k{n} 0 0 {VALUE_BYTES}\r\n");
    let _ = write!(request, "{}\r\n", "v".repeat(VALUE_BYTES));
    wire.send(request.as_bytes());
    String::from_utf8_lossy(&wire.line().expect("the reply comes in time")).into_owned()
}

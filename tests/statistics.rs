//! What `stats` and `stats settings` tell, beside a real memcached.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::node::stats;
use crate::support::server::{Product, Server, eventually};

/// Names that memcached 1.6.45 shows and 1.6.18 does not yet.
const NEWER: [(&str, &[&str]); 2] = [
    ("stats", &["slab_reassign_busy_nomem", "slab_reassign_last_busy_status"]),
    ("stats settings", &["client_flags_size"]),
];

/// Items that end after a second.
const SHORT_LIVED: u64 = 50;

#[test]
fn every_name_of_memcacheds_is_there_or_left_out_for_a_reason() {
    let (memcached, filbert) = (Server::memcached(&[]), Server::filbert(&[]));
    let left_out = left_out();
    let mut shown = BTreeSet::new();
    for (request, newer) in NEWER {
        let mut wanted = names(&memcached, request);
        wanted.extend(newer.iter().map(|&name| name.to_owned()));
        let there = names(&filbert, request);
        let missing: Vec<_> = wanted.difference(&there).filter(|name| !left_out.contains(*name)).collect();
        assert!(missing.is_empty(), "{request} lacks {missing:?}");
        shown.extend(there);
    }
    let needless: Vec<_> = left_out.intersection(&shown).collect();
    assert!(needless.is_empty(), "said to be left out, and there: {needless:?}");
}

#[test]
fn memcached_counts_what_it_reclaims() {
    counts_what_it_reclaims(Product::Memcached);
}

#[test]
fn filbert_counts_what_it_reclaims() {
    counts_what_it_reclaims(Product::Filbert);
}

/// Items that have ended are found without anybody asking for them, and counted.
fn counts_what_it_reclaims(product: Product) {
    let server = Server::start(product, &["-t", "1"]);
    let mut wire = server.connect();
    for n in 0..SHORT_LIVED {
        wire.ask(&format!("set k{n} 0 1 5\r\nvalue\r\n"), "STORED\r\n");
    }
    assert_eq!(wire.stat("reclaimed"), 0);
    eventually("what has ended is reclaimed", || wire.stat("reclaimed") == SHORT_LIVED);
    assert_eq!(wire.stat("curr_items"), 0);
}

/// The names of the lines that a request is answered with.
fn names(server: &Server, request: &str) -> BTreeSet<String> {
    stats(&mut server.connect(), request).into_keys().collect()
}

/// The names that `DIFFERENCES.md` says are left out.
fn left_out() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/DIFFERENCES.md");
    let text = fs::read_to_string(path).expect("DIFFERENCES.md exists");
    let rows = text.lines().skip_while(|line| !line.starts_with("| left out |")).skip(2);
    let cells = rows.map_while(|line| line.strip_prefix("| `")?.split('|').next());
    cells.flat_map(|cell| cell.split(['`', ' '])).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

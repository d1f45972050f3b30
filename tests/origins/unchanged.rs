//! Values that an HTTP origin has still are not sent again: `ETag`, `If-None-Match` and 304.

use std::fs;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Config, line, start, value};
use crate::support::node::stats;
use crate::support::origin::{Origin, Said};
use crate::support::server::{Server, eventually};
use crate::support::wire::Wire;

/// What a value is known by.
const TAG: &str = "\"one\"";

/// After a second a value is stale: it is shown, and loaded anew meanwhile.
const SHOWN: &str = "wait = \"60s\"\nttl = \"1s\"\nstale-while-revalidate = \"1h\"";

/// After a second a value is stale, and whoever reads it waits for a load.
const AWAITED: &str = "wait = \"60s\"\nttl = \"1s\"\nstale-if-error = \"1h\"";

/// How long a fresh value is kept in these groups.
const KEPT_SECONDS: u32 = 3601;

/// An origin with a value that has a tag.
fn origin() -> Origin {
    let origin = Origin::start();
    has(&origin, "one", TAG);
    origin
}

fn has(origin: &Origin, value: &str, tag: &str) {
    origin.says("k", Said::Tagged(value.into(), tag.into()));
}

/// The CAS token and the time to live of what is there, without a load.
fn facts(wire: &mut Wire) -> Option<(u64, u32)> {
    wire.send(b"mg g:k c t\r\n");
    let line = line(wire);
    let (cas, ttl) = line.strip_prefix("HD c")?.split_once(" t").expect("both");
    Some((cas.parse().expect("a token"), ttl.parse().expect("a time")))
}

/// Loads the value, and waits until it has been stale for two seconds.
fn grow_stale(wire: &mut Wire) -> u64 {
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    let (cas, _) = facts(wire).expect("it is stored");
    eventually("it is stale", || facts(wire).is_some_and(|(_, ttl)| ttl <= KEPT_SECONDS - 3));
    cas
}

fn count(wire: &mut Wire, what: &str) -> String {
    stats(wire, "stats groups")[&format!("g:{what}")].clone()
}

fn await_count(wire: &mut Wire, what: &str, wanted: &str) {
    eventually("the load ends", || count(wire, what) == wanted);
}

#[test]
fn a_value_that_has_not_changed_lives_on_as_it_is() {
    let origin = origin();
    let (_server, mut wire) = start(&origin, SHOWN);
    let cas = grow_stale(&mut wire);
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    await_count(&mut wire, "loads_unchanged", "1");
    let (same, ttl) = facts(&mut wire).expect("it is there");
    assert_eq!(same, cas);
    assert!(ttl >= KEPT_SECONDS - 1, "{ttl}");
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    assert_eq!(origin.asked_about("k"), [TAG]);
    assert_eq!(origin.asked("k"), 2);
    assert_eq!(count(&mut wire, "loads_stored"), "1");

    // Another value comes, with another tag, which counts from then on.
    has(&origin, "two", "W/\"two\"");
    eventually("it is loaded anew", || {
        wire.send(b"get g:k\r\n");
        wire.until_end() == value("g:k", "two")
    });
    assert_ne!(facts(&mut wire).expect("it is there").0, cas);
    eventually("that one lives on, too", || {
        wire.ask("get g:k\r\n", &value("g:k", "two"));
        count(&mut wire, "loads_unchanged") == "2"
    });
    assert_eq!(origin.asked_about("k"), [TAG, TAG, "W/\"two\""]);
}

#[test]
fn whoever_waits_is_answered_with_what_has_not_changed() {
    let origin = origin();
    let (_server, mut wire) = start(&origin, AWAITED);
    let cas = grow_stale(&mut wire);
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    assert_eq!(count(&mut wire, "loads_unchanged"), "1");
    let (same, ttl) = facts(&mut wire).expect("it is there");
    assert_eq!(same, cas);
    assert!(ttl >= KEPT_SECONDS - 1, "{ttl}");
    // A time that the read gives counts, as for a value that was loaded anew.
    grow_stale(&mut wire);
    wire.ask("gat 100 g:k\r\n", &value("g:k", "one"));
    assert!(facts(&mut wire).is_some_and(|(_, ttl)| ttl <= 100));
    assert_eq!(origin.asked_about("k"), [TAG, TAG]);
}

#[test]
fn what_a_client_does_meanwhile_wins_over_an_unchanged_value() {
    for (write, reply, then) in [
        ("set g:k 0 100 3\r\nnew\r\n", "STORED\r\n", Some("new")),
        ("touch g:k 100\r\n", "TOUCHED\r\n", Some("one")),
        ("delete g:k\r\n", "DELETED\r\n", None),
        ("flush_prefix g:\r\n", "OK\r\n", None),
    ] {
        let origin = origin();
        let (server, mut wire) = start(&origin, SHOWN);
        grow_stale(&mut wire);
        origin.hold();
        wire.ask("get g:k\r\n", &value("g:k", "one"));
        origin.await_asked("k", 2);
        server.connect().ask(write, reply);
        origin.release();
        await_count(&mut wire, "loads_unchanged", "1");
        match then {
            Some(then) => {
                assert!(facts(&mut wire).is_some_and(|(_, ttl)| ttl <= 100), "{write}");
                wire.ask("get g:k\r\n", &value("g:k", then));
            }
            None => {
                assert_eq!(facts(&mut wire), None, "{write}");
                // What is gone is asked for whole.
                wire.ask("get g:k\r\n", &value("g:k", "one"));
                assert_eq!(origin.asked("k"), 3);
            }
        }
        assert_eq!(origin.asked_about("k"), [TAG], "{write}");
    }
}

#[test]
fn whoever_waits_for_what_is_gone_meanwhile_is_shown_a_value() {
    let origin = origin();
    let (server, mut wire) = start(&origin, AWAITED);
    grow_stale(&mut wire);
    origin.hold();
    wire.send(b"get g:k\r\n");
    origin.await_asked("k", 2);
    server.connect().ask("delete g:k\r\n", "DELETED\r\n");
    origin.release();
    wire.expect(&value("g:k", "one"));
    assert_eq!((origin.asked("k"), origin.asked_about("k").len()), (3, 1));
    assert_eq!(count(&mut wire, "loads_shown"), "1");
    assert_eq!(facts(&mut wire), None, "the delete stands");
}

#[test]
fn only_what_is_remembered_of_this_very_item_is_asked_about() {
    // A restart keeps the items, and nothing else.
    let origin = origin();
    let dir = TempDir::new().expect("a temporary directory can be made");
    let snapshot = dir.path().join("items");
    let config = Config::new(&origin.config(SHOWN));
    let args = [&config.args()[..], &["--snapshot", snapshot.to_str().expect("UTF-8")]].concat();
    let mut server = Server::filbert(&args);
    let cas = grow_stale(&mut server.connect());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit().code(), Some(0));
    let server = Server::filbert(&args);
    let mut wire = server.connect();
    eventually("it is read back", || facts(&mut wire).is_some_and(|(same, _)| same == cas));
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    await_count(&mut wire, "loads_stored", "1");

    // Without tokens nobody knows which item it is.
    let (_server, mut wire) = {
        let server = Server::filbert(&[&config.args()[..], &["-C"]].concat());
        let wire = server.connect();
        (server, wire)
    };
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    eventually("it is loaded anew", || {
        wire.ask("get g:k\r\n", &value("g:k", "one"));
        count(&mut wire, "loads_stored") == "2"
    });
    assert_eq!(origin.asked_about("k"), [""; 0]);

    // Another origin may have the same tag for something else.
    let other = Origin::start();
    has(&other, "other", TAG);
    let server = config.start();
    let mut wire = server.connect();
    grow_stale(&mut wire);
    fs::write(&config.path, other.config(SHOWN)).expect("it can be written");
    server.signal(Signal::SIGHUP);
    eventually("the other one is asked", || {
        wire.send(b"get g:k\r\n");
        wire.until_end() == value("g:k", "other")
    });
    assert_eq!(other.asked_about("k"), [""; 0]);
}

#[test]
fn unchanged_is_no_answer_to_whoever_has_nothing() {
    let origin = Origin::start();
    origin.says("k", Said::Unchanged);
    let (_server, mut wire) = start(&origin, AWAITED);
    wire.ask("get g:k\r\n", "END\r\n");
    assert_eq!(
        (count(&mut wire, "loads_failed"), count(&mut wire, "loads_unchanged")),
        ("1".into(), "0".into())
    );
}

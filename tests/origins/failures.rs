//! Origins that fail, refuse a key, or cannot be reached: who is told, and what is asked all the same.

use std::fs;

use nix::sys::signal::Signal;

use super::{Config, PATIENT, start, value};
use crate::support::node::stats;
use crate::support::origin::{Origin, Said};
use crate::support::server::{Product, Server, eventually};

#[test]
fn an_origin_that_fails_is_left_alone_until_it_answers() {
    let origin = Origin::start();
    let (server, mut wire) = start(&origin, PATIENT);
    for number in 0..20 {
        origin.says(&format!("k{number}"), Said::Error);
        wire.ask(&format!("get g:k{number}\r\n"), "END\r\n");
    }
    assert!(origin.asked_in_all() < 20, "it was asked each time");
    eventually("and it is said", || server.stderr().contains("the origin fails"));
    assert_eq!(stats(&mut wire, "stats groups")["g:origin_broken"], "1");
    origin.has("good", "value");
    eventually("it is asked again", || {
        wire.send(b"get g:good\r\n");
        wire.until_end().contains("value")
    });
    eventually("and said so", || server.stderr().contains("the origin answers again"));
    assert_eq!(server.stderr().matches("the origin fails").count(), 1, "{}", server.stderr());
    assert_eq!(stats(&mut wire, "stats groups")["g:origin_broken"], "0");
}

#[test]
fn keys_that_are_refused_say_nothing_of_others() {
    let origin = Origin::start();
    origin.has("good", "value");
    let (_server, mut wire) = start(&origin, PATIENT);
    for number in 0..10 {
        origin.says(&format!("k{number}"), if number % 2 == 0 { Said::Forbidden } else { Said::Elsewhere });
        wire.ask(&format!("get g:k{number}\r\nget g:/../{number}\r\n"), "END\r\nEND\r\n");
    }
    assert_eq!(stats(&mut wire, "stats groups")["g:origin_broken"], "0");
    wire.ask("get g:good\r\n", &value("g:good", "value"));
}

#[test]
fn what_is_stale_is_better_than_an_error() {
    let origin = Origin::start();
    origin.has("k", "one");
    let (_server, mut wire) = start(&origin, &format!("{PATIENT}\nttl = \"1s\"\nstale-if-error = \"1h\""));
    wire.ask("get g:k\r\n", &value("g:k", "one"));
    origin.says("k", Said::Error);
    eventually("its time is over, and the origin is asked again", || {
        wire.ask("get g:k\r\n", &value("g:k", "one"));
        origin.asked("k") >= 3
    });
    origin.has("k", "two");
    eventually("the origin answers again", || {
        wire.send(b"get g:k\r\n");
        wire.until_end().contains("two")
    });
    origin.says("k", Said::Absent);
    eventually("and says that there is none", || {
        wire.send(b"get g:k\r\n");
        wire.until_end() == "END\r\n"
    });
}

#[test]
fn an_origin_that_is_not_there_at_the_start_is_warned_of() {
    let config = "[[group]]\nname = \"g\"\nprefix = \"g:\"\n[group.origin]\n\
                  sql = \"select v from t where k = $1\"\nurl = \"sqlite:/no/such.db\"\n";
    let server = Config::new(config).start();
    eventually("it is said", || server.stderr().contains("the origin cannot be asked now: "));
    server.connect().ask("get g:k\r\nget other\r\n", "END\r\nEND\r\n");
}

#[test]
fn an_origin_that_cannot_be_reached_is_warned_of_at_the_start_and_at_hup() {
    let there = Origin::start();
    let old = Server::start(Product::Memcached, &[]);
    // Nobody is asked for a key, and nobody listens at the ports 1 and 2.
    let http = |name: &str, origin: &str| {
        format!("[[group]]\nname = \"{name}\"\nprefix = \"{name}:\"\n[group.origin]\nhttp = \"{origin}\"\n")
    };
    let memcached = |name: &str| {
        let servers = format!("[\"127.0.0.1:1\", \"{}\", \"127.0.0.1:2\"]", old.addr());
        format!("[[group]]\nname = \"{name}\"\nprefix = \"{name}:\"\n[group.origin]\nmemcached = {servers}\n")
    };
    let nobody = "http://127.0.0.1:1/{key}";
    let at_start = there.config("") + &http("web", nobody) + &memcached("old");
    let config = Config::new(&at_start);
    let server = config.start();
    let said = |group: &str, why: &str| {
        let is_it = |line: &&str| {
            line.contains(&format!("the origin cannot be asked now: {why}"))
                && line.ends_with(&format!("group=\"{group}\""))
        };
        server.stderr().lines().filter(is_it).count()
    };
    let web = "127.0.0.1:1: connection refused";
    let servers = "127.0.0.1:1: connection refused; 127.0.0.1:2: connection refused";
    eventually("both are said at the start", || said("web", web) == 1 && said("old", servers) == 1);

    let at_hup = at_start + &http("later", nobody) + &memcached("fleet");
    fs::write(&config.path, at_hup.replace("name = \"web\"", "name = \"web\"\nttl = 7")).expect("written");
    server.signal(Signal::SIGHUP);
    eventually("new and changed ones are said at HUP", || {
        said("later", web) == 1 && said("fleet", servers) == 1 && said("web", web) == 2
    });
    let all = server.stderr().matches("the origin cannot be asked now").count();
    assert_eq!(all, 5, "what has not changed is not tried again: {}", server.stderr());
    assert_eq!(there.asked_in_all(), 0);
}

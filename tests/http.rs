//! The HTTP server: items, health, metrics, who may ask, and what bad requests cost.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use filbert::server::metrics::families::{FAMILIES, Kind};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::cluster::{Cluster, STEADY};
use crate::support::http::{Http, encoded};
use crate::support::origin::Origin;
use crate::support::run;
use crate::support::server::{self, Product, Server, eventually, quickly};
use crate::support::shown::{Cut, assert_same};
use crate::support::wire::Wire;

const TOKEN: &str = "0123456789abcdef-token";

fn item(key: &str) -> String {
    format!("/api/v1/items/{key}")
}

/// Bytes that are no text.
#[track_caller]
fn ask(wire: &mut Wire, request: &[u8], reply: &[u8]) {
    wire.send(request);
    assert_same(wire.bytes(reply.len()).expect("it is answered"), reply);
}

#[test]
fn items_are_those_of_memcached_clients() {
    let server = Server::filbert(&[]);
    let (http, mut wire) = (server.http(), server.connect());
    let headers = [("Filbert-Flags", "7"), ("Filbert-Ttl", "1000")];
    assert_eq!(http.ask("PUT", &item("a"), &headers, b"hello\r\n\0\xff").status, 204);
    ask(&mut wire, b"get a\r\n", b"VALUE a 7 9\r\nhello\r\n\0\xff\r\nEND\r\n");

    wire.ask("set b 3 0 5\r\nworld\r\n", "STORED\r\n");
    let read = http.get(&item("b"));
    assert_eq!((read.status, &*read.body), (200, &b"world"[..]));
    assert_eq!((read.header("filbert-flags"), read.header("filbert-ttl")), (Some("3"), None));
    assert_eq!(read.header("content-type"), Some("application/octet-stream"));
    let ttl: u32 = http.get(&item("a")).header("filbert-ttl").expect("it ends").parse().expect("a number");
    assert!((990..=1000).contains(&ttl), "{ttl}");

    assert_eq!(http.delete(&item("b")).status, 204);
    wire.ask("get b\r\n", "END\r\n");
    assert_eq!(http.delete(&item("b")).problem(404), "there is no item under this key");
    assert_eq!(http.get(&item("b")).problem(404), "there is no item under this key");
    assert_eq!(http.put(&item("empty"), b"").status, 204);
    assert_eq!(http.get(&item("empty")).body, b"");
}

#[test]
fn conditions_compare_cas_tokens() {
    let server = Server::filbert(&[]);
    let http = server.http();
    let put = |name: &str, value: &str| http.ask("PUT", &item("a"), &[(name, value)], b"x").status;
    assert_eq!(put("If-Match", "*"), 412, "there is none");
    assert_eq!(put("If-None-Match", "*"), 204);
    assert_eq!(put("If-None-Match", "*"), 412, "there is one");
    let tag = http.get(&item("a")).header("etag").expect("a tag").to_owned();
    let unchanged = http.ask("GET", &item("a"), &[("If-None-Match", &tag)], b"");
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(put("If-Match", &tag), 204);
    assert_eq!(put("If-Match", &tag), 412, "it was written since");
    assert_eq!(http.ask("DELETE", &item("a"), &[("If-Match", &tag)], b"").status, 412);
    assert_eq!(put("If-Match", "*"), 204);
    let get = |tags: &str| http.ask("GET", &item("a"), &[("If-None-Match", tags)], b"").status;
    let tag = http.get(&item("a")).header("etag").expect("a tag").to_owned();
    assert_eq!(get(&format!("\"x\", W/{tag}")), 304, "one of several, weakened on the way");
    assert_eq!(get("\"x\", \"9\""), 200, "none of these");
    assert_eq!(put("If-Match", "\"of another server\""), 412);
    assert_eq!(put("If-Match", &format!("W/{tag}")), 412, "a weak one is not for writing");
    for (name, value) in [
        ("If-Match", "\"1\", \"2\""),
        ("If-Match", "abc"),
        ("If-None-Match", "\"1\""),
        ("Filbert-Flags", "-1"),
        ("Filbert-Ttl", "soon"),
    ] {
        let refused = http.ask("PUT", &item("a"), &[(name, value)], b"x");
        assert!(!refused.problem(400).is_empty());
    }
}

#[test]
fn a_key_may_have_any_byte() {
    let server = Server::filbert(&[]);
    let (http, mut wire) = (server.http(), server.connect());
    for byte in 0..=u8::MAX {
        let path = item(&format!("k%{byte:02X}"));
        assert_eq!(http.put(&path, &[byte]).status, 204, "{byte}");
        assert_eq!(http.get(&path).body, [byte]);
        if byte.is_ascii_graphic() || byte >= 0x80 {
            let mut request = b"get k".to_vec();
            request.extend([byte, b'\r', b'\n']);
            let reply = [b"VALUE k", &[byte][..], b" 0 1\r\n", &[byte], b"\r\nEND\r\n"].concat();
            ask(&mut wire, &request, &reply);
        }
    }
    for (wrong, why) in [("x?y=1", "%3F"), ("%ZZ", "%25"), ("a%2", "%25"), ("100%", "%25")] {
        assert!(http.put(&item(wrong), b"x").problem(400).contains(why), "{wrong}");
    }
    let longest = [b'/'; 250];
    assert_eq!(http.put(&item(&encoded(&longest)), b"x").status, 204);
    assert_eq!(
        http.get(&item(&encoded(&[b'/'; 251]))).problem(400),
        "a key has 1 to 250 bytes, this one 251"
    );
    // As they are, without encoding.
    assert_eq!(http.put(&item("a/b:c@d;e=f,g!h~i"), b"x").status, 204);
    wire.ask("get a/b:c@d;e=f,g!h~i\r\n", "VALUE a/b:c@d;e=f,g!h~i 0 1\r\nx\r\nEND\r\n");
    let listed = http.get("/api/v1/keys?limit=1000").json();
    assert_eq!(listed["examined"], 258, "each key once");
    let paths =
        listed["keys"].as_array().expect("keys").iter().map(|key| key["path"].as_str().expect("a path"));
    for path in paths {
        assert_eq!(http.get(&item(path)).status, 200, "{path}");
    }
}

#[test]
fn keys_are_listed_by_prefix_and_bounded() {
    let server = Server::filbert(&[]);
    let http = server.http();
    for number in 0..50 {
        http.put(&item(&format!("user:{number}")), b"12345");
    }
    http.put(&item("other"), b"");
    let all = http.get("/api/v1/keys?prefix=user%3A").json();
    assert_eq!(all["keys"].as_array().map(Vec::len), Some(50));
    assert_eq!((&all["truncated"], &all["examined"]), (&false.into(), &51.into()));
    assert_eq!(
        (&all["keys"][0]["size_bytes"], &all["keys"][0]["ttl_seconds"]),
        (&5.into(), &serde_json::Value::Null)
    );
    let some = http.get("/api/v1/keys?prefix=user:&limit=3").json();
    assert_eq!((some["keys"].as_array().map(Vec::len), &some["truncated"]), (Some(3), &true.into()));
    http.put(&item("%FF%FE"), b"");
    assert_eq!(http.get("/api/v1/keys?prefix=%FF").json()["keys"][0]["path"], "%FF%FE");
    for wrong in ["limit=0", "limit=10001", "limit=many", "limti=5"] {
        http.get(&format!("/api/v1/keys?{wrong}")).problem(400);
    }
    let kept = Server::filbert(&["-X"]);
    assert_eq!(kept.http().get("/api/v1/keys").problem(403), "listing keys is not allowed here (-X)");
}

#[test]
fn a_node_alone_is_ready_at_once_and_tells_of_itself() {
    let server = Server::filbert(&["-m", "32"]);
    let (http, mut wire) = (server.http(), server.connect());
    assert_eq!(http.get("/healthz").text(), "ok\n");
    assert_eq!(http.get("/readyz").text(), "ready\n");
    wire.ask("set a 0 0 1\r\nx\r\n", "STORED\r\n");
    wire.ask("get a b\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n");
    let cluster = http.get("/api/v1/cluster").json();
    assert_eq!((&cluster["clustered"], &cluster["standing"]), (&false.into(), &"alone".into()));
    assert_eq!(cluster["members"][0]["memcached_addr"], server.addr().to_string());
    let stats = http.get("/api/v1/stats?scope=cluster").json();
    assert_eq!(stats["stats"]["get_hits"], 1);
    assert_eq!(stats["stats"]["limit_maxbytes"], 32 << 20);
    assert_eq!(stats["members"][0]["stats"]["get_misses"], 1);
    let owner = http.get("/api/v1/owner/a").json();
    assert_eq!((&owner["owner"]["here"], &owner["item"]["present"]), (&true.into(), &true.into()));
    http.get("/api/v1/stats?scope=world").problem(400);
}

#[test]
fn metrics_count_what_clients_do() {
    let server = Server::filbert(&["-m", "8", "--memcached-exporter-metrics"]);
    let (http, mut wire) = (server.http(), server.connect());
    wire.ask(
        "set a 0 0 1\r\n1\r\nadd a 0 0 1\r\n2\r\nget a b\r\nincr a 1\r\n",
        "STORED\r\nNOT_STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n2\r\n",
    );
    wire.ask("gets a\r\n", "VALUE a 0 1 2\r\n2\r\nEND\r\n");
    wire.ask(
        "cas a 0 0 1 1\r\nx\r\ncas a 0 0 1 2\r\nx\r\ndelete a\r\nmg a\r\n",
        "EXISTS\r\nSTORED\r\nDELETED\r\nEN\r\n",
    );
    let value = vec![b'x'; 100_000];
    for number in 0..200 {
        wire.send(format!("set fill{number} 0 0 {} noreply\r\n", value.len()).as_bytes());
        wire.send(&value);
        wire.send(b"\r\n");
    }
    wire.ask("mn\r\n", "MN\r\n");

    let metrics = http.metrics();
    let command = |command: &str, result: &str| {
        metrics.value(&format!("filbert_commands_total{{command=\"{command}\",result=\"{result}\"}}"))
    };
    assert_eq!((command("get", "hit"), command("get", "miss")), (2.0, 2.0));
    assert_eq!((command("set", "stored"), command("set", "not_stored")), (201.0, 1.0));
    assert_eq!((command("cas", "stored"), command("cas", "exists")), (1.0, 1.0));
    assert_eq!((command("incr", "hit"), command("delete", "hit")), (1.0, 1.0));
    assert_eq!(metrics.value("filbert_connections_open"), 1.0);
    assert_eq!(metrics.value("filbert_memory_limit_bytes"), 8.0 * 1024.0 * 1024.0);
    let evictions = metrics.value("filbert_evictions_total");
    assert!(evictions > 50.0, "{evictions}");
    assert!(metrics.value("filbert_eviction_age_seconds_count") > 0.0);
    let timed = |command: &str| {
        metrics.value(&format!(
            "filbert_command_duration_seconds_count{{command=\"{command}\",route=\"local\",result=\"ok\"}}"
        ))
    };
    assert!(timed("get") >= 1.0 && timed("set") >= 1.0);
    assert!(metrics.value("process_resident_memory_bytes") > 1e6 && metrics.value("process_open_fds") > 5.0);
    assert_eq!(metrics.value("memcached_commands_total{command=\"get\",status=\"hit\"}"), 2.0);
    assert_eq!(metrics.value("memcached_commands_total{command=\"set\",status=\"hit\"}"), 202.0);
    assert_eq!(metrics.value("memcached_items_evicted_total"), evictions);
    assert_eq!(metrics.value("memcached_up"), 1.0);
    assert!(metrics.find("filbert_cluster_epoch").is_none(), "it is alone");

    // What `stats reset` sets to zero goes on here.
    wire.ask("stats reset\r\n", "RESET\r\n");
    assert_eq!(http.metrics().value("filbert_evictions_total"), evictions);
}

/// Each family is there, is of its kind, and stands in the table of docs/monitoring.md.
#[test]
fn metrics_are_all_there_and_documented() {
    let origin = Origin::start();
    let config = NamedTempFile::new().expect("a temporary file can be made");
    fs::write(config.path(), origin.config("wait = '60s'\nmax-bytes = '2m'")).expect("it can be written");
    let config = ["--config", config.path().to_str().expect("UTF-8")];
    let cluster = Cluster::start_with(2, &[&STEADY[..], &config].concat());
    let mut wire = cluster.nodes[0].connect();
    for number in 0..100 {
        wire.ask(&format!("set key{number} 0 0 1\r\nx\r\nget g:{number}\r\n"), "STORED\r\nEND\r\n");
    }
    let metrics = cluster.nodes[0].http().metrics();
    let families = metrics.families();
    let document = include_str!("../docs/monitoring.md");
    for family in FAMILIES {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert!(families.contains(&(family.name, kind)), "{} is not there", family.name);
        let labels = if family.labels.is_empty() { String::new() } else { format!("`{}`", family.labels) };
        let row = format!("| `{}` | {labels} |", family.name);
        assert!(document.contains(&row), "docs/monitoring.md lacks the row {row} {} |", family.help);
    }
    for (name, _) in &families {
        let known = FAMILIES.iter().any(|family| family.name == *name) || name.starts_with("process_");
        assert!(known, "{name} is not in the table of families");
    }
    let forwarded = metrics.sum("filbert_forwarded_operations_total");
    let answered = metrics.value("filbert_forwarded_operations_total{peer=\"node-2\",result=\"answered\"}");
    assert!(answered > 10.0 && forwarded == answered, "{answered} of {forwarded}");
    assert!(metrics.value("filbert_forward_duration_seconds_count{peer=\"node-2\"}") >= 1.0);
    let forwarded = "{command=\"set\",route=\"forwarded\",result=\"ok\"}";
    assert!(metrics.value(&format!("filbert_command_duration_seconds_count{forwarded}")) >= 1.0);
    eventually("the other has answered a ping", || {
        cluster.nodes[0].http().metrics().value("filbert_peer_reachable{peer=\"node-2\"}") == 1.0
    });
    assert_eq!(metrics.value("filbert_cluster_members"), 2.0);
    assert_eq!(metrics.value("filbert_cluster_standing{standing=\"serving\"}"), 1.0);
    assert_eq!(metrics.value("filbert_etcd_connected"), 1.0);
    assert!(metrics.value("filbert_etcd_lease_remaining_seconds") > 0.0);
    let executed = cluster.nodes[1].http().metrics().value("filbert_peer_operations_total");
    assert_eq!(executed, answered);
}

#[test]
fn items_of_a_cluster_are_had_through_any_node() {
    let cluster = Cluster::steady(3);
    let nodes: Vec<Http> = cluster.nodes.iter().map(|node| node.http()).collect();
    for number in 0..30 {
        let (path, value) = (item(&format!("key{number}")), number.to_string());
        assert_eq!(nodes[number % 3].put(&path, value.as_bytes()).status, 204);
        assert!(nodes.iter().all(|node| node.get(&path).body == value.as_bytes()));
        let owners: Vec<_> =
            nodes.iter().map(|node| node.get(&format!("/api/v1/owner/key{number}")).json()).collect();
        assert!(
            owners.iter().all(|owner| owner["owner"]["id"] == owners[0]["owner"]["id"]),
            "{:?}",
            Cut(&owners)
        );
        assert!(owners.iter().all(|owner| owner["item"]["size_bytes"] == value.len()), "{:?}", Cut(&owners));
        assert_eq!(owners.iter().filter(|owner| owner["owner"]["here"] == true).count(), 1);
        assert_eq!(nodes[(number + 1) % 3].delete(&path).status, 204);
        assert_eq!(nodes[(number + 2) % 3].get(&path).status, 404);
    }
    let cluster = nodes[0].get("/api/v1/cluster").json();
    assert_eq!((&cluster["settled"], &cluster["serving"]), (&true.into(), &true.into()));
    let members = cluster["members"].as_array().expect("members");
    assert_eq!(members.len(), 3);
    let share: f64 = members.iter().map(|member| member["share"].as_f64().expect("a share")).sum();
    assert!((share - 1.0).abs() < 1e-9, "{share}");
    assert!(
        members[0]["forward"].is_null() && members[1]["forward"]["sent"].as_u64() > Some(0),
        "{:?}",
        Cut(members)
    );
}

#[test]
fn an_owner_that_is_gone_is_a_problem_and_readiness_follows_the_cluster() {
    // Two requests wait for the owner before others take its place.
    let mut cluster = Cluster::start_with(3, &["--lease-ttl", "5", "--peer-timeout", "500"]);
    let http = cluster.nodes[0].http();
    let of_third = (0..)
        .map(|number| format!("key{number}"))
        .find(|key| http.get(&format!("/api/v1/owner/{key}")).json()["owner"]["id"] == "node-3")
        .expect("it owns a third");
    cluster.nodes[2].stop();
    let refused = http.put(&item(&of_third), b"x");
    assert!(matches!(refused.status, 503 | 504), "{}", Cut(refused.text()));
    assert!(refused.problem(refused.status).starts_with("the owner of this key"));
    let read = http.get(&item(&of_third));
    assert!(matches!(read.status, 503 | 504), "a miss would be a lie here");
    eventually("the peer is seen to be unreachable", || {
        http.metrics().find("filbert_peer_reachable{peer=\"node-3\"}") == Some(0.0)
    });
    eventually("its keys are served again", || http.put(&item(&of_third), b"x").status == 204);
    assert_eq!(http.metrics().value("filbert_cluster_members"), 2.0);

    cluster.etcd.signal(Signal::SIGSTOP);
    let joining = cluster.add();
    let joining = cluster.nodes[joining].http();
    assert_eq!(joining.get("/readyz").problem(503), "this node has not joined its cluster yet");
    assert_eq!(joining.get("/healthz").status, 200);
    assert_eq!(joining.get(&item("a")).problem(503), "this node has not joined its cluster yet");
    eventually("etcd's silence shows", || http.metrics().value("filbert_etcd_connected") == 0.0);
    assert_eq!(http.get("/readyz").status, 200, "it serves without etcd");
    cluster.etcd.signal(Signal::SIGCONT);
}

#[test]
fn a_token_is_asked_for_where_there_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, format!("{TOKEN}\n")).expect("written");
    let server = Server::filbert(&["--http-token-file", path.to_str().expect("a path")]);
    let http = server.http();
    for open in ["/", "/healthz", "/readyz"] {
        assert_eq!(http.get(open).status, 200, "{open}");
    }
    for closed in ["/metrics", "/api/v1/cluster", "/api/v1/items/a", "/api/v1/openapi.json", "/nothing"] {
        let refused = http.get(closed);
        assert!(!refused.problem(401).contains(TOKEN), "{closed}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"filbert\""));
        assert_eq!(http.with_token("wrong").get(closed).status, 401, "{closed}");
    }
    let allowed = http.with_token(TOKEN);
    assert_eq!(allowed.get("/metrics").status, 200);
    assert_eq!(allowed.put(&item("a"), b"x").status, 204);
    // Whoever has the token may call the node what they like.
    assert_eq!(allowed.ask("GET", &item("a"), &[("Host", "cache.example")], b"").status, 200);
    let ended = run::filbert(&["--http-listen", "0.0.0.0:0"]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("needs --http-token-file"), "{}", ended.stderr);
}

#[test]
fn what_clients_need_a_password_for_is_not_to_be_had_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users");
    std::fs::write(&path, "ann:apple\n").expect("written");
    let server = Server::filbert(&["-Y", path.to_str().expect("a path")]);
    let http = server.http();
    for data in ["/api/v1/items/a", "/api/v1/keys", "/api/v1/owner/a"] {
        assert!(http.get(data).problem(403).contains("--http-token-file"), "{data}");
    }
    assert_eq!(http.get("/metrics").status, 200);
}

/// A page from elsewhere may lead a name of its own to this machine.
#[test]
fn other_names_are_not_answered_without_a_token() {
    let server = Server::filbert(&[]);
    let http = server.http();
    for (host, status) in [("evil.example", 421), ("localhost:1", 200), ("[::1]", 200), ("127.0.0.1", 200)] {
        assert_eq!(http.ask("GET", "/api/v1/cluster", &[("Host", host)], b"").status, status, "{host}");
    }
}

#[test]
fn the_page_runs_its_own_script_alone() {
    let server = Server::filbert(&[]);
    let page = server.http().get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn bad_requests_get_their_status() {
    let server = Server::filbert(&["-I", "100k"]);
    let http = server.http();
    http.get("/nothing").problem(404);
    http.get("/api/v1/items/").problem(404);
    let refused = http.ask("POST", "/healthz", &[], b"");
    refused.problem(405);
    assert_eq!(refused.header("allow"), Some("GET,HEAD"));
    assert!(http.put(&item("a"), &vec![b'x'; 200_000]).problem(413).contains("102400 bytes (-I)"));
    assert!(http.put(&item("a"), &vec![b'x'; 102_400]).problem(413).contains("too large"), "with its header");
    for (request, status) in [
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("NONSENSE\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(), "400"),
        ("GET /healthz HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(), "400"),
        // Before HTTP/1.1 there was no Host.
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("PUT /api/v1/items/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n".to_owned(), "400"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000)), "4"),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(20_000)), "431"),
        // Never announced how long.
        (
            format!(
                "PUT /api/v1/items/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n{}",
                "x".repeat(200_000)
            ),
            "413",
        ),
    ] {
        let mut wire = Wire::connect(http.addr);
        // What is too long may be refused before all of it was sent.
        _ = wire.try_send(request.as_bytes());
        let line = String::from_utf8(wire.line().expect("it is answered")).expect("text");
        assert!(
            line.starts_with(&format!("HTTP/1.1 {status}"))
                || line.starts_with(&format!("HTTP/1.0 {status}")),
            "{}: {line}",
            &request[..40.min(request.len())]
        );
    }
    assert_eq!(http.get("/healthz").status, 200);
}

/// A slow client holds up nobody, and its connection is closed in time.
#[test]
fn slow_requests_end() {
    let server = Server::filbert(&[]);
    let http = server.http();
    let mut heads: Vec<Wire> = (0..150).map(|_| Wire::connect(http.addr)).collect();
    // Some have been ended already.
    heads.iter_mut().for_each(|wire| _ = wire.try_send(b"GET /healthz HTTP/1.1\r\nHost: "));
    assert_eq!(http.get("/healthz").status, 200);
    assert!(!heads[149].has_input(), "the last ones dawdle on meanwhile");
    drop(heads);

    let (mut head, mut body) = (Wire::connect(http.addr), Wire::connect(http.addr));
    head.send(b"GET /healthz HTTP/1.1\r\nHost: ");
    body.send(b"PUT /api/v1/items/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf");
    let line = |wire: &mut Wire| String::from_utf8(wire.line().expect("it ends in time")).expect("text");
    assert_eq!(line(&mut head), "", "closed without a word");
    let line = line(&mut body);
    assert!(line.starts_with("HTTP/1.1 408"), "{line}");
    server.connect().ask("get a\r\n", "END\r\n");
    let refused = || http.metrics().value("filbert_http_requests_total{code=\"4xx\"}");
    assert_eq!(refused(), 1.0, "the body's");
    let mut nonsense = Wire::connect(http.addr);
    nonsense.send(b"NONSENSE\r\n\r\n");
    assert!(nonsense.line().expect("it is answered").starts_with(b"HTTP/1.1 400"));
    eventually("it is counted", || refused() == 2.0);
}

#[test]
fn a_stop_ends_what_is_idle_at_once() {
    // As long as there is for requests that are under way.
    quickly("a stop", Duration::from_secs(2), || {
        let mut server = Server::filbert(&[]);
        let http = server.http();
        assert_eq!(http.get("/healthz").status, 200, "and its connection stays open");
        let _silent = Wire::connect(http.addr);
        let began = Instant::now();
        server.signal(Signal::SIGTERM);
        assert!(server.wait_exit().success());
        began.elapsed()
    });
}

#[test]
fn the_usual_address_is_done_without_and_another_is_not() {
    // It is taken, whichever process has it.
    let taken = TcpListener::bind("127.0.0.1:11280");
    let mut command = server::command(Product::Filbert, &[]);
    command.env_remove("FILBERT_HTTP_LISTEN");
    let mut without = Server::spawn_as(Product::Filbert, command, &["-l", "127.0.0.1"]);
    let port = without.await_ports()[0];
    assert!(
        without.stderr().contains("cannot listen on 127.0.0.1:11280: Address"),
        "{}",
        Cut(without.stderr())
    );
    Wire::connect(([127, 0, 0, 1], port).into()).ask("get a\r\n", "END\r\n");
    drop(taken);

    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = other.local_addr().expect("bound").to_string();
    let ended = run::filbert(&["-p", "-1", "-u", "root", "--http-listen", &addr]);
    assert_eq!(ended.code, Some(71), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&format!("cannot listen for HTTP on {addr} (--http-listen)")),
        "{}",
        ended.stderr
    );

    let mut off = Server::spawn(Product::Filbert, &["-l", "127.0.0.1", "--http-listen", "off"]);
    off.await_ports();
    assert!(!off.port_file().contains("HTTP"), "{}", Cut(off.port_file()));
}

/// Whoever looks after an incident still sees it: the member that is missing, what failed and how long it took,
/// apart from what succeeded.
#[test]
fn an_incident_is_remembered() {
    // Long enough for a look at the members, once a second, to find one of them silent.
    let mut cluster = Cluster::start_with(3, &["--lease-ttl", "5"]);
    let http = cluster.nodes[0].http();
    let (lost, kept) = (cluster.key_owned_by(2), cluster.key_owned_by(0));
    let mut wire = cluster.nodes[0].connect();
    let addr = cluster.nodes[2].addr().to_string();
    cluster.nodes[2].kill9();
    wire.send(format!("set {lost} 0 0 1\r\nx\r\n").as_bytes());
    let line = String::from_utf8(wire.line().expect("it is answered")).expect("text");
    assert!(line.starts_with("SERVER_ERROR"), "{line}");
    wire.ask(&format!("get {lost}\r\n"), "END\r\n");
    wire.ask(&format!("set {kept} 0 0 1\r\nx\r\n"), "STORED\r\n");

    let past = || http.get("/api/v1/history?scope=cluster").json();
    let has = |past: &Value, text: &str| {
        let events = past["events"].as_array().expect("events");
        events.iter().any(|event| event["text"].as_str().is_some_and(|said| said.contains(text)))
    };
    eventually("the loss is told", || !past()["gone"].as_array().expect("a list").is_empty());
    let past = past();
    let gone = &past["gone"][0];
    assert_eq!(
        (&gone["id"], &gone["memcached_addr"], &gone["lost"]),
        (&"node-3".into(), &addr.into(), &true.into())
    );
    for text in ["node-3 does not answer", "node-3 was lost", "with 2 members", "Commands fail"] {
        assert!(has(&past, text), "{text}: {past}");
    }
    let trouble = &past["troubles"][0];
    assert_eq!((&trouble["kind"], &trouble["count"]), (&"commands".into(), &2.into()), "{trouble}");
    for scope in ["samples", "cluster"] {
        let samples = past[scope].as_array().expect("samples");
        let sum =
            |name: &str| samples.iter().map(|sample| sample[name].as_f64().expect("a number")).sum::<f64>();
        assert!(sum("failed_writes") > 0.0 && sum("unavailable_reads") > 0.0, "{scope}: {samples:?}");
    }
    let any = |name: &str| {
        past["samples"].as_array().expect("samples").iter().any(|sample| sample[name].is_number())
    };
    assert!(any("p99") && any("failed_p99"), "{past}");
    assert_eq!(past["unanswered"], Value::Array(Vec::new()), "a node outside of the view is not asked");

    let metrics = http.metrics();
    let unavailable = |kind| metrics.value(&format!("filbert_unavailable_commands_total{{kind=\"{kind}\"}}"));
    assert_eq!((unavailable("read"), unavailable("write")), (1.0, 1.0));
    let timed = |result: &str| -> f64 {
        let routes = ["local", "forwarded"].iter();
        let series = routes.map(|route| format!("{{command=\"set\",route=\"{route}\",result=\"{result}\"}}"));
        series.map(|labels| metrics.value(&format!("filbert_command_duration_seconds_count{labels}"))).sum()
    };
    assert_eq!((timed("ok"), timed("failed")), (1.0, 1.0));

    let stats = http.get("/api/v1/stats?scope=cluster").json();
    let page = &stats["members"][1]["stats"]["http_addr"];
    assert_eq!(*page, cluster.nodes[1].http().addr.to_string(), "members know of each other's pages");
    assert!(http.get("/api/v1/history?seconds=2").json()["samples"].as_array().expect("samples").len() <= 2);
    http.get("/api/v1/history?seconds=soon").problem(400);
}

/// However many requests come over HTTP, clients of the cache do not wait for them.
#[test]
fn many_ask_at_once() {
    let server = Server::filbert(&[]);
    let http = server.http();
    thread::scope(|scope| {
        for asker in 0..8 {
            let http = &http;
            scope.spawn(move || {
                for number in 0..50 {
                    let path = item(&format!("{asker}-{number}"));
                    assert_eq!(http.put(&path, b"x").status, 204);
                    assert_eq!(http.get("/metrics").status, 200);
                    assert_eq!(http.get(&path).body, b"x");
                }
            });
        }
    });
    let requests = http.metrics().value("filbert_http_requests_total{code=\"2xx\"}");
    assert_eq!(requests, 8.0 * 50.0 * 3.0);
}

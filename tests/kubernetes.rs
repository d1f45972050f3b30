//! `docs/kubernetes.yaml`, as far as it can be tested without Kubernetes: it is valid, and what it says to Filbert is what
//! Filbert takes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::python::{self, documents};
use crate::support::run;
use crate::support::server::Server;

const FILE: &str = "docs/kubernetes.yaml";

#[test]
fn kubernetes_takes_the_manifests() {
    python::run("..", &["-m", "kubernetes_validate", "--strict", FILE], python::Server::Filbert);
}

#[test]
fn filbert_takes_its_arguments() {
    let container = container(&stateful_set());
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    fs::write(dir.path().join("token"), "0123456789abcdef").expect("it can be written");
    let args = container["args"].as_array().expect("a list").iter();
    let args = args.map(|word| {
        let word = word.as_str().expect("text").replace("$(POD)", "filbert-0");
        word.replace("/etc/filbert/", &format!("{}/", dir.path().display()))
    });
    let args: Vec<_> = std::iter::once("--check".to_owned()).chain(args).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let ended = run::filbert_in(&[], &[], &args);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_node_has_the_time_to_hand_over() {
    let set = stateful_set();
    let text = run::filbert(&["--help"]).stdout;
    let (_, help) = text.split_once("--drain-timeout").expect("there is such an option");
    let (_, default) = help.split_once("(default: ").expect("it has a default");
    let drain: u64 = default.split(')').next().and_then(|number| number.parse().ok()).expect("seconds");
    let grace = set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64();
    assert!(grace.expect("a number") >= drain + 10, "{grace:?} {drain}");
}

#[test]
fn probes_need_no_token() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let token = dir.path().join("token");
    fs::write(&token, "0123456789abcdef").expect("it can be written");
    let server = Server::filbert(&["--http-token-file", token.to_str().expect("UTF-8")]);
    let container = container(&stateful_set());
    for probe in ["readinessProbe", "livenessProbe"] {
        let path = container[probe]["httpGet"]["path"].as_str().expect("a path");
        assert_eq!(server.http().get(path).status, 200, "{path}");
    }
}

fn stateful_set() -> Value {
    let all = documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE));
    let sets = all.as_array().expect("a list").iter().filter(|document| document["kind"] == "StatefulSet");
    let [set] = sets.collect::<Vec<_>>()[..] else { panic!("one of them") };
    set.clone()
}

fn container(set: &Value) -> Value {
    set["spec"]["template"]["spec"]["containers"][0].clone()
}

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
    let said = python::said(&["-m", "kubernetes_validate", "--strict", FILE]);
    // It passes over what it has no schema for.
    let passed = said.lines().filter(|line| line.starts_with("INFO ") && line.contains(" passed for "));
    assert_eq!(passed.count(), manifests().len(), "{said}");
}

#[test]
fn the_parts_know_each_other() {
    let set = stateful_set();
    let labels = &set["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&set["spec"]["selector"]["matchLabels"], labels);
    let manifests = manifests();
    let of_kind = |kind: &str| manifests.iter().filter(|it| it["kind"] == kind).collect::<Vec<_>>();
    for service in of_kind("Service") {
        assert_eq!(&service["spec"]["selector"], labels, "{service}");
    }
    for budget in of_kind("PodDisruptionBudget") {
        assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    }
    let container = container(&set);
    let args: Vec<_> =
        container["args"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let option = |name: &str| {
        let value = args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name} is missing"))
    };
    let port = |name: &str| {
        let ports = container["ports"].as_array().expect("a list");
        let port = ports.iter().find(|port| port["name"] == name).expect("it is told of");
        port["containerPort"].as_u64().expect("a number")
    };
    // Under this service each node has a name.
    let host = format!("$(POD).{}", set["spec"]["serviceName"].as_str().expect("text"));
    assert_eq!(option("--peer-advertise"), format!("{host}:{}", port("peers")));
    assert_eq!(option("--advertise"), format!("{host}:{}", port("memcached")));
    assert_eq!(option("--peer-listen"), format!("0.0.0.0:{}", port("peers")));
    assert_eq!(option("--http-listen"), format!("0.0.0.0:{}", port("http")));
    for service in of_kind("Service") {
        for wanted in service["spec"]["ports"].as_array().expect("a list") {
            assert_eq!(wanted["port"].as_u64(), Some(port(wanted["name"].as_str().expect("text"))));
        }
    }
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

fn manifests() -> Vec<Value> {
    let all = documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE));
    all.as_array().expect("a list").clone()
}

fn stateful_set() -> Value {
    let set = manifests().into_iter().find(|manifest| manifest["kind"] == "StatefulSet");
    set.expect("there is one")
}

fn container(set: &Value) -> Value {
    set["spec"]["template"]["spec"]["containers"][0].clone()
}

//! `docker-compose.yml` and the `Dockerfile`, as far as they can be tested without Docker: they are read as Docker
//! reads them, and every command line in them is one that its program takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::child::program;
use crate::support::python::yaml;
use crate::support::run;
use crate::support::server::Server;
use crate::support::site::Site;

/// Where clients and other nodes reach a node inside the network.
const CLIENTS: &str = "11211";
const PEERS: &str = "11212";
/// And a browser.
const PAGE: &str = "11280";

#[test]
fn docker_compose_takes_the_file() {
    let output = Command::new(program("docker-compose", "docker-compose"))
        .args(["--file", "docker-compose.yml", "config", "--quiet"])
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .expect("docker-compose starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", output.status);
}

#[test]
fn every_node_has_a_configuration_that_can_be_used() {
    let image = image_variables();
    let image: Vec<_> = image.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    for node in nodes() {
        let command = node.command.iter().map(|word| with_files_of_this_machine(word));
        let args: Vec<_> = std::iter::once("--check".to_owned()).chain(command).collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let ended = run::filbert_in(&[], &image, &args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", node.name);
        // The names of the network are known inside alone.
        let is_expected = |line: &&str| !line.contains(": the name is not known here: ");
        let said: Vec<_> = ended.stdout.lines().filter(is_expected).collect();
        assert_eq!(said, ["the configuration can be used"], "{}: without a warning", node.name);
    }
}

#[test]
fn nodes_are_told_where_each_other_and_etcd_are() {
    let etcd = services().into_iter().find(|service| service.name == "etcd").expect("there is an etcd");
    let asked = format!("etcd:{}", port_of(&etcd.option("--listen-client-urls")));
    assert_eq!(etcd.option("--advertise-client-urls"), format!("http://{asked}"));

    let nodes = nodes();
    assert_eq!(nodes.len(), 3);
    let mut published = BTreeSet::new();
    for node in &nodes {
        // The name of a service is its address in the network.
        assert_eq!(node.option("--node-id"), node.name);
        assert_eq!(node.value["hostname"], node.name.as_str());
        assert_eq!(node.option("--etcd-endpoints"), asked);
        assert_eq!(node.value["depends_on"], Value::from(vec!["etcd"]));
        assert_eq!(node.option("--peer-advertise"), format!("{}:{PEERS}", node.name));
        assert_eq!(node.option("--peer-listen"), format!("0.0.0.0:{PEERS}"));
        assert_eq!(node.option("--advertise"), format!("{}:{CLIENTS}", node.name));
        assert_eq!(node.option("--http-listen"), format!("0.0.0.0:{PAGE}"));
        let ports = node.value["ports"].as_array().expect("a list");
        let port = |place: usize| {
            let port =
                ports[place].as_str().and_then(|port| port.strip_prefix("127.0.0.1:")?.split_once(':'));
            port.expect("published on this machine alone")
        };
        let ((clients, container_port), (page, inside)) = (port(0), port(1));
        assert_eq!((ports.len(), container_port, inside), (2, CLIENTS, PAGE));
        assert_eq!(node.option("--http-advertise"), format!("127.0.0.1:{page}"), "where a browser is");
        for outside in [clients, page] {
            assert!(published.insert(outside.to_owned()), "{outside} twice");
        }
    }
}

/// The image's health check, as Docker runs it in there: against a node that is ready, and against none.
#[test]
fn the_health_check_tells_whether_clients_may_be_sent_there() {
    let dockerfile = read("Dockerfile");
    let (_, check) = dockerfile.split_once("\nHEALTHCHECK ").expect("there is one");
    let (_, command) = check.split_once("CMD ").expect("a command");
    let command: Vec<String> =
        serde_json::from_str(command.lines().next().expect("a line")).expect("the form without a shell");
    let server = Server::filbert(&[]);
    let ask = |port: u16| {
        let words: Vec<_> = command
            .iter()
            .map(|word| {
                word.replace(&format!("/dev/tcp/127.0.0.1/{PAGE}"), &format!("/dev/tcp/127.0.0.1/{port}"))
            })
            .collect();
        assert_ne!(words, command, "it asks at the usual port");
        let asked =
            Command::new(program(&words[0], &words[0])).args(&words[1..]).stderr(Stdio::null()).status();
        asked.expect("it starts").success()
    };
    assert!(ask(server.http().addr.port()));
    assert!(!ask(Site::localhost().free_port()));
}

#[test]
fn etcd_knows_its_options() {
    let etcd = services().into_iter().find(|service| service.name == "etcd").expect("there is an etcd");
    let help = Command::new(program("etcd", "etcd-server")).arg("--help").output().expect("etcd starts");
    let help = format!("{}{}", String::from_utf8_lossy(&help.stdout), String::from_utf8_lossy(&help.stderr));
    let (program, options) = etcd.command.split_first().expect("a command");
    // The image has no entry point.
    assert_eq!(program, "/usr/local/bin/etcd");
    for option in options {
        let name = option.split('=').next().unwrap_or_default();
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
    }
    assert_ne!(etcd.value["image"].as_str().and_then(|image| image.rsplit(':').next()), Some("latest"));
}

#[test]
fn the_image_is_built_with_the_toolchain_of_this_repository_and_runs_where_it_was_built() {
    let dockerfile = read("Dockerfile");
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().expect("TOML");
    let channel = toolchain["toolchain"]["channel"].as_str().expect("text");
    let images: Vec<_> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    // A binary that was linked on a newer Debian does not start on an older one.
    assert_eq!(images, [&format!("rust:{channel}-bookworm AS build"), "debian:bookworm-slim"]);
    assert!(dockerfile.contains(&format!("\nENV RUSTUP_TOOLCHAIN={channel}\n")), "{dockerfile}");
    assert!(dockerfile.contains(&format!("\nEXPOSE {CLIENTS} {PEERS}\n")), "{dockerfile}");
    // For those who start memcached by its name.
    assert!(dockerfile.contains("\nRUN ln -s filbert /usr/local/bin/memcached\n"), "{dockerfile}");
    // What is behind it on `docker run` and in `command:` are options.
    assert!(dockerfile.contains("\nENTRYPOINT [\"filbert\"]\n"), "{dockerfile}");
}

/// A service of the file.
struct Service {
    name: String,
    value: Value,
    command: Vec<String>,
}

impl Service {
    /// The value of `--name=value` in its command.
    fn option(&self, name: &str) -> String {
        let value = self.command.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{} has no {name}", self.name)).to_owned()
    }
}

fn services() -> Vec<Service> {
    let file = yaml(&root().join("docker-compose.yml"));
    let services = file["services"].as_object().expect("a table").clone();
    let service = |(name, value): (String, Value)| {
        let command = value["command"].as_array().expect("a list");
        let command = command.iter().map(|word| word.as_str().expect("text").to_owned()).collect();
        Service { name, value, command }
    };
    services.into_iter().map(service).collect()
}

/// A word of a command with the file on this machine where it names one that is mounted.
fn with_files_of_this_machine(word: &str) -> String {
    let Some((option, secret)) = word.split_once("=/run/secrets/") else { return word.to_owned() };
    let file = yaml(&root().join("docker-compose.yml"));
    let path = file["secrets"][secret]["file"].as_str().expect("a file");
    format!("{option}={}", root().join(path).display())
}

/// The services that are built here.
fn nodes() -> Vec<Service> {
    services().into_iter().filter(|service| service.value["build"] == ".").collect()
}

/// What the image sets for Filbert.
fn image_variables() -> Vec<(String, String)> {
    let dockerfile = read("Dockerfile");
    let variables = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV FILBERT_")?.split_once('='));
    let variables: Vec<_> =
        variables.map(|(name, value)| (format!("FILBERT_{name}"), value.to_owned())).collect();
    assert!(!variables.is_empty(), "nobody would reach a container's own 127.0.0.1");
    variables
}

fn port_of(url: &str) -> &str {
    url.rsplit(':').next().unwrap_or_default()
}

fn read(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

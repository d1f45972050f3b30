//! The documents: their examples, run as they stand there, in a shell, against a real cluster, show what comes; and their
//! links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::child::program;
use crate::support::cluster::Cluster;
use crate::support::tree::files_below;

/// What differs from run to run: times, addresses, and what counts changes of a cluster.
const VOLATILE: [&str; 6] = ["epoch", "etag", "filbert-ttl", "memcached_addr", "owner_addr", "ttl_seconds"];

/// Tokens have the epoch in the bits above these.
const EPOCH_SHIFT: u32 = 40;

/// A command with what is shown to come of it.
#[derive(Debug)]
struct Example {
    command: String,
    shown: Vec<String>,
}

#[test]
fn the_examples_of_the_http_api_show_what_comes() {
    let (cluster, examples) =
        (Cluster::start(3), examples(include_str!("../docs/http-api.md"), "# HTTP API"));
    assert!(examples.len() >= 4, "{examples:?}");
    let (mut told, mut came) = (Values::default(), Values::default());
    for example in &examples {
        let output = run(&cluster, &example.command);
        told.read(&example.shown);
        came.read(&output);
        assert_eq!(stable(&example.shown), stable(&output), "{}", example.command);
    }
    for values in [told, came] {
        assert_eq!(values.etags.len(), 1, "{values:?}");
        let epochs: BTreeSet<u64> = values.etags.iter().map(|etag| etag >> EPOCH_SHIFT).collect();
        assert_eq!(epochs, values.epochs, "a token has the epoch of its owner");
    }
}

#[test]
fn the_examples_of_a_cluster_show_what_comes() {
    let (cluster, examples) =
        (Cluster::start(3), examples(include_str!("../README.md"), "Set a key on one node"));
    assert_eq!(examples.len(), 2, "{examples:?}");
    for example in &examples {
        assert_eq!(stable(&example.shown), stable(&run(&cluster, &example.command)), "{}", example.command);
    }
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = files_below(&root.join("docs"), "md", |_| false);
    let docs = docs.iter().map(|path| path.strip_prefix(root).expect("it was found there").to_owned());
    let others = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(PathBuf::from);
    let mut dead = Vec::new();
    for document in docs.chain(others) {
        let text = fs::read_to_string(root.join(&document)).expect("it was listed");
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let folder = root.join(&document).parent().expect("a file is in a folder").to_owned();
            let target = if file.is_empty() { root.join(&document) } else { folder.join(file) };
            let is_there = heading.is_empty() && target.exists()
                || fs::read_to_string(&target)
                    .is_ok_and(|text| anchors(&text).any(|anchor| anchor == heading));
            if !is_there {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn bounds_are_where_the_document_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/design/bounds.md")).expect("it is there");
    let sources: Vec<_> = files_below(&root.join("src"), "rs", |_| false)
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).expect("it was listed")))
        .collect();
    let rows = document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what |"));
    let mut wrong = Vec::new();
    let mut constants = 0;
    for place in rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next()) {
        let mut file = "";
        for name in place.split('`').skip(1).step_by(2) {
            if name.ends_with(".rs") {
                file = name;
                if !sources.iter().any(|(path, _)| path.ends_with(file)) {
                    wrong.push(format!("{file}: no such file"));
                }
            } else if name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_') {
                constants += 1;
                let is_there = sources
                    .iter()
                    .any(|(path, text)| path.ends_with(file) && text.contains(&format!("const {name}:")));
                if !is_there {
                    wrong.push(format!("{file}: no constant {name}"));
                }
            }
        }
    }
    assert!(constants > 50, "the table was not read: {constants} constants");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Where a document's links to others lead, and to its own headings.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    targets.filter(|target| !target.contains("://"))
}

/// What headings are called in links, as GitHub makes it.
fn anchors(text: &str) -> impl Iterator<Item = String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|heading| {
        let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        words.chars().filter(|&letter| letter.is_alphanumeric() || letter == '-').collect()
    })
}

/// The commands of the first console block behind a line that begins so.
fn examples(document: &str, line: &str) -> Vec<Example> {
    let document = format!("\n{document}");
    let (_, rest) = document.split_once(&format!("\n{line}")).expect("there is such a line");
    let (_, rest) = rest.split_once("```console\n").expect("a block");
    let (block, _) = rest.split_once("```").expect("an end");
    let mut examples: Vec<Example> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (Some(command), _) => examples.push(Example { command: command.to_owned(), shown: Vec::new() }),
            (None, Some(example)) => example.shown.push(line.to_owned()),
            (None, None) => panic!("{line} comes of no command"),
        }
    }
    examples
}

/// What a command prints, with the addresses of this cluster for those of `local-cluster`.
fn run(cluster: &Cluster, command: &str) -> Vec<String> {
    for (name, package) in [("curl", "curl"), ("nc", "netcat-openbsd")] {
        program(name, package);
    }
    let mut here = command.to_owned();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let (clients, http) = (node.addr(), node.http().addr);
        here = here.replace(
            &format!("nc 127.0.0.1 {}", 11211 + number),
            &format!("nc {} {}", clients.ip(), clients.port()),
        );
        here = here.replace(&format!("http://127.0.0.1:{}/", 11280 + number), &format!("http://{http}/"));
    }
    assert_ne!(here, command, "it asks a node");
    // What curl tells of its progress is for terminals.
    let here = here.replace("curl ", "curl --silent --show-error ");
    let output = Command::new("bash").args(["-c", &here]).output().expect("bash starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{here}: {said}");
    // What has no line end is followed by the next prompt.
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// Lines without what differs from run to run.
fn stable(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| stable_line(line)).collect()
}

fn stable_line(line: &str) -> String {
    if let Ok(mut value) = serde_json::from_str::<Value>(line)
        && value.is_object()
    {
        blank(&mut value);
        return value.to_string();
    }
    let stat = line.strip_prefix("STAT ").and_then(|stat| stat.split_once(' '));
    match stat.or_else(|| line.split_once(": ")) {
        Some((name, _)) if VOLATILE.contains(&name) || name == "date" => format!("{name} ..."),
        _ => line.to_owned(),
    }
}

fn blank(value: &mut Value) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        if VOLATILE.contains(&name.as_str()) {
            *value = Value::String("...".to_owned());
        } else {
            blank(value);
        }
    }
}

/// What must fit together within one run.
#[derive(Debug, Default)]
struct Values {
    etags: BTreeSet<u64>,
    epochs: BTreeSet<u64>,
}

impl Values {
    fn read(&mut self, lines: &[String]) {
        for line in lines {
            if let Some(etag) = line.strip_prefix("etag: ") {
                self.etags.insert(etag.trim_matches('"').parse().expect("a token is a number"));
            }
            if let Ok(value) = serde_json::from_str::<Value>(line) {
                self.epochs.extend(value["epoch"].as_u64());
            }
        }
    }
}

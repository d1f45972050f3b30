//! The dashboard and the alerts of `grafana/`, held against a real Prometheus that scrapes a real cluster.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::support::cluster::{Cluster, STEADY};
use crate::support::http::Http;
use crate::support::origin::Origin;
use crate::support::prometheus::{Prometheus, promtool};
use crate::support::server::{always, eventually};
use crate::support::shown::Cut;
use crate::support::site::Site;
use crate::support::wire::DEADLINE;

mod alerts;
mod load;

use load::Load;

/// Little memory, so that items are evicted, and values that are too large.
const LITTLE: [&str; 4] = ["-m", "2", "-I", "4k"];

/// The rules as they are, but in force after this time instead of minutes.
fn rules(pending: &str) -> String {
    let wait = |line: &str| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: {pending}\n"),
        _ => format!("{line}\n"),
    };
    file("grafana/alerts.yml").lines().map(wait).collect()
}

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&file("grafana/dashboards/filbert.json")).expect("the dashboard is JSON")
}

/// Each panel with each of its expressions, and the annotations' expressions.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let panels = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (text(&panel["title"]), text(&target["expr"])))
    });
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
    let annotations = annotations.map(|annotation| (text(&annotation["name"]), text(&annotation["expr"])));
    panels.chain(annotations).filter(|(_, expr)| !expr.is_empty()).collect()
}

/// What Grafana makes of an expression when everything is chosen.
fn filled_in(expr: &str) -> String {
    let filled = expr.replace("$__rate_interval", "30s").replace("$job", ".*").replace("$instance", ".*");
    assert!(!filled.contains('$'), "{expr} has a variable that nobody fills in");
    filled
}

/// A cluster whose nodes answer HTTP where Prometheus looks for them, also after a restart.
struct Watched {
    cluster: Cluster,
    http: Vec<SocketAddr>,
    prometheus: Prometheus,
}

impl Watched {
    /// The first of three nodes, and a Prometheus that waits for the others.
    fn begin(rules: &str, args: &[&str]) -> Watched {
        let site = Site::loopback();
        let http: Vec<SocketAddr> = (0..3).map(|_| (site.ip, site.free_port()).into()).collect();
        let mut cluster = Cluster::empty(&LITTLE);
        cluster.add_with(&[&["--http-listen", &http[0].to_string()], args].concat());
        cluster.whole();
        let prometheus = Prometheus::start(&http, rules);
        let scraped = || prometheus.numbers("filbert_cluster_members") == [1.0];
        eventually("the first node is scraped", scraped);
        Watched { cluster, http, prometheus }
    }

    /// Three nodes that all are scraped.
    fn start(rules: &str, args: &[&str]) -> Watched {
        let mut watched = Watched::begin(rules, args);
        for http in &watched.http[1..] {
            watched.cluster.add_with(&[&["--http-listen", &http.to_string()], args].concat());
        }
        watched.cluster.whole();
        let members = || watched.prometheus.numbers("filbert_cluster_members");
        eventually("every node is scraped", || members() == [3.0, 3.0, 3.0]);
        watched
    }

    fn load(&self) -> Load {
        Load::on(self.cluster.running().map(|node| node.client_addr()).collect())
    }

    #[track_caller]
    fn fires(&self, alerts: &[&str]) {
        let fired = || self.prometheus.fired();
        for alert in alerts {
            eventually(&format!("{alert} fires"), || fired().contains(*alert));
        }
    }
}

/// Prometheus' own lints, for names, help and kinds.
#[test]
fn promtool_finds_no_fault() {
    let ok = |args: &[&str], input: &str| {
        let output = promtool(args, input);
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{args:?}: {}{}",
            Cut(said(&output.stdout)),
            Cut(said(&output.stderr))
        );
    };
    ok(&["check", "rules", "--lint=all", "--lint-fatal", "grafana/alerts.yml"], "");
    ok(&["check", "config", "grafana/prometheus.yml"], "");
    ok(&["test", "rules", "tests/observability/alerts_test.yml"], "");
}

#[test]
fn the_dashboard_is_well_formed() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "filbert");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap_or("")).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut ids, mut titles, mut cells) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is another one's, too");
        let at = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{title} is beyond the edge");
        for cell in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(cells.insert(cell), "{title} lies on another panel");
        }
        if matches!(panel["type"].as_str(), Some("row" | "text")) {
            continue;
        }
        assert!(titles.insert((title, panel["type"].as_str())), "{title} twice");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(
            panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{title} is not explained"
        );
        assert!(
            panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()),
            "{title} shows nothing"
        );
    }
}

/// A metric of a dashboard or a rule that no node publishes is a line that is always flat.
#[test]
fn every_expression_has_data_and_a_healthy_cluster_is_silent() {
    // Healthy on a busy machine, too.
    let origin = Origin::start();
    let config = NamedTempFile::new().expect("a temporary file can be made");
    fs::write(config.path(), origin.config("max-bytes = '2m'")).expect("it can be written");
    let config = ["--config", config.path().to_str().expect("UTF-8")];
    let watched = Watched::start(&rules("3s"), &[&STEADY[..], &config].concat());
    let _load = watched.load();
    every_expression_has_data(&watched.prometheus);
    let published: BTreeSet<String> = watched.http.iter().flat_map(|&http| families(http)).collect();
    for text in [file("grafana/alerts.yml"), file("grafana/dashboards/filbert.json")] {
        for name in names(&text) {
            let parts = ["_bucket", "_sum", "_count"];
            let family = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(&name);
            assert!(published.contains(&name) || published.contains(family), "{name} is published by nobody");
        }
    }

    // Memory is too small for this load on purpose: that alert is right.
    watched.fires(&["FilbertEvictsYoungItems"]);
    // Before the first scrape nobody was known; and a busy machine is slow.
    let known = ["FilbertEvictsYoungItems", "FilbertNoNodes", "FilbertForwardSlow"];
    always("the rest is silent", Duration::from_secs(5), || {
        let fired = watched.prometheus.fired();
        assert!(fired.iter().all(|alert| known.contains(&alert.as_str())), "{fired:?}");
        true
    });
    assert!(watched.prometheus.query("ALERTS{alertname='FilbertNoNodes'}").is_empty(), "they are known now");
    every_rule_is_sound(&watched.prometheus.rules());
}

fn every_expression_has_data(prometheus: &Prometheus) {
    let dashboard = dashboard();
    let mut waiting = expressions(&dashboard);
    assert!(waiting.len() > 90, "{} expressions", waiting.len());
    let began = Instant::now();
    while !waiting.is_empty() {
        assert!(began.elapsed() < DEADLINE, "without data: {:?}", Cut(&waiting));
        waiting.retain(|(_, expr)| prometheus.numbers(&filled_in(expr)).is_empty());
        thread::sleep(Duration::from_millis(50));
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (series, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect(query);
        let found = prometheus.query(&filled_in(series));
        assert!(!found.is_empty() && found.iter().all(|each| each["metric"][label].is_string()), "{query}");
    }
}

fn every_rule_is_sound(rules: &[Value]) {
    assert!(rules.len() > 20, "{} rules", rules.len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{}", Cut(rule));
        let name = rule["name"].as_str().expect("a name");
        assert!(file("tests/observability/alerts_test.yml").contains(name), "{name} has no unit test");
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning" | "info")), "{name}: {severity:?}");
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].is_string(), "{name} has no {text}");
        }
        for alert in rule["alerts"].as_array().into_iter().flatten() {
            let said = alert["annotations"].to_string();
            assert!(!said.contains("error") && !said.contains("{{"), "{name}: {said}");
        }
    }
}

/// The names of what a node publishes, which Prometheus' own lint finds no fault with.
fn families(http: SocketAddr) -> Vec<String> {
    let metrics = Http::at(http).metrics();
    let linted = promtool(&["check", "metrics"], &metrics.0);
    let said = String::from_utf8_lossy(&linted.stderr).into_owned();
    assert!(linted.status.success() && said.is_empty(), "{}", Cut(&said));
    metrics.families().into_iter().map(|(name, _)| name.to_owned()).collect()
}

/// Everything in a text that is the name of a metric.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !is_part(char));
    let is_ours =
        |word: &&str| (word.starts_with("filbert_") || word.starts_with("process_")) && !word.ends_with('_');
    words.filter(is_ours).map(str::to_owned).collect()
}

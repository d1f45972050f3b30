//! A real Prometheus that scrapes nodes and evaluates rules, and what it says.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::child::program;
use crate::support::http::{Http, encoded};
use crate::support::server::eventually;
use crate::support::shown::Cut;
use crate::support::site::Site;

/// The Debian package.
const PACKAGE: &str = "prometheus";

/// A Prometheus that scrapes, and evaluates its rules, twice a second. It dies with the thread that started it.
pub struct Prometheus {
    child: Child,
    dir: TempDir,
    http: Http,
}

impl Prometheus {
    /// Starts one that scrapes `targets` as the job `filbert`, and waits until it answers.
    pub fn start(targets: &[SocketAddr], rules: &str) -> Prometheus {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let targets: Vec<_> = targets.iter().map(|target| format!("{:?}", target.to_string())).collect();
        let config = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
             rule_files: [rules.yml]\n\
             scrape_configs: [{{ job_name: filbert, static_configs: [{{ targets: [{}] }}] }}]\n",
            targets.join(", ")
        );
        fs::write(dir.path().join("prometheus.yml"), config).expect("the directory is writable");
        fs::write(dir.path().join("rules.yml"), rules).expect("the directory is writable");
        let site = Site::loopback();
        let port = site.free_port();
        let log = fs::File::create(dir.path().join("log")).expect("the directory is writable");
        let child = site
            .command(&program(PACKAGE, PACKAGE))
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={}:{port}", site.ip))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("setpriv starts");
        let http = Http::at((site.ip, port).into());
        let mut prometheus = Prometheus { child, dir, http };
        eventually("Prometheus answers", || {
            if let Some(status) = prometheus.child.try_wait().expect("the child can be waited for") {
                panic!("Prometheus ended at start with {status}: {}", Cut(prometheus.log()));
            }
            let ready = prometheus.http.try_ask("GET", "/-/ready", &[], b"");
            ready.is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    /// What an expression is now: an array of objects with `metric` and `value`.
    ///
    /// # Panics
    ///
    /// If Prometheus refuses it.
    #[track_caller]
    pub fn query(&self, expr: &str) -> Vec<Value> {
        match self.ask(&format!("/api/v1/query?query={}", encoded(expr.as_bytes())))["data"]["result"].take()
        {
            Value::Array(result) => result,
            other => panic!("{expr}: {}", Cut(&other)),
        }
    }

    /// The numbers among [`Prometheus::query`].
    #[track_caller]
    pub fn numbers(&self, expr: &str) -> Vec<f64> {
        let number = |sample: &Value| sample["value"][1].as_str()?.parse().ok();
        self.query(expr).iter().filter_map(number).filter(|number: &f64| number.is_finite()).collect()
    }

    /// The alerts that have fired since the start.
    pub fn fired(&self) -> BTreeSet<String> {
        let fired = self.query(r#"count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[1h]))"#);
        fired.iter().filter_map(|alert| Some(alert["metric"]["alertname"].as_str()?.to_owned())).collect()
    }

    /// Every rule, with `name`, `query`, `health`, `lastError` and `alerts`.
    pub fn rules(&self) -> Vec<Value> {
        let groups = self.ask("/api/v1/rules")["data"]["groups"].take();
        let rules = |group: &Value| group["rules"].as_array().cloned().unwrap_or_default();
        groups.as_array().expect("groups of rules").iter().flat_map(rules).collect()
    }

    #[track_caller]
    fn ask(&self, path: &str) -> Value {
        let answer = self.http.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", Cut(answer.text()));
        answer.json()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Fails only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- last of Prometheus' log:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"));
        }
    }
}

/// Runs `promtool` in the folder of this package; `input` is what it reads.
pub fn promtool(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(program("promtool", PACKAGE))
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    // One that does not read its input ends before it has taken all of it.
    _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("promtool ends")
}

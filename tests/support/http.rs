//! HTTP as scripts and Prometheus speak it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderMap, Request};

use crate::support::shown::Cut;
use crate::support::wire::DEADLINE;

/// A node's HTTP server.
#[derive(Clone, Debug)]
pub struct Http {
    pub addr: SocketAddr,
    agent: Agent,
    token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Http {
    pub fn at(addr: SocketAddr) -> Http {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE));
        Http { addr, agent: config.build().new_agent(), token: None }
    }

    /// The same, with a bearer token.
    pub fn with_token(&self, token: &str) -> Http {
        Http { token: Some(token.to_owned()), ..self.clone() }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.ask("PUT", path, &[], body)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], b"")
    }

    /// One request.
    ///
    /// # Panics
    ///
    /// When there is no answer.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_ask(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// As [`Http::ask`].
    ///
    /// # Errors
    ///
    /// The node does not answer.
    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let answer = if method == "GET" || method == "DELETE" {
            self.agent.run(request.body(()).expect("a request"))
        } else {
            self.agent.run(request.body(body).expect("a request"))
        };
        let mut answer = answer?;
        let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec()?;
        Ok(Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body })
    }

    /// What `/metrics` says.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200);
        Metrics(answer.text())
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", Cut(self.text())))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    /// That it is a problem with this status, and what it says.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", Cut(self.text()));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["type"] == "about:blank", "{problem}");
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

/// Prometheus' text format.
#[derive(Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The value of a series, written as it stands there.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("{series} is not in\n{}", Cut(&self.0)))
    }

    /// As [`Metrics::value`], if it is there.
    pub fn find(&self, series: &str) -> Option<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap_or_else(|_| panic!("{series} is {line}")))
    }

    /// All of a family added up.
    pub fn sum(&self, family: &str) -> f64 {
        let of_it = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values =
            self.0.lines().filter(of_it).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        values.sum()
    }

    /// The families that there are, each with its type.
    pub fn families(&self) -> Vec<(&str, &str)> {
        let types = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types.collect()
    }
}

/// Bytes as they stand in a path.
pub fn encoded(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut path, byte| {
        write!(path, "%{byte:02X}").expect("a text takes what is written");
        path
    })
}

//! What a group is configured to be.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::origin::http::{self, Http};
use crate::origin::memcached::{self, Memcached};
use crate::origin::sql::{self, Sql};
use crate::origin::{Invalid, Origin};

/// The options of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Its name in statistics.
    pub name: String,
    /// What its keys begin with; 1 to 250 bytes.
    pub prefix: Vec<u8>,
    /// How long a loaded value lives; `None` is until it is evicted.
    pub ttl: Option<Duration>,
    /// The longest that anything in the group lives, also what clients write.
    pub max_ttl: Option<Duration>,
    /// A loaded value lives shorter or longer by up to this part of its time.
    pub ttl_jitter: f64,
    /// How long it is remembered that the origin has no value; zero is not at all.
    pub negative_ttl: Duration,
    /// For so long after its time a value is still shown, and loaded anew meanwhile.
    pub stale_while_revalidate: Duration,
    /// For so long after its time a value is still shown when the origin fails.
    pub stale_if_error: Duration,
    /// In this last part of its time a value that is asked for is loaded anew.
    pub refresh_ahead: f64,
    /// How long a client waits for a load.
    pub wait: Duration,
    /// Loads at the same time.
    pub max_inflight: usize,
    /// Bytes that its items may take in each node; `None` where they share the memory with keys of no group.
    pub max_bytes: Option<u64>,
    /// Where values come from.
    pub origin: Option<OriginOptions>,
}

/// Where the values of a group come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginOptions {
    /// An HTTP server.
    Http(http::Options),
    /// A database.
    Sql(sql::Options),
    /// Other memcached servers.
    Memcached(memcached::Options),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: String::new(),
            prefix: Vec::new(),
            ttl: None,
            max_ttl: None,
            ttl_jitter: 0.0,
            negative_ttl: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            refresh_ahead: 0.0,
            wait: Duration::from_secs(1),
            max_inflight: 64,
            max_bytes: None,
            origin: None,
        }
    }
}

impl Options {
    /// Whether a loaded value is loaded anew ahead of its end, or shown after it.
    pub fn renews(&self) -> bool {
        self.refresh_ahead > 0.0 || !self.stale_span().is_zero()
    }

    /// How long a loaded value lives if neither chance nor the origin says otherwise.
    pub fn own_ttl(&self) -> Option<Duration> {
        [self.ttl, self.max_ttl].into_iter().flatten().min()
    }

    /// For how long a value is kept after its time.
    pub fn stale_span(&self) -> Duration {
        self.stale_while_revalidate.max(self.stale_if_error)
    }

    /// All of it in one line, without what is secret or a node's own.
    pub fn said(&self) -> String {
        let Self { origin, .. } = self;
        let rest = Self { origin: None, ..self.clone() };
        match origin {
            None => format!("{rest:?}"),
            Some(origin) => format!("{rest:?} {}", origin.compared()),
        }
    }
}

impl OriginOptions {
    /// Whether it can be used; reads the files that it names, and asks nobody.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Http(options) => Http::check(options),
            Self::Sql(options) => Sql::check(options),
            Self::Memcached(options) => Memcached::check(options),
        }
    }

    /// What can be asked.
    ///
    /// # Errors
    /// The field that is wrong.
    pub(super) fn open(&self) -> Result<Arc<dyn Origin>, Invalid> {
        Ok(match self {
            Self::Http(options) => Arc::new(Http::new(options)?),
            Self::Sql(options) => Arc::new(Sql::new(options)?),
            Self::Memcached(options) => Arc::new(Memcached::new(options)?),
        })
    }

    /// What all nodes should have in common, without what may be secret.
    fn compared(&self) -> String {
        match self {
            Self::Http(options) => {
                let names: Vec<_> = options.headers.iter().map(|(name, _)| name.as_str()).collect();
                format!("{self} {names:?}")
            }
            Self::Sql(options) => format!("{self} {}", options.shown_url()),
            Self::Memcached(_) => self.to_string(),
        }
    }

    /// Which kind it is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Sql(_) => "sql",
            Self::Memcached(_) => "memcached",
        }
    }

    /// The files that it names.
    pub fn files(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Http(options) => {
                options.bearer_token_file.iter_mut().chain(options.ca_file.as_mut()).collect()
            }
            Self::Sql(options) => options.password_file.iter_mut().collect(),
            Self::Memcached(_) => Vec::new(),
        }
    }
}

impl fmt::Display for OriginOptions {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(options) => write!(f, "http {}", options.url),
            Self::Sql(options) => write!(f, "sql {}", options.query),
            Self::Memcached(options) => write!(f, "memcached {}", options.servers.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(origin: OriginOptions) -> String {
        Options { origin: Some(origin), ..Options::default() }.said()
    }

    #[test]
    fn nodes_with_another_origin_are_told_from_each_other_without_secrets() {
        let sql = |url: &str| {
            said(OriginOptions::Sql(sql::Options {
                query: "select v from t where k = $1".into(),
                url: url.into(),
                password_file: None,
                connections: 1,
                value_max: 1,
                connect_timeout: Duration::ZERO,
            }))
        };
        assert_ne!(sql("postgres://ann@one/db"), sql("postgres://ann@other/db"));
        assert_eq!(sql("postgres://ann:apple@one/db"), sql("postgres://ann:pear@one/db"));
        assert!(!sql("postgres://ann:apple@one/db").contains("apple"));
        let http = |name: &str, value: &str| {
            said(OriginOptions::Http(http::Options {
                url: "http://host/{key}".into(),
                headers: vec![(name.into(), value.into())],
                bearer_token_file: None,
                ca_file: None,
                connections: 1,
                value_max: 1,
                connect_timeout: Duration::ZERO,
            }))
        };
        assert_ne!(http("Accept", "a"), http("X-Tenant", "a"));
        assert_eq!(http("X-Token", "a"), http("X-Token", "b"));
    }
}

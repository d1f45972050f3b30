//! Where values come from that are not here: what an origin is asked, and what it answers.
//!
//! An origin knows neither the store nor the cluster. It is asked from one thread, as often at the same time as its
//! options say, and whoever asks sets the time limit by dropping the future.

#[cfg_attr(not(feature = "origin-http"), path = "origin/http/left_out.rs")]
pub mod http;
pub mod memcached;
#[cfg_attr(not(feature = "origin-sql"), path = "origin/sql/left_out.rs")]
pub mod sql;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

/// A source of values.
pub trait Origin: Send + Sync + 'static {
    /// Asks for the value of a key: what follows the prefix of its group, 0 to 250 bytes of any kind. Cancellation safe.
    fn fetch<'a>(&'a self, key: &'a [u8]) -> Fetching<'a>;

    /// Asks for the value of a key, unless it is still the one that came with this validator. Cancellation safe.
    fn fetch_if_changed<'a>(&'a self, key: &'a [u8], known: &'a Validator) -> Fetching<'a> {
        let _ = known;
        self.fetch(key)
    }

    /// Whether it can be asked now, as far as that can be told without a key.
    fn try_out(&self) -> Trial<'_> {
        Box::pin(async { Ok(()) })
    }
}

/// A trial under way.
pub type Trial<'a> = Pin<Box<dyn Future<Output = Result<(), Failed>> + Send + 'a>>;

/// A question under way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, Failed>> + Send + 'a>>;

/// What an origin says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// This is its value.
    Found(Loaded),
    /// There is none.
    Absent,
    /// It is still the one that came with the validator that was named ([`Origin::fetch_if_changed`]).
    Unchanged {
        /// How long it lets it live from now on, as in [`Loaded::ttl`].
        ttl: Option<Duration>,
    },
    /// The origin has answered, and there may be a value, but it cannot be had: it is too large, or the origin does not serve
    /// this key. Says why, for a log.
    Refused(String),
    /// No question can be made of the key, and nobody was asked. Says why, for a log.
    Unaskable(String),
}

/// A value that was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Its bytes, no more than the origin may send.
    pub value: Bytes,
    /// The client flags.
    pub flags: u32,
    /// How long the origin lets it live, at most; `None` where it says nothing, and zero for not at all.
    pub ttl: Option<Duration>,
    /// What the origin knows this version of the value by, if it can be asked whether there is another.
    pub validator: Option<Validator>,
}

/// What an origin knows a version of a value by. Only the origin that gave it can tell what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validator {
    /// Its name, of a bounded length.
    pub tag: Box<[u8]>,
    /// How long the origin let this version live, should it say nothing of that when it is asked again.
    pub ttl: Option<Duration>,
}

/// The origin did not say whether there is a value; says why, for a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// Why an origin cannot be used as it is configured: the field of its table, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Invalid {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it, and what is allowed.
    pub why: String,
}

impl Invalid {
    /// That is wrong with this field.
    pub fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into() }
    }
}

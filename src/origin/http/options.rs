//! Where an HTTP origin is, and how it is asked.

use std::path::PathBuf;
use std::time::Duration;

/// Where and how to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address (`http`). `{key}` stands in its path or query for the key, which is percent-encoded there: all of it
    /// but letters, digits, `-`, `.`, `_` and `~`.
    pub url: String,
    /// Headers of each request, name and value (`headers`).
    pub headers: Vec<(String, String)>,
    /// A file with a token for `Authorization: Bearer` (`bearer-token-file`), which is read again when it changes.
    pub bearer_token_file: Option<PathBuf>,
    /// A PEM file with the authorities that the host's certificate must come from, instead of the system's (`ca-file`).
    pub ca_file: Option<PathBuf>,
    /// Connections to the host, and requests under way, at most; 0 counts as 1.
    pub connections: usize,
    /// Bytes of a value, at most.
    pub value_max: usize,
    /// How long the name's addresses, the connection and TLS may take, together.
    pub connect_timeout: Duration,
}

//! What a database is asked, and where it is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What is asked, and where.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// The query (`sql`), with `$1` (PostgreSQL, SQLite) or `?` (MySQL, MariaDB, SQLite) where the key goes.
    pub query: String,
    /// The database (`url`): `postgres://...`, `postgresql://...`, `mysql://...`, `mariadb://...`, `sqlite:...`.
    pub url: String,
    /// A file with the password (`password-file`); a newline at its end does not belong to it.
    pub password_file: Option<PathBuf>,
    /// How many connections there may be, and so questions at the same time.
    pub connections: usize,
    /// Bytes that a value may have.
    pub value_max: usize,
    /// How long a question may wait for a connection. SQLite waits for as long while another process writes.
    pub connect_timeout: Duration,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("query", &self.query)
            .field("url", &self.shown_url())
            .field("password_file", &self.password_file)
            .field("connections", &self.connections)
            .field("value_max", &self.value_max)
            .field("connect_timeout", &self.connect_timeout)
            .finish()
    }
}

impl Options {
    /// The url without what may be secret.
    pub fn shown_url(&self) -> String {
        shown(&self.url)
    }
}

/// A url as it may be shown: without a password, whatever else is wrong with it, and without its settings, of which one
/// may be a password.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let (rest, settings) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?..."));
    let Some((user, place)) = rest.rsplit_once('@') else { return format!("{scheme}:{rest}{settings}") };
    let slashes = if user.starts_with("//") { "//" } else { "" };
    let user = match user.trim_start_matches('/').split_once(':') {
        Some((user, _)) => format!("{user}:..."),
        None => user.trim_start_matches('/').to_owned(),
    };
    format!("{scheme}:{slashes}{user}@{place}{settings}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let cases = [
            ("postgres://u:secret@db:5432/scores?sslmode=require", "postgres://u:...@db:5432/scores?..."),
            ("postgres://db/scores?user=u&password=secret", "postgres://db/scores?..."),
            ("mysql://u:se/cr@e:t@db/scores", "mysql://u:...@db/scores"),
            ("mysql:u:secret@db", "mysql:u:...@db"),
            ("mysql://u@db/scores", "mysql://u@db/scores"),
            ("postgres:///scores", "postgres:///scores"),
            ("sqlite:///srv/scores.db", "sqlite:///srv/scores.db"),
            ("nonsense", ":nonsense"),
        ];
        for (url, wanted) in cases {
            assert_eq!(shown(url), wanted);
        }
    }
}

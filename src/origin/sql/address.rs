//! The url of a database, and the password that belongs to it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::error::Error;
use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use crate::origin::Invalid;
use crate::origin::sql::scanner::Dialect;

const URL: &str = "url";
const PASSWORD_FILE: &str = "password-file";

/// Statements that a connection keeps prepared: ours, and one to spare.
const STATEMENTS: usize = 2;

/// How to connect.
pub(super) enum Target {
    Postgres(PgConnectOptions),
    MySql(MySqlConnectOptions),
    Sqlite(SqliteConnectOptions),
}

/// Whose SQL the database behind a url speaks.
pub(super) fn dialect(url: &str) -> Result<Dialect, Invalid> {
    let (scheme, _) = url.split_once(':').unwrap_or_default();
    match scheme {
        "postgres" | "postgresql" => Ok(Dialect::Postgres),
        "mysql" | "mariadb" => Ok(Dialect::MySql),
        "sqlite" => Ok(Dialect::Sqlite),
        _ => Err(Invalid::new(URL, "allowed: postgres://..., mysql://..., mariadb://..., sqlite:...")),
    }
}

/// How to connect, without doing it; reads the file of the password.
pub(super) fn target(
    url: &str,
    password: Option<&Path>,
    connect_timeout: Duration,
) -> Result<Target, Invalid> {
    let dialect = dialect(url)?;
    if password.is_some() && dialect == Dialect::Sqlite {
        return Err(Invalid::new(PASSWORD_FILE, "SQLite knows no passwords"));
    }
    if password.is_some() && has_password(url) {
        return Err(Invalid::new(
            PASSWORD_FILE,
            "there is a password in the url, too: allowed is one of them",
        ));
    }
    let password = password.map(read).transpose()?;
    Ok(match dialect {
        Dialect::Postgres => {
            let options: PgConnectOptions = url.parse().map_err(invalid)?;
            let options = options.statement_cache_capacity(STATEMENTS).disable_statement_logging();
            Target::Postgres(match password {
                Some(password) => options.password(&password),
                None => options,
            })
        }
        Dialect::MySql => {
            let options: MySqlConnectOptions = url.parse().map_err(invalid)?;
            // A query means here what it means to `mariadb`, where it was tried.
            let options = options.pipes_as_concat(false).no_engine_substitution(false).timezone(None);
            let options = options.statement_cache_capacity(STATEMENTS).disable_statement_logging();
            Target::MySql(match password {
                Some(password) => options.password(&password),
                None => options,
            })
        }
        Dialect::Sqlite => Target::Sqlite(sqlite(url, connect_timeout)?),
    })
}

fn sqlite(url: &str, busy_timeout: Duration) -> Result<SqliteConnectOptions, Invalid> {
    let options: SqliteConnectOptions = url.parse().map_err(invalid)?;
    let (file, settings) = url.split_once('?').unwrap_or((url, ""));
    let mut settings = settings.split('&').filter_map(|setting| setting.strip_prefix("mode=")).peekable();
    if file.ends_with(":memory:") || settings.clone().any(|mode| mode == "memory") {
        return Err(Invalid::new(URL, "a database in memory has nothing to tell: needs a file"));
    }
    if options.get_filename().as_os_str().is_empty() {
        return Err(Invalid::new(URL, "needs a file: sqlite:///directory/file, sqlite:file"));
    }
    let options = if settings.peek().is_none() { options.read_only(true) } else { options };
    Ok(options.busy_timeout(busy_timeout).statement_cache_capacity(STATEMENTS).disable_statement_logging())
}

/// sqlx names the part that is wrong, and never the password.
fn invalid(error: Error) -> Invalid {
    Invalid::new(
        URL,
        match error {
            Error::Configuration(error) => error.to_string(),
            error => error.to_string(),
        },
    )
}

fn read(path: &Path) -> Result<String, Invalid> {
    let refused = |why: String| Invalid::new(PASSWORD_FILE, format!("{}: {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| refused(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|_| refused("not UTF-8".to_owned()))?;
    let password =
        text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if password.is_empty() {
        return Err(refused("empty: needs the password".to_owned()));
    }
    Ok(password.to_owned())
}

fn has_password(url: &str) -> bool {
    let (address, settings) = url.split_once('?').unwrap_or((url, ""));
    let user = address.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':'))
        || settings.split('&').any(|setting| setting.starts_with("password="))
}

/// Where it is, for messages: no user, no password.
pub(super) fn place(target: &Target) -> String {
    let server = |scheme: &str, host: &str, port: u16, database: Option<&str>| {
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        format!("{scheme}://{host}:{port}/{}", database.unwrap_or_default())
    };
    let socket = |scheme: &str, path: &Path, database: Option<&str>| {
        format!("{scheme}:{}/{}", path.display(), database.unwrap_or_default())
    };
    match target {
        Target::Postgres(options) => match options.get_socket() {
            Some(path) => socket("postgres", path, options.get_database()),
            None => server("postgres", options.get_host(), options.get_port(), options.get_database()),
        },
        Target::MySql(options) => match options.get_socket() {
            Some(path) => socket("mysql", path, options.get_database()),
            None => server("mysql", options.get_host(), options.get_port(), options.get_database()),
        },
        Target::Sqlite(options) => format!("sqlite:{}", options.get_filename().display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_without_users() {
        let place = |url: &str| super::place(&target(url, None, Duration::from_secs(1)).expect("valid"));
        assert_eq!(place("postgresql://u:secret@db.example/scores"), "postgres://db.example:5432/scores");
        assert_eq!(place("postgres://u@[::1]:6000/scores"), "postgres://[::1]:6000/scores");
        assert_eq!(place("postgres://u@h/scores?host=/run/postgresql"), "postgres:/run/postgresql/scores");
        assert_eq!(place("mariadb://u:secret@db.example:3307"), "mysql://db.example:3307/");
        assert_eq!(place("mysql://u@h/scores?socket=/run/mysqld.sock"), "mysql:/run/mysqld.sock/scores");
        assert_eq!(place("sqlite:///srv/scores.db?mode=ro"), "sqlite:/srv/scores.db");
        assert_eq!(place("sqlite:scores.db"), "sqlite:scores.db");
    }
}

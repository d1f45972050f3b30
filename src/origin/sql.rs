//! An origin that asks a database: one query, prepared once on every connection, whose one parameter is the key.
//!
//! The first column of the answer is the value, a second one, if there is one, how many whole seconds it may live
//! (rounded down; NULL says nothing; zero and less is not at all). No row, or NULL as the value, means that there is
//! none. Of several rows the first counts: add a `limit 1`, as all of them are sent. A row is read into memory before
//! its value is found to be too long.
//!
//! # Values
//!
//! Text and bytes as they are; numbers in decimal digits, without an exponent; `numeric` and `decimal` with the digits
//! that the database gives them; booleans as `1` and `0`; PostgreSQL's `json`, `jsonb`, `uuid` and enumerations as
//! text. Anything else, such as a date, is refused with its type: `day::text`, or `cast(day as char)` for MySQL, says
//! which format and time zone it has, too.
//!
//! # Keys
//!
//! - PostgreSQL says which type its parameter has. For text the key must be UTF-8 without NUL, for `smallint`,
//!   `integer` and `bigint` a number in range and for `uuid` an id, both as PostgreSQL writes them (`07` is not 7); for
//!   `bytea` it may be anything. There is no value for a key that cannot be of the type, as no row can have it, and the
//!   database is not asked. Other types are refused: `$1::text` helps.
//! - MySQL and MariaDB get text where the key is UTF-8, else bytes, which no text is like. They compare text as its
//!   collation says, mostly without regard to capitals and to spaces at the end, and a number with text as numbers: to
//!   `id = ?`, `7`, `07` and `7x` are the same.
//! - SQLite gets text where the key is UTF-8, else a blob. It compares a column of numbers with text that is a number
//!   as numbers, and never a blob with text: `cast($1 as blob)` helps.
//!
//! # Errors
//!
//! A value that is too long, and an error in the data of a key (class 22 of SQLSTATE, such as a number out of range), are
//! that key's own: other keys are asked for as before. Any other error is the database's.
//!
//! # Connections
//!
//! The url says where the database is and how to connect; the parameters that it may have are those of sqlx, such as
//! `?sslmode=verify-full&sslrootcert=ca.pem` (`ssl-mode`, `ssl-ca` for MySQL). For PostgreSQL what it leaves out comes
//! from `PGHOST` and the like and from `~/.pgpass`. SQLite's file is opened for reading alone unless the url has a
//! `mode=`.
//!
//! Connections are opened as they are needed, and used again. One on which a question was given up is closed, so that
//! nobody waits for its answer; SQLite's query ends with it, but a server may go on with its own:
//! `?options[statement_timeout]=2s` (PostgreSQL), `max_statement_time` (MariaDB) and `max_execution_time` (MySQL) bound
//! that.

mod address;
mod cell;
mod fault;
mod mysql;
mod numeric;
mod options;
mod pool;
mod postgres;
mod scanner;
mod sqlite;
mod statement;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use sqlx::{AssertSqlSafe, SqlSafeStr};

use crate::origin::sql::address::Target;
use crate::origin::sql::mysql::MySql;
use crate::origin::sql::pool::Pool;
use crate::origin::sql::postgres::Postgres;
use crate::origin::sql::sqlite::Sqlite;
use crate::origin::{Failed, Fetching, Invalid, Origin, Trial};
pub use options::Options;

/// A database that is asked for values.
///
/// Its connections belong to the runtime in which it is first used.
pub struct Sql(Source);

enum Source {
    Postgres(Pool<Postgres>),
    MySql(Pool<MySql>),
    Sqlite(Pool<Sqlite>),
}

impl Sql {
    /// Sees that the options can be used, as far as that can be known without the database; reads the password.
    ///
    /// # Errors
    ///
    /// Names the field that is wrong.
    pub fn check(options: &Options) -> Result<(), Invalid> {
        Self::new(options).map(drop)
    }

    /// An origin without connections: it connects when it is asked.
    ///
    /// # Errors
    ///
    /// As [`Sql::check`].
    pub fn new(options: &Options) -> Result<Self, Invalid> {
        let dialect = address::dialect(&options.url)?;
        scanner::check(&options.query, dialect).map_err(|why| Invalid::new("sql", why))?;
        if options.connections == 0 {
            return Err(Invalid::new("connections", "needs at least one"));
        }
        let (value_max, connect_timeout) = (options.value_max, options.connect_timeout);
        let target = address::target(&options.url, options.password_file.as_deref(), connect_timeout)?;
        let place = address::place(&target);
        // It is the operator's own query, and nothing was put into it.
        let query = AssertSqlSafe(Arc::<str>::from(options.query.as_str())).into_sql_str();
        Ok(Self(match target {
            Target::Postgres(target) => {
                let driver = Postgres { options: target, query, value_max };
                Source::Postgres(Pool::new(driver, place, options.connections, connect_timeout))
            }
            Target::MySql(target) => {
                let driver = MySql { options: target, query, value_max };
                Source::MySql(Pool::new(driver, place, options.connections, connect_timeout))
            }
            Target::Sqlite(target) => {
                let driver = Sqlite { options: target, query, value_max };
                Source::Sqlite(Pool::new(driver, place, options.connections, connect_timeout))
            }
        }))
    }

    /// Connects and prepares the query, to see whether it can be asked. Cancellation safe.
    ///
    /// # Errors
    ///
    /// A database that cannot be reached, SQL that it refuses, a query that does not take exactly one parameter, or one
    /// of a type that a key cannot be, or that has no answer.
    pub async fn prepare(&self) -> Result<(), Failed> {
        match &self.0 {
            Source::Postgres(pool) => pool.check().await,
            Source::MySql(pool) => pool.check().await,
            Source::Sqlite(pool) => pool.check().await,
        }
    }
}

impl Origin for Sql {
    fn fetch<'a>(&'a self, key: &'a [u8]) -> Fetching<'a> {
        match &self.0 {
            Source::Postgres(pool) => Box::pin(pool.fetch(key)),
            Source::MySql(pool) => Box::pin(pool.fetch(key)),
            Source::Sqlite(pool) => Box::pin(pool.fetch(key)),
        }
    }

    fn try_out(&self) -> Trial<'_> {
        Box::pin(self.prepare())
    }
}

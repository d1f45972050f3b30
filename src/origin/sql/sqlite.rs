//! Asks a file of SQLite, each connection in a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::error::{BoxDynError, Error};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow, SqliteValueRef};
use sqlx::{
    ConnectOptions, Connection, Decode, Executor, Row, SqlStr, Sqlite as Database, TypeInfo, ValueRef,
};

use crate::origin::Fetched;
use crate::origin::sql::cell::{self, Cell};
use crate::origin::sql::fault::Fault;
use crate::origin::sql::pool::Driver;
use crate::origin::sql::statement;

/// Steps of SQLite's machine, some ten microseconds, after which a query looks whether it was given up.
const STEPS: i32 = 1_000;

/// The query and where it is asked.
pub(super) struct Sqlite {
    pub(super) options: SqliteConnectOptions,
    pub(super) query: SqlStr,
    pub(super) value_max: usize,
}

/// A connection. Dropped in the middle of a query, it interrupts that, and its thread ends.
pub(super) struct Link {
    connection: SqliteConnection,
    in_use: InUse,
}

struct InUse(Arc<AtomicBool>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Driver for Sqlite {
    type Link = Link;

    async fn connect(&self) -> Result<Link, Error> {
        let mut connection = self.options.connect().await?;
        let in_use = InUse(Arc::new(AtomicBool::new(true)));
        let is_used = Arc::clone(&in_use.0);
        connection.lock_handle().await?.set_progress_handler(STEPS, move || is_used.load(Ordering::Relaxed));
        Ok(Link { connection, in_use })
    }

    async fn ping(link: &mut Link) -> Result<(), Error> {
        link.connection.ping().await
    }

    async fn close(link: Link) -> Result<(), Error> {
        let closed = link.connection.close().await;
        drop(link.in_use);
        closed
    }

    async fn check(&self, link: &mut Link) -> Result<(), Fault> {
        statement::check(&(&mut link.connection).prepare(self.query.clone()).await?)
    }

    async fn ask(&self, link: &mut Link, key: &[u8]) -> Result<Fetched, Fault> {
        let query = sqlx::query(self.query.clone());
        let query = match str::from_utf8(key) {
            Ok(text) => query.bind(text),
            Err(_) => query.bind(key),
        };
        let Some(row) = query.fetch_optional(&mut link.connection).await? else { return Ok(Fetched::Absent) };
        let ttl = if row.len() > 1 { Some(cell(&row, 1)?) } else { None };
        cell::answer(cell(&row, 0)?, ttl, self.value_max)
    }
}

fn cell(row: &SqliteRow, index: usize) -> Result<Cell<'_>, Fault> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    read(value).map_err(|error| Error::Decode(error).into())
}

/// By what is stored, whatever the column is declared as.
fn read(value: SqliteValueRef<'_>) -> Result<Cell<'_>, BoxDynError> {
    let info = value.type_info().into_owned();
    Ok(match info.name() {
        "INTEGER" => Cell::Integer(decoded::<i64>(value)?.into()),
        "REAL" => Cell::Double(decoded::<f64>(value)?),
        "TEXT" | "BLOB" => Cell::Bytes(decoded::<&[u8]>(value)?),
        name => Cell::Other(name.to_owned()),
    })
}

fn decoded<'a, T: Decode<'a, Database>>(value: SqliteValueRef<'a>) -> Result<T, BoxDynError> {
    T::decode(value)
}

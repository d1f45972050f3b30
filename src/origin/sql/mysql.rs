//! Asks MySQL and MariaDB.

use sqlx::error::{BoxDynError, Error};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlRow, MySqlValueRef};
use sqlx::{
    ConnectOptions, Connection, Decode, Executor, MySql as Database, Row, SqlStr, Type, TypeInfo, ValueRef,
};
use tokio_stream::StreamExt;

use crate::origin::Fetched;
use crate::origin::sql::cell::{self, Cell};
use crate::origin::sql::fault::Fault;
use crate::origin::sql::pool::Driver;
use crate::origin::sql::statement;

/// `ER_INVALID_CHARACTER_STRING` (MariaDB, and MySQL in places) and `ER_CANNOT_CONVERT_STRING` (MySQL 8).
const NO_TEXT: [u16; 2] = [1300, 3854];

/// The query and where it is asked.
pub(super) struct MySql {
    pub(super) options: MySqlConnectOptions,
    pub(super) query: SqlStr,
    pub(super) value_max: usize,
}

impl Driver for MySql {
    type Link = MySqlConnection;

    async fn connect(&self) -> Result<MySqlConnection, Error> {
        self.options.connect().await
    }

    async fn ping(link: &mut MySqlConnection) -> Result<(), Error> {
        link.ping().await
    }

    async fn close(link: MySqlConnection) -> Result<(), Error> {
        link.close().await
    }

    async fn check(&self, link: &mut MySqlConnection) -> Result<(), Fault> {
        statement::check(&link.prepare(self.query.clone()).await?)
    }

    async fn ask(&self, link: &mut MySqlConnection, key: &[u8]) -> Result<Fetched, Fault> {
        let query = sqlx::query(self.query.clone());
        let text = str::from_utf8(key);
        let query = match text {
            Ok(text) => query.bind(text),
            Err(_) => query.bind(key),
        };
        let mut rows = query.fetch(link);
        let mut first = None;
        // To the end: what is not read now stands before the next answer.
        while let Some(row) = rows.next().await {
            match row {
                Ok(row) => first = first.or(Some(row)),
                Err(error) if text.is_err() && is_no_text(&error) => return Ok(Fetched::Absent),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(row) = first else { return Ok(Fetched::Absent) };
        let ttl = if row.len() > 1 { Some(cell(&row, 1)?) } else { None };
        cell::answer(cell(&row, 0)?, ttl, self.value_max)
    }
}

/// Whether bytes were compared with a column of text, which cannot be these.
fn is_no_text(error: &Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| NO_TEXT.contains(&error.number()))
}

fn cell(row: &MySqlRow, index: usize) -> Result<Cell<'_>, Fault> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    read(value).map_err(|error| Error::Decode(error).into())
}

fn read(value: MySqlValueRef<'_>) -> Result<Cell<'_>, BoxDynError> {
    let info = value.type_info().into_owned();
    Ok(match info.name() {
        "DECIMAL" => Cell::Decimal(decoded::<&str>(value)?.to_owned()),
        "FLOAT" => Cell::Single(decoded::<f32>(value)?),
        "DOUBLE" => Cell::Double(decoded::<f64>(value)?),
        "JSON" | "SET" => Cell::Bytes(decoded::<&[u8]>(value)?),
        // `BIT` and `YEAR` are among them.
        _ if <u64 as Type<Database>>::compatible(&info) => Cell::Integer(decoded::<u64>(value)?.into()),
        _ if <i64 as Type<Database>>::compatible(&info) => Cell::Integer(decoded::<i64>(value)?.into()),
        _ if <[u8] as Type<Database>>::compatible(&info) => Cell::Bytes(decoded::<&[u8]>(value)?),
        name => Cell::Other(name.to_owned()),
    })
}

fn decoded<'a, T: Decode<'a, Database>>(value: MySqlValueRef<'a>) -> Result<T, BoxDynError> {
    T::decode(value)
}

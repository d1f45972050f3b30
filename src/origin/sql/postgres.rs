//! Asks PostgreSQL.

use sqlx::error::Error;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgRow, PgStatement, PgTypeInfo, PgTypeKind,
};
use sqlx::{
    Arguments, ConnectOptions, Connection, Either, Executor, Postgres as Database, Row, SqlStr, Statement,
    Type, TypeInfo, ValueRef,
};

use crate::origin::Fetched;
use crate::origin::sql::cell::{self, Cell};
use crate::origin::sql::fault::Fault;
use crate::origin::sql::numeric;
use crate::origin::sql::pool::Driver;
use crate::origin::sql::statement;

/// Bytes of a `uuid`.
const UUID_BYTES: usize = 16;

/// The query and where it is asked.
pub(super) struct Postgres {
    pub(super) options: PgConnectOptions,
    pub(super) query: SqlStr,
    pub(super) value_max: usize,
}

impl Driver for Postgres {
    type Link = PgConnection;

    async fn connect(&self) -> Result<PgConnection, Error> {
        self.options.connect().await
    }

    async fn ping(link: &mut PgConnection) -> Result<(), Error> {
        link.ping().await
    }

    async fn close(link: PgConnection) -> Result<(), Error> {
        link.close().await
    }

    async fn check(&self, link: &mut PgConnection) -> Result<(), Fault> {
        let statement = link.prepare(self.query.clone()).await?;
        statement::check(&statement)?;
        bind(parameter(&statement)?, b"")?;
        Ok(())
    }

    async fn ask(&self, link: &mut PgConnection, key: &[u8]) -> Result<Fetched, Fault> {
        // From the second time on, what the connection keeps.
        let statement = link.prepare(self.query.clone()).await?;
        let Some(arguments) = bind(parameter(&statement)?, key)? else { return Ok(Fetched::Absent) };
        let Some(row) = statement.query_with(arguments).fetch_optional(link).await? else {
            return Ok(Fetched::Absent);
        };
        let ttl = if row.len() > 1 { Some(cell(&row, 1)?) } else { None };
        cell::answer(cell(&row, 0)?, ttl, self.value_max)
    }
}

/// The type of the one parameter.
fn parameter(statement: &PgStatement) -> Result<&PgTypeInfo, Fault> {
    match statement.parameters() {
        Some(Either::Left([parameter])) => Ok(parameter),
        _ => statement::check(statement)
            .and(Err(Fault::Answer("the type of the parameter is unknown".to_owned()))),
    }
}

/// The key as a parameter of this type; `None` if it cannot be one, so that no row can have it.
fn bind(parameter: &PgTypeInfo, key: &[u8]) -> Result<Option<PgArguments>, Fault> {
    let text = str::from_utf8(key).ok().filter(|text| !text.contains('\0'));
    let mut arguments = PgArguments::default();
    // The types that sqlx gives these count only where a statement is prepared with them: ours is prepared already.
    let added = match parameter.name() {
        "BYTEA" => Some(arguments.add(key)),
        "INT2" => integer::<i16>(text).map(|number| arguments.add(number)),
        "INT4" => integer::<i32>(text).map(|number| arguments.add(number)),
        "INT8" => integer::<i64>(text).map(|number| arguments.add(number)),
        "UUID" => text.and_then(uuid_bytes).map(|bytes| arguments.add(bytes.as_slice())),
        _ if <str as Type<Database>>::compatible(parameter) => text.map(|text| arguments.add(text)),
        name => {
            let why = format!(
                "the parameter is of type {name}, which a key cannot be: write $1::text in the query"
            );
            return Err(Fault::Answer(why));
        }
    };
    added.map(|added| added.map(|()| arguments).map_err(|error| Error::Encode(error).into())).transpose()
}

/// A number as PostgreSQL writes it, so that every row has one key: neither `+7` nor `07`.
fn integer<T: std::str::FromStr + ToString>(text: Option<&str>) -> Option<T> {
    let text = text?;
    text.parse().ok().filter(|number: &T| number.to_string() == text)
}

/// A `uuid` as PostgreSQL writes it: small letters, in five groups.
fn uuid_bytes(text: &str) -> Option<[u8; UUID_BYTES]> {
    let digits = text.replace('-', "");
    let bytes = u128::from_str_radix(&digits, 16).ok()?.to_be_bytes();
    (uuid(&bytes) == text).then_some(bytes)
}

fn uuid(bytes: &[u8; UUID_BYTES]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(*bytes));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn cell(row: &PgRow, index: usize) -> Result<Cell<'_>, Fault> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let bytes = value.as_bytes().map_err(Error::Decode)?;
    let info = value.type_info();
    Ok(read(&info, bytes).unwrap_or_else(|| Cell::Other(info.name().to_owned())))
}

/// A value as it is sent in binary; `None` of a type that is not read.
fn read<'a>(info: &PgTypeInfo, bytes: &'a [u8]) -> Option<Cell<'a>> {
    Some(match info.name() {
        "BYTEA" | "JSON" | "\"CHAR\"" | "xml" => Cell::Bytes(bytes),
        // Behind the number of its format, which is 1 (`jsonb_send`, jsonb.c).
        "JSONB" => Cell::Bytes(bytes.strip_prefix(&[1])?),
        "BOOL" => Cell::Boolean(bytes == [1]),
        "INT2" => Cell::Integer(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        "INT4" => Cell::Integer(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        "INT8" => Cell::Integer(i64::from_be_bytes(bytes.try_into().ok()?).into()),
        "OID" => Cell::Integer(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        "FLOAT4" => Cell::Single(f32::from_be_bytes(bytes.try_into().ok()?)),
        "FLOAT8" => Cell::Double(f64::from_be_bytes(bytes.try_into().ok()?)),
        "NUMERIC" => Cell::Decimal(numeric::text(bytes)?),
        "UUID" => Cell::Text(uuid(bytes.try_into().ok()?)),
        _ if <str as Type<Database>>::compatible(info) => Cell::Bytes(bytes),
        _ if matches!(info.kind(), PgTypeKind::Enum(_)) => Cell::Bytes(bytes),
        _ => return None,
    })
}

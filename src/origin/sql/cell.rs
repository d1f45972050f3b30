//! What a row says: the value in its first column, how long it may live in its second.

use std::time::Duration;

use bytes::Bytes;

use crate::origin::sql::fault::Fault;
use crate::origin::{Fetched, Loaded};

/// The longest time to live, a hundred years and more: one that can be added to any clock.
const TTL_MAX: Duration = Duration::from_secs(u32::MAX as u64);

/// A column of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Bytes(&'a [u8]),
    Text(String),
    Integer(i128),
    Single(f32),
    Double(f64),
    /// A number with a point, in digits.
    Decimal(String),
    Boolean(bool),
    /// Of a type that is not read, by its name.
    Other(String),
}

/// What the two columns mean; `value_max` is in bytes.
pub(super) fn answer(value: Cell<'_>, ttl: Option<Cell<'_>>, value_max: usize) -> Result<Fetched, Fault> {
    let value = match value {
        Cell::Null => return Ok(Fetched::Absent),
        Cell::Bytes(bytes) => {
            within(bytes.len(), value_max)?;
            Bytes::copy_from_slice(bytes)
        }
        Cell::Text(text) | Cell::Decimal(text) => text.into(),
        Cell::Integer(number) => number.to_string().into(),
        Cell::Single(number) => float(number.into(), number.to_string()).into(),
        Cell::Double(number) => float(number, number.to_string()).into(),
        Cell::Boolean(value) => Bytes::from_static(if value { b"1" } else { b"0" }),
        Cell::Other(name) => {
            let why = format!("the value is of type {name}, which is not read: cast it to text in the query");
            return Err(Fault::Answer(why));
        }
    };
    within(value.len(), value_max)?;
    let ttl = ttl.map_or(Ok(None), self::ttl)?;
    Ok(Fetched::Found(Loaded { value, ttl, ..Loaded::default() }))
}

fn within(bytes: usize, bytes_max: usize) -> Result<(), Fault> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Fault::Value(format!("a value of {bytes} bytes, over the limit of {bytes_max}")))
}

/// Digits, without an exponent; PostgreSQL's words for what has none.
fn float(number: f64, digits: String) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    digits
}

fn ttl(cell: Cell<'_>) -> Result<Option<Duration>, Fault> {
    let seconds = match cell {
        Cell::Null => return Ok(None),
        Cell::Integer(seconds) => return Ok(Some(whole(u64::try_from(seconds.max(0)).unwrap_or(u64::MAX)))),
        Cell::Single(seconds) => f64::from(seconds),
        Cell::Double(seconds) => seconds,
        Cell::Decimal(digits) => digits.parse().unwrap_or(f64::NAN),
        Cell::Bytes(_) | Cell::Text(_) => return Err(no_number("text or bytes")),
        Cell::Boolean(_) => return Err(no_number("a boolean")),
        Cell::Other(name) => return Err(no_number(&format!("of type {name}"))),
    };
    if seconds.is_nan() {
        return Err(no_number("NaN"));
    }
    // Saturates: negative seconds are none, too many are all.
    Ok(Some(whole(seconds as u64)))
}

fn whole(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(TTL_MAX)
}

fn no_number(what: &str) -> Fault {
    Fault::Answer(format!("the second column, the ttl in seconds, is {what}: needs a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(cell: Cell<'_>) -> Result<Fetched, String> {
        answer(cell, None, 8).map_err(|fault| fault.to_string())
    }

    fn found(value: &str) -> Fetched {
        Fetched::Found(Loaded { value: value.to_owned().into(), ..Loaded::default() })
    }

    #[test]
    fn values_are_text() {
        let cases = [
            (Cell::Bytes(b""), ""),
            (Cell::Bytes(b"12345678"), "12345678"),
            (Cell::Integer(-7), "-7"),
            (Cell::Single(0.1), "0.1"),
            (Cell::Double(1e5), "100000"),
            (Cell::Double(f64::INFINITY), "Infinity"),
            (Cell::Double(f64::NAN), "NaN"),
            (Cell::Decimal("1.50".to_owned()), "1.50"),
            (Cell::Boolean(true), "1"),
            (Cell::Boolean(false), "0"),
        ];
        for (cell, wanted) in cases {
            assert_eq!(value(cell), Ok(found(wanted)));
        }
        assert_eq!(value(Cell::Null), Ok(Fetched::Absent));
        assert_eq!(
            value(Cell::Bytes(b"123456789")),
            Err("a value of 9 bytes, over the limit of 8".to_owned())
        );
        assert_eq!(value(Cell::Double(1e9)), Err("a value of 10 bytes, over the limit of 8".to_owned()));
        let other = value(Cell::Other("DATE".to_owned())).expect_err("not read");
        assert_eq!(other, "the value is of type DATE, which is not read: cast it to text in the query");
    }

    #[test]
    fn a_time_to_live_is_in_whole_seconds() {
        let cases = [
            (Cell::Integer(600), 600),
            (Cell::Integer(-1), 0),
            (Cell::Integer(0), 0),
            (Cell::Integer(i128::MAX), u32::MAX.into()),
            (Cell::Single(1.9), 1),
            (Cell::Double(59.999), 59),
            (Cell::Double(-0.5), 0),
            (Cell::Double(f64::INFINITY), u32::MAX.into()),
            (Cell::Decimal("1.99".to_owned()), 1),
            (Cell::Decimal("Infinity".to_owned()), u32::MAX.into()),
        ];
        for (cell, wanted) in cases {
            assert_eq!(ttl(cell).ok().flatten(), Some(Duration::from_secs(wanted)));
        }
        assert!(matches!(ttl(Cell::Null), Ok(None)));
        for cell in [Cell::Bytes(b"600"), Cell::Boolean(true), Cell::Double(f64::NAN)] {
            let fault = ttl(cell).expect_err("no number").to_string();
            assert!(fault.ends_with(": needs a number"), "{fault}");
        }
    }
}

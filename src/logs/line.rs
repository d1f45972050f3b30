//! An event as a line.

use std::fmt::{self, Write as _};

use serde::ser::{SerializeMap, Serializer as _};
use serde_json::{Serializer, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::logs::Format;

/// How many lines of the same kind were not written before this one.
const LEFT_OUT: &str = "left_out";

/// The fields of every JSON line; another field of the same name would be there twice.
const TIMESTAMP: &str = "timestamp";
const LEVEL: &str = "level";
const MESSAGE: &str = "message";
const TARGET: &str = "target";

/// The line of an event that happens now, with its line end.
pub(super) fn of(event: &Event<'_>, format: Format, left_out: u64) -> String {
    let mut said = Said::default();
    event.record(&mut said);
    if left_out > 0 {
        said.fields.push((LEFT_OUT, Shown::Value(left_out.into())));
    }
    shown(*event.metadata().level(), event.metadata().target(), &said, format)
}

/// The line that reports lost lines: nobody read them, and there was no more room.
pub(super) fn of_loss(lost: u64, format: Format) -> String {
    let message = "the log was not taken fast enough, or could not be written: lines were lost".to_owned();
    let said = Said { message, fields: vec![("lost", Shown::Value(lost.into()))] };
    shown(Level::WARN, module_path!(), &said, format)
}

fn shown(level: Level, target: &str, said: &Said, format: Format) -> String {
    let now = now();
    let mut line = match format {
        Format::Text => text(&now, level, target, said),
        Format::Json => json(&now, level, target, said),
    };
    line.push('\n');
    line
}

/// `2025-01-31T12:00:00.000000Z  INFO connected peer="node-1"`.
fn text(now: &str, level: Level, target: &str, said: &Said) -> String {
    let mut line = format!("{now} {level:>5} ");
    if !target.starts_with(env!("CARGO_PKG_NAME")) {
        line.push_str(target);
        line.push_str(": ");
    }
    push_shown(&mut line, &said.message);
    for (name, shown) in &said.fields {
        _ = write!(line, " {name}=");
        match shown {
            Shown::Value(Value::String(text)) => _ = write!(line, "{text:?}"),
            Shown::Value(value) => _ = write!(line, "{value}"),
            Shown::Debug(text) => push_shown(&mut line, text),
        }
    }
    line
}

/// Appends text that may have come from elsewhere, without characters that would end the line or steer a terminal.
fn push_shown(line: &mut String, text: &str) {
    for char in text.chars() {
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
}

/// `{"timestamp":"2025-01-31T12:00:00.000000Z","level":"INFO","message":"connected",...}`.
fn json(now: &str, level: Level, target: &str, said: &Said) -> String {
    let mut bytes = Vec::new();
    let write = |bytes: &mut Vec<u8>| -> serde_json::Result<()> {
        let mut serializer = Serializer::new(bytes);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(TIMESTAMP, now)?;
        map.serialize_entry(LEVEL, level.as_str())?;
        map.serialize_entry(MESSAGE, &said.message)?;
        map.serialize_entry(TARGET, target)?;
        for (name, shown) in &said.fields {
            match shown {
                _ if [TIMESTAMP, LEVEL, MESSAGE, TARGET].contains(name) => {}
                Shown::Value(value) => map.serialize_entry(name, value)?,
                Shown::Debug(text) => map.serialize_entry(name, text)?,
            }
        }
        map.end()
    };
    write(&mut bytes).expect("texts, numbers and truth values can be written to memory");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// The content of an event.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Shown)>,
}

enum Shown {
    Value(Value),
    /// As its type shows it.
    Debug(String),
}

impl Said {
    fn push(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.push((field.name(), Shown::Value(value.into())));
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            MESSAGE => self.message = text,
            name => self.fields.push((name, Shown::Debug(text))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            MESSAGE => self.message = value.to_owned(),
            _ => self.push(field, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value);
    }
}

/// RFC 3339, in UTC.
fn now() -> String {
    let mut now = String::new();
    SystemTime.format_time(&mut Writer::new(&mut now)).expect("a text takes what is written");
    now
}

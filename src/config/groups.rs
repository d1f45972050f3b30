//! The groups of the configuration file.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::config::ConfigError;
use crate::config::values::{duration, size};
use crate::groups::options::{Options, OriginOptions};
use crate::item::KEY_MAX;
use crate::origin::{http, memcached, sql};

/// The key of the file under which groups stand.
pub(super) const KEY: &str = "group";

/// Longest name of a group, in bytes.
const NAME_MAX: usize = 64;

/// Loads of a group at the same time.
const INFLIGHT: RangeInclusive<i64> = 1..=10_000;

/// Memory of its own is worth while from here on, at least; and the largest item (`-I`) must fit.
const BYTES_LEAST: u64 = 1 << 20;

/// How long a client may wait for a load.
const WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

/// How long anything may live, or be remembered: what a relative expiry time may say.
const LIFE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60 * 24 * 30);

/// How long an origin may take to be connected to, at most; no longer than a client waits.
const CONNECT: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    group: Vec<Spanned<GroupTable>>,
}

type Field = Option<Spanned<Value>>;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct GroupTable {
    name: Spanned<String>,
    prefix: Spanned<String>,
    ttl: Field,
    max_ttl: Field,
    ttl_jitter: Field,
    negative_ttl: Field,
    stale_while_revalidate: Field,
    stale_if_error: Field,
    refresh_ahead: Field,
    wait: Field,
    max_inflight: Field,
    max_bytes: Field,
    origin: Option<Spanned<OriginTable>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct OriginTable {
    http: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    bearer_token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    sql: Option<String>,
    url: Option<String>,
    password_file: Option<PathBuf>,
    memcached: Option<Vec<String>>,
}

/// What is wrong, and where in the file.
struct Wrong {
    at: usize,
    why: String,
}

/// Reads the groups of a file. Values of origins may have as many bytes as an item.
///
/// # Errors
/// The line that is wrong, the group and the field, and what is allowed.
pub(super) fn read(path: &Path, value_max: usize) -> Result<Vec<Options>, ConfigError> {
    let refuse = |why: String| ConfigError::File { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    parse(&text, value_max).map_err(|wrong| {
        let line = 1 + text.bytes().take(wrong.at).filter(|byte| *byte == b'\n').count();
        refuse(format!("line {line}: {}", wrong.why))
    })
}

fn parse(text: &str, value_max: usize) -> Result<Vec<Options>, Wrong> {
    let file: File = toml::from_str(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        why: error.message().replace('\n', " "),
    })?;
    let mut groups: Vec<Options> = Vec::new();
    for table in file.group {
        let (name, prefix) = (table.get_ref().name.span().start, table.get_ref().prefix.span().start);
        let group = group(table, value_max)?;
        let wrong = |at, why: String| Err(Wrong { at, why: format!("group {:?}: {why}", group.name) });
        for other in &groups {
            if other.name == group.name {
                return wrong(name, "name: another group has it".into());
            }
            if other.prefix == group.prefix {
                return wrong(prefix, format!("prefix: the group {:?} has it", other.name));
            }
        }
        groups.push(group);
    }
    Ok(groups)
}

fn group(table: Spanned<GroupTable>, value_max: usize) -> Result<Options, Wrong> {
    let at = table.span().start;
    let table = table.into_inner();
    let name = table.name.get_ref().clone();
    let fields = Fields { group: &name };
    let is_named = (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if !is_named {
        let why = format!("needs 1 to {NAME_MAX} letters, digits, '_', '-' and '.'");
        return Err(fields.wrong(table.name.span().start, "name", why));
    }
    let prefix = table.prefix.get_ref().as_bytes().to_vec();
    let is_key = |byte: &u8| !byte.is_ascii_control() && *byte != b' ';
    if prefix.is_empty() || prefix.len() > KEY_MAX || !prefix.iter().all(is_key) {
        let why = format!("needs 1 to {KEY_MAX} bytes that a key may begin with: no spaces, no controls");
        return Err(fields.wrong(table.prefix.span().start, "prefix", why));
    }
    let origin_at = table.origin.as_ref().map_or(at, |origin| origin.span().start);
    let no_life = Duration::ZERO..=*LIFE.end();
    let mut options = Options {
        name: name.clone(),
        prefix,
        ttl: fields.duration(table.ttl.as_ref(), "ttl", &LIFE)?,
        max_ttl: fields.duration(table.max_ttl.as_ref(), "max-ttl", &LIFE)?,
        ttl_jitter: fields.part(table.ttl_jitter.as_ref(), "ttl-jitter", 0.5)?,
        negative_ttl: fields
            .duration(table.negative_ttl.as_ref(), "negative-ttl", &no_life)?
            .unwrap_or_default(),
        stale_while_revalidate: fields
            .duration(table.stale_while_revalidate.as_ref(), "stale-while-revalidate", &no_life)?
            .unwrap_or_default(),
        stale_if_error: fields
            .duration(table.stale_if_error.as_ref(), "stale-if-error", &no_life)?
            .unwrap_or_default(),
        refresh_ahead: fields.part(table.refresh_ahead.as_ref(), "refresh-ahead", 0.9)?,
        ..Options::default()
    };
    if let Some(wait) = fields.duration(table.wait.as_ref(), "wait", &WAIT)? {
        options.wait = wait;
    }
    if let Some(max_inflight) = fields.number(table.max_inflight.as_ref(), "max-inflight", &INFLIGHT)? {
        options.max_inflight = max_inflight;
    }
    options.max_bytes = fields.bytes(table.max_bytes.as_ref(), "max-bytes", value_max)?;
    if let Some(origin) = table.origin {
        let origin = fields.origin(origin_at, origin.into_inner(), &options, value_max)?;
        origin.check().map_err(|invalid| fields.wrong(origin_at, invalid.field, invalid.why))?;
        options.origin = Some(origin);
    }
    let needs_ttl = !options.stale_span().is_zero() || options.refresh_ahead > 0.0;
    let has_ttl = options.ttl.is_some() || options.max_ttl.is_some();
    if needs_ttl && !(has_ttl && options.origin.is_some()) {
        let why = "stale-while-revalidate, stale-if-error and refresh-ahead need a ttl and an origin";
        return Err(Wrong { at, why: format!("group {name:?}: {why}") });
    }
    Ok(options)
}

/// The fields of one group.
struct Fields<'a> {
    group: &'a str,
}

impl Fields<'_> {
    fn wrong(&self, at: usize, field: &str, why: impl std::fmt::Display) -> Wrong {
        Wrong { at, why: format!("group {:?}: {field}: {why}", self.group) }
    }

    fn duration(
        &self,
        field: Option<&Spanned<Value>>,
        name: &str,
        allowed: &RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, Wrong> {
        let Some(field) = field else { return Ok(None) };
        let read = match field.get_ref() {
            Value::String(text) => duration(text),
            Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            _ => None,
        };
        match read.filter(|read| allowed.contains(read)) {
            Some(read) => Ok(Some(read)),
            None => {
                let (least, most) = (allowed.start(), allowed.end());
                let why = format!(
                    "needs a time such as \"500ms\", \"10s\", \"5m\" or \"1h\", from {least:?} to {most:?}"
                );
                Err(self.wrong(field.span().start, name, why))
            }
        }
    }

    /// A part of something, from 0 to `most`.
    fn part(&self, field: Option<&Spanned<Value>>, name: &str, most: f64) -> Result<f64, Wrong> {
        let Some(field) = field else { return Ok(0.0) };
        let read = match field.get_ref() {
            Value::Float(part) => Some(*part),
            Value::Integer(part) => Some(*part as f64),
            _ => None,
        };
        read.filter(|part| (0.0..=most).contains(part))
            .ok_or_else(|| self.wrong(field.span().start, name, format!("needs a number from 0 to {most}")))
    }

    fn number(
        &self,
        field: Option<&Spanned<Value>>,
        name: &str,
        allowed: &RangeInclusive<i64>,
    ) -> Result<Option<usize>, Wrong> {
        let Some(field) = field else { return Ok(None) };
        match field.get_ref() {
            Value::Integer(number) if allowed.contains(number) => Ok(usize::try_from(*number).ok()),
            _ => {
                let why = format!("needs a whole number from {} to {}", allowed.start(), allowed.end());
                Err(self.wrong(field.span().start, name, why))
            }
        }
    }

    /// A size, in which the largest item has room.
    fn bytes(&self, field: Option<&Spanned<Value>>, name: &str, item: usize) -> Result<Option<u64>, Wrong> {
        let Some(field) = field else { return Ok(None) };
        let read = match field.get_ref() {
            Value::String(text) => size(text, 1),
            Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            _ => None,
        };
        let least = BYTES_LEAST.max(item as u64);
        match read.filter(|bytes| *bytes >= least) {
            Some(read) => Ok(Some(read)),
            None => {
                let why = format!("needs a size such as \"64m\" or \"2g\", and at least {least} bytes");
                Err(self.wrong(field.span().start, name, why))
            }
        }
    }

    fn origin(
        &self,
        at: usize,
        table: OriginTable,
        group: &Options,
        value_max: usize,
    ) -> Result<OriginOptions, Wrong> {
        let (connections, connect_timeout) = (group.max_inflight, group.wait.min(CONNECT));
        self.check_stray(at, &table)?;
        let OriginTable { headers, bearer_token_file, ca_file, url, password_file, .. } = table;
        Ok(match (table.http, table.sql, table.memcached) {
            (Some(http), None, None) => OriginOptions::Http(http::Options {
                url: http,
                headers: headers.into_iter().collect(),
                bearer_token_file,
                ca_file,
                connections,
                value_max,
                connect_timeout,
            }),
            (None, Some(query), None) => {
                let why = "is missing: postgres://..., mysql://... or sqlite:...";
                let url = url.ok_or_else(|| self.wrong(at, "url", why))?;
                OriginOptions::Sql(sql::Options {
                    query,
                    url,
                    password_file,
                    connections,
                    value_max,
                    connect_timeout,
                })
            }
            (None, None, Some(servers)) => OriginOptions::Memcached(memcached::Options {
                servers,
                prefix: group.prefix.clone(),
                connections,
                value_max,
                connect_timeout,
            }),
            _ => return Err(self.wrong(at, "origin", "needs one of http, sql and memcached")),
        })
    }

    /// Refuses fields of one kind of origin beside those of another.
    fn check_stray(&self, at: usize, table: &OriginTable) -> Result<(), Wrong> {
        let of_http = [
            ("headers", !table.headers.is_empty()),
            ("bearer-token-file", table.bearer_token_file.is_some()),
            ("ca-file", table.ca_file.is_some()),
        ];
        let of_sql = [("url", table.url.is_some()), ("password-file", table.password_file.is_some())];
        for (origin, is_it, others) in [
            ("http", table.http.is_some(), &of_sql[..]),
            ("sql", table.sql.is_some(), &of_http[..]),
            (
                "memcached",
                table.memcached.is_some(),
                &[of_http[0], of_http[1], of_http[2], of_sql[0], of_sql[1]],
            ),
        ] {
            if let Some((field, _)) = others.iter().find(|(_, is_given)| is_it && *is_given) {
                return Err(self.wrong(at, field, format!("means nothing beside {origin}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE_MAX: usize = 1 << 20;

    fn said(text: &str) -> String {
        match parse(text, VALUE_MAX) {
            Ok(groups) => format!("{} groups", groups.len()),
            Err(Wrong { at, why }) => {
                format!("{}: {why}", 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count())
            }
        }
    }

    #[test]
    fn a_whole_group_is_read() {
        let text = r#"
            memory-limit = 64
            [[group]]
            name = "scores"
            prefix = "scores:"
            ttl = "10m"
            max-ttl = "1h"
            ttl-jitter = 0.1
            negative-ttl = "5s"
            stale-while-revalidate = "1m"
            stale-if-error = "1h"
            refresh-ahead = 0.2
            wait = "1500ms"
            max-inflight = 8
            max-bytes = "256m"
            [group.origin]
            memcached = ["old-1:11211", "old-2:11211"]
            [[group]]
            name = "plain"
            prefix = "p"
        "#;
        let groups = parse(text, VALUE_MAX).map_err(|wrong| wrong.why).expect("valid");
        let seconds = Duration::from_secs;
        let expected = Options {
            name: "scores".into(),
            prefix: b"scores:".to_vec(),
            ttl: Some(seconds(600)),
            max_ttl: Some(seconds(3600)),
            ttl_jitter: 0.1,
            negative_ttl: seconds(5),
            stale_while_revalidate: seconds(60),
            stale_if_error: seconds(3600),
            refresh_ahead: 0.2,
            wait: Duration::from_millis(1500),
            max_inflight: 8,
            max_bytes: Some(256 << 20),
            origin: Some(OriginOptions::Memcached(memcached::Options {
                servers: vec!["old-1:11211".into(), "old-2:11211".into()],
                prefix: b"scores:".to_vec(),
                connections: 8,
                value_max: VALUE_MAX,
                connect_timeout: Duration::from_millis(1500),
            })),
        };
        assert_eq!(groups[0], expected);
        assert_eq!(groups[1], Options { name: "plain".into(), prefix: b"p".to_vec(), ..Options::default() });
    }

    #[test]
    fn faults_name_the_line_the_group_and_the_field() {
        let group = |rest: &str| format!("\n[[group]]\nname = \"a\"\nprefix = \"a:\"\n{rest}");
        let origin = |rest: &str| group(&format!("[group.origin]\n{rest}"));
        let of_http = if cfg!(feature = "origin-http") {
            "5: group \"a\": http: has no {key}"
        } else {
            "5: group \"a\": http: this build has no HTTP origins (Cargo feature origin-http)"
        };
        let of_sql = if cfg!(feature = "origin-sql") {
            "5: group \"a\": sql: needs exactly one parameter"
        } else {
            "5: group \"a\": sql: this build has no SQL origins (Cargo feature origin-sql)"
        };
        for (text, expected) in [
            (group("tll = \"1s\""), "5: unknown field `tll`, expected one of `name`"),
            (group("ttl = \"soon\""), "5: group \"a\": ttl: needs a time such as \"500ms\""),
            (group("wait = \"2m\""), "5: group \"a\": wait: needs a time"),
            (group("ttl-jitter = 0.9"), "5: group \"a\": ttl-jitter: needs a number from 0 to 0.5"),
            (group("max-inflight = 0"), "5: group \"a\": max-inflight: needs a whole number from 1 to 10000"),
            (
                group("max-bytes = \"64k\""),
                "5: group \"a\": max-bytes: needs a size such as \"64m\" or \"2g\"",
            ),
            (group("max-bytes = \"much\""), "5: group \"a\": max-bytes: needs a size"),
            (group("stale-if-error = \"1s\""), "2: group \"a\": stale-while-revalidate, stale-if-error and"),
            (format!("{}{}", group(""), group("")), "7: group \"a\": name: another group has it"),
            (
                format!("{}{}", group(""), group("").replace("\"a\"", "\"b\"")),
                "8: group \"b\": prefix: the group \"a\" has it",
            ),
            ("[[group]]\nname = \"a b\"\nprefix = \"a\"".into(), "2: group \"a b\": name: needs 1 to 64"),
            ("[[group]]\nname = \"a\"\nprefix = \"a b\"".into(), "3: group \"a\": prefix: needs 1 to 250"),
            ("[[group]]\nname = \"a\"".into(), "1: missing field `prefix`"),
            ("group = 3".into(), "1: invalid type: integer `3`, expected a sequence"),
            (origin(""), "5: group \"a\": origin: needs one of http, sql and memcached"),
            (
                origin("http = \"http://a/{key}\"\nurl = \"x\""),
                "5: group \"a\": url: means nothing beside http",
            ),
            (origin("sql = \"select 1\""), "5: group \"a\": url: is missing"),
            (origin("http = \"http://a/\""), of_http),
            (origin("memcached = []"), "5: group \"a\": memcached: "),
            (origin("sql = \"select 1\"\nurl = \"sqlite:x.db\""), of_sql),
        ] {
            let said = said(&text);
            assert!(said.starts_with(expected), "{said}\n{expected}");
        }
    }
}

//! The groups of the configuration file.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::ConfigError;
use crate::config::values::{duration, size};
use crate::groups::options::{Options, OriginOptions};
use crate::item::KEY_MAX;
use crate::origin::{Invalid, http, memcached, sql};

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

/// The fields of a group.
const FIELDS: &[&str] = &[
    "name",
    "prefix",
    "ttl",
    "max-ttl",
    "ttl-jitter",
    "negative-ttl",
    "stale-while-revalidate",
    "stale-if-error",
    "refresh-ahead",
    "wait",
    "max-inflight",
    "max-bytes",
    ORIGIN,
];

/// The field of a group that is a table of its own.
const ORIGIN: &str = "origin";

/// The kinds of origins: the field that each one has, and those that may stand beside it.
const ORIGIN_KINDS: [(&str, &[&str]); 3] = [
    ("http", &["headers", "bearer-token-file", "ca-file"]),
    ("sql", &["url", "password-file"]),
    ("memcached", &[]),
];

const ONE_ORIGIN: &str = "needs one of http, sql and memcached";

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
    let file = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        why: error.message().replace('\n', " "),
    })?;
    let Some((key, tables)) = file.get_ref().iter().find(|(key, _)| key.get_ref() == KEY) else {
        return Ok(Vec::new());
    };
    let no_tables = |at| Wrong { at, why: format!("{KEY}: needs tables, each under [[{KEY}]]") };
    let tables = tables.get_ref().as_array().ok_or_else(|| no_tables(key.span().start))?;
    let mut groups: Vec<Options> = Vec::new();
    for (number, table) in (1..).zip(tables) {
        let fields = Fields::of_group(number, table).ok_or_else(|| no_tables(table.span().start))?;
        let group = group(&fields, value_max)?;
        for other in &groups {
            if other.name == group.name {
                return Err(fields.wrong("name", "another group has it"));
            }
            if other.prefix == group.prefix {
                return Err(fields.wrong("prefix", format!("the group {:?} has it", other.name)));
            }
        }
        groups.push(group);
    }
    Ok(groups)
}

fn group(fields: &Fields<'_>, value_max: usize) -> Result<Options, Wrong> {
    fields.check_names("a group", FIELDS)?;
    let no_life = Duration::ZERO..=*LIFE.end();
    let mut options = Options {
        name: fields.name()?,
        prefix: fields.prefix()?,
        ttl: fields.duration("ttl", &LIFE)?,
        max_ttl: fields.duration("max-ttl", &LIFE)?,
        ttl_jitter: fields.part("ttl-jitter", 0.5)?,
        negative_ttl: fields.duration("negative-ttl", &no_life)?.unwrap_or_default(),
        stale_while_revalidate: fields.duration("stale-while-revalidate", &no_life)?.unwrap_or_default(),
        stale_if_error: fields.duration("stale-if-error", &no_life)?.unwrap_or_default(),
        refresh_ahead: fields.part("refresh-ahead", 0.9)?,
        ..Options::default()
    };
    if let Some(wait) = fields.duration("wait", &WAIT)? {
        options.wait = wait;
    }
    if let Some(max_inflight) = fields.number("max-inflight", &INFLIGHT)? {
        options.max_inflight = max_inflight;
    }
    options.max_bytes = fields.bytes("max-bytes", value_max)?;
    if let Some(table) = fields.given(ORIGIN) {
        let table = table.get_ref().as_table().ok_or_else(|| fields.wrong(ORIGIN, ONE_ORIGIN))?;
        let of_origin = Fields { group: fields.group.clone(), at: fields.at(ORIGIN), table };
        let origin = origin(&of_origin, &options, value_max)?;
        origin.check().map_err(|Invalid { field, why }| of_origin.wrong(field, why))?;
        options.origin = Some(origin);
    }
    let renews = [
        ("stale-while-revalidate", !options.stale_while_revalidate.is_zero()),
        ("stale-if-error", !options.stale_if_error.is_zero()),
        ("refresh-ahead", options.refresh_ahead > 0.0),
    ];
    let can_renew = options.own_ttl().is_some() && options.origin.is_some();
    match renews.iter().find(|(_, is_set)| *is_set && !can_renew) {
        Some((field, _)) => Err(fields.wrong(field, "needs a ttl or max-ttl, and an origin")),
        None => Ok(options),
    }
}

fn origin(fields: &Fields<'_>, group: &Options, value_max: usize) -> Result<OriginOptions, Wrong> {
    let names: Vec<&str> =
        ORIGIN_KINDS.iter().flat_map(|(kind, others)| [&[*kind], *others].concat()).collect();
    fields.check_names("an origin", &names)?;
    let given: Vec<_> = ORIGIN_KINDS.iter().filter(|(kind, _)| fields.given(kind).is_some()).collect();
    let [(kind, others)] = given[..] else { return Err(fields.wrong(ORIGIN, ONE_ORIGIN)) };
    let is_stray = |name: &&&str| *name != kind && !others.contains(name) && fields.given(name).is_some();
    if let Some(stray) = names.iter().find(is_stray) {
        return Err(fields.wrong(stray, format!("means nothing beside {kind}")));
    }
    let (connections, connect_timeout) = (group.max_inflight, group.wait.min(CONNECT));
    if let Some(url) = fields.text("http", "such as \"https://host/path/{key}\"")? {
        return Ok(OriginOptions::Http(http::Options {
            url,
            headers: fields.headers("headers")?,
            bearer_token_file: fields.path("bearer-token-file")?,
            ca_file: fields.path("ca-file")?,
            connections,
            value_max,
            connect_timeout,
        }));
    }
    if let Some(query) = fields.text("sql", "such as \"select value from scores where name = $1\"")? {
        let url = fields.text("url", "postgres://..., mysql://... or sqlite:...")?;
        let missing = || fields.wrong("url", "is missing: postgres://..., mysql://... or sqlite:...");
        return Ok(OriginOptions::Sql(sql::Options {
            query,
            url: url.ok_or_else(missing)?,
            password_file: fields.path("password-file")?,
            connections,
            value_max,
            connect_timeout,
        }));
    }
    Ok(OriginOptions::Memcached(memcached::Options {
        servers: fields.texts("memcached", "such as [\"old-1:11211\", \"old-2:11211\"]")?,
        prefix: group.prefix.clone(),
        connections,
        value_max,
        connect_timeout,
    }))
}

/// A table of the file: a group, or its origin.
struct Fields<'a> {
    /// What messages call the group: its name in quotes, or its number where it has none.
    group: String,
    /// Where the table begins.
    at: usize,
    table: &'a DeTable<'a>,
}

impl<'a> Fields<'a> {
    fn of_group(number: usize, table: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        let at = table.span().start;
        let table = table.get_ref().as_table()?;
        let mut fields = Self { group: number.to_string(), at, table };
        if let Some(name) = fields.given("name").and_then(|name| name.get_ref().as_str())
            && !name.is_empty()
        {
            fields.group = format!("{name:?}");
        }
        Some(fields)
    }

    fn given(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.iter().find_map(|(key, value)| (key.get_ref() == name).then_some(value))
    }

    /// Where a field is; where its table begins if it is not given.
    fn at(&self, name: &str) -> usize {
        let key = self.table.keys().find(|key| key.get_ref() == name);
        key.map_or(self.at, |key| key.span().start)
    }

    fn wrong(&self, field: &str, why: impl Display) -> Wrong {
        self.wrong_at(self.at(field), field, why)
    }

    fn wrong_at(&self, at: usize, field: &str, why: impl Display) -> Wrong {
        Wrong { at, why: format!("group {}: {field}: {why}", self.group) }
    }

    /// Refuses the first field that has none of these names.
    fn check_names(&self, of: &str, names: &[&str]) -> Result<(), Wrong> {
        let unknown = self.table.keys().filter(|key| !names.contains(&&**key.get_ref()));
        match unknown.min_by_key(|key| key.span().start) {
            Some(key) => {
                let why = format!("is no field of {of} (allowed: {})", names.join(", "));
                Err(self.wrong(key.get_ref(), why))
            }
            None => Ok(()),
        }
    }

    fn name(&self) -> Result<String, Wrong> {
        let is_name = |name: &&str| {
            (1..=NAME_MAX).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let name = self.given("name").and_then(|name| name.get_ref().as_str()).filter(is_name);
        name.map(str::to_owned).ok_or_else(|| {
            self.wrong("name", format!("needs 1 to {NAME_MAX} letters, digits, '_', '-' and '.'"))
        })
    }

    fn prefix(&self) -> Result<Vec<u8>, Wrong> {
        let is_prefix = |prefix: &&str| {
            (1..=KEY_MAX).contains(&prefix.len())
                && prefix.bytes().all(|byte| !byte.is_ascii_control() && byte != b' ')
        };
        let prefix = self.given("prefix").and_then(|prefix| prefix.get_ref().as_str()).filter(is_prefix);
        prefix.map(|prefix| prefix.as_bytes().to_vec()).ok_or_else(|| {
            let why = format!("needs 1 to {KEY_MAX} bytes that a key may begin with: no spaces, no controls");
            self.wrong("prefix", why)
        })
    }

    fn duration(&self, name: &str, allowed: &RangeInclusive<Duration>) -> Result<Option<Duration>, Wrong> {
        let Some(field) = self.given(name) else { return Ok(None) };
        let read = match field.get_ref() {
            DeValue::String(text) => duration(text),
            value => integer(value).and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
        };
        match read.filter(|read| allowed.contains(read)) {
            Some(read) => Ok(Some(read)),
            None => {
                let (least, most) = (allowed.start(), allowed.end());
                let why = format!(
                    "needs a time such as \"500ms\", \"10s\", \"5m\" or \"1h\", from {least:?} to {most:?}"
                );
                Err(self.wrong(name, why))
            }
        }
    }

    /// A part of something, from 0 to `most`.
    fn part(&self, name: &str, most: f64) -> Result<f64, Wrong> {
        let Some(field) = self.given(name) else { return Ok(0.0) };
        let read = match field.get_ref() {
            DeValue::Float(part) => part.as_str().parse().ok(),
            value => integer(value).map(|part| part as f64),
        };
        read.filter(|part| (0.0..=most).contains(part))
            .ok_or_else(|| self.wrong(name, format!("needs a number from 0 to {most}")))
    }

    fn number(&self, name: &str, allowed: &RangeInclusive<i64>) -> Result<Option<usize>, Wrong> {
        let Some(field) = self.given(name) else { return Ok(None) };
        match integer(field.get_ref()).filter(|number| allowed.contains(number)) {
            Some(number) => Ok(usize::try_from(number).ok()),
            None => {
                let why = format!("needs a whole number from {} to {}", allowed.start(), allowed.end());
                Err(self.wrong(name, why))
            }
        }
    }

    /// A size, in which the largest item has room.
    fn bytes(&self, name: &str, item: usize) -> Result<Option<u64>, Wrong> {
        let Some(field) = self.given(name) else { return Ok(None) };
        let read = match field.get_ref() {
            DeValue::String(text) => size(text, 1),
            value => integer(value).and_then(|bytes| u64::try_from(bytes).ok()),
        };
        let least = BYTES_LEAST.max(item as u64);
        match read.filter(|bytes| *bytes >= least) {
            Some(read) => Ok(Some(read)),
            None => {
                let why = format!("needs a size such as \"64m\" or \"2g\", and at least {least} bytes");
                Err(self.wrong(name, why))
            }
        }
    }

    fn text(&self, name: &str, what: &str) -> Result<Option<String>, Wrong> {
        let Some(field) = self.given(name) else { return Ok(None) };
        let text =
            field.get_ref().as_str().ok_or_else(|| self.wrong(name, format!("needs a string: {what}")))?;
        Ok(Some(text.to_owned()))
    }

    fn path(&self, name: &str) -> Result<Option<PathBuf>, Wrong> {
        Ok(self.text(name, "the path of a file")?.map(PathBuf::from))
    }

    fn texts(&self, name: &str, what: &str) -> Result<Vec<String>, Wrong> {
        let why = format!("needs a list of strings: {what}");
        let values = self.given(name).and_then(|values| values.get_ref().as_array());
        let text = |value: &Spanned<DeValue<'_>>| {
            let text = value.get_ref().as_str().map(str::to_owned);
            text.ok_or_else(|| self.wrong_at(value.span().start, name, &why))
        };
        values.ok_or_else(|| self.wrong(name, &why))?.iter().map(text).collect()
    }

    fn headers(&self, name: &str) -> Result<Vec<(String, String)>, Wrong> {
        let Some(field) = self.given(name) else { return Ok(Vec::new()) };
        let why = "needs a table of strings, such as { Accept = \"text/plain\" }";
        let table = field.get_ref().as_table().ok_or_else(|| self.wrong(name, why))?;
        let mut headers = Vec::with_capacity(table.len());
        for (key, value) in table {
            let (header, text) = (key.get_ref(), value.get_ref().as_str());
            let wrong = || self.wrong_at(key.span().start, name, format!("{header:?}: {why}"));
            headers.push((header.to_string(), text.ok_or_else(wrong)?.to_owned()));
        }
        Ok(headers)
    }
}

/// A whole number.
fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
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
            "6: group \"a\": http: has no {key}"
        } else {
            "6: group \"a\": http: this build has no HTTP origins (Cargo feature origin-http)"
        };
        let of_sql = if cfg!(feature = "origin-sql") {
            "6: group \"a\": sql: needs exactly one parameter"
        } else {
            "6: group \"a\": sql: this build has no SQL origins (Cargo feature origin-sql)"
        };
        for (text, expected) in [
            (
                group("tll = \"1s\""),
                "5: group \"a\": tll: is no field of a group (allowed: name, prefix, ttl",
            ),
            (group("ttl = \"soon\""), "5: group \"a\": ttl: needs a time such as \"500ms\""),
            (group("wait = \"2m\""), "5: group \"a\": wait: needs a time"),
            (group("ttl-jitter = 0.9"), "5: group \"a\": ttl-jitter: needs a number from 0 to 0.5"),
            (group("max-inflight = 0"), "5: group \"a\": max-inflight: needs a whole number from 1 to 10000"),
            (
                group("max-bytes = \"64k\""),
                "5: group \"a\": max-bytes: needs a size such as \"64m\" or \"2g\"",
            ),
            (group("max-bytes = \"much\""), "5: group \"a\": max-bytes: needs a size"),
            (
                group("ttl = 7\nstale-if-error = \"1s\""),
                "6: group \"a\": stale-if-error: needs a ttl or max-ttl",
            ),
            (group("stale-while-revalidate = 9"), "5: group \"a\": stale-while-revalidate: needs a ttl"),
            (
                group("wait = 1\nrefresh-ahead = 0.5\n[group.origin]\nmemcached = [\"a\"]"),
                "6: group \"a\": refresh-ahead: needs a ttl or max-ttl, and an origin",
            ),
            (format!("{}[[group]]\nprefix = \"b\"", group("")), "5: group 2: name: needs 1 to 64 letters"),
            ("[[group]]\nprefix = \"b\"\nname = 5".into(), "3: group 1: name: needs 1 to 64 letters"),
            (format!("{}{}", group(""), group("")), "7: group \"a\": name: another group has it"),
            (
                format!("{}{}", group(""), group("").replace("\"a\"", "\"b\"")),
                "8: group \"b\": prefix: the group \"a\" has it",
            ),
            ("[[group]]\nname = \"a b\"\nprefix = \"a\"".into(), "2: group \"a b\": name: needs 1 to 64"),
            ("[[group]]\nname = \"a\"\nprefix = \"a b\"".into(), "3: group \"a\": prefix: needs 1 to 250"),
            ("[[group]]\nname = \"a\"".into(), "1: group \"a\": prefix: needs 1 to 250"),
            ("group = 3".into(), "1: group: needs tables, each under [[group]]"),
            ("\n[group]\nname = \"a\"".into(), "2: group: needs tables, each under [[group]]"),
            (group("origin = 5"), "5: group \"a\": origin: needs one of http, sql and memcached"),
            (origin(""), "5: group \"a\": origin: needs one of http, sql and memcached"),
            (
                origin("http = \"http://a/{key}\"\nurl = \"x\""),
                "7: group \"a\": url: means nothing beside http",
            ),
            (
                origin("foo = 1\nhttp = \"x\""),
                "6: group \"a\": foo: is no field of an origin (allowed: http, ",
            ),
            (origin("\nhttp = 5"), "7: group \"a\": http: needs a string: such as \"https://host/"),
            (origin("sql = \"x\"\nurl = 5"), "7: group \"a\": url: needs a string: postgres://"),
            (
                origin("sql = \"x\"\nurl = \"sqlite:x\"\npassword-file = 5"),
                "8: group \"a\": password-file: needs a string: the path of a file",
            ),
            (origin("memcached = \"a:1\""), "6: group \"a\": memcached: needs a list of strings: such as ["),
            (origin("memcached = [\n\"a:1\",\n5]"), "8: group \"a\": memcached: needs a list of strings"),
            (origin("http = \"x\"\nheaders = 5"), "7: group \"a\": headers: needs a table of strings"),
            (origin("http = \"x\"\nheaders = {X = 1}"), "7: group \"a\": headers: \"X\": needs a table of"),
            (
                origin("http = \"x\"\n[group.origin.headers]\nA = \"a\"\nX = 1"),
                "9: group \"a\": headers: \"X\": needs a table of strings",
            ),
            (origin("sql = \"select 1\""), "5: group \"a\": url: is missing"),
            (origin("http = \"http://a/\""), of_http),
            (origin("memcached = []"), "6: group \"a\": memcached: "),
            (origin("\nmemcached = [\"a:0\"]"), "7: group \"a\": memcached: \"a:0\": "),
            (origin("sql = \"select 1\"\nurl = \"sqlite:x.db\""), of_sql),
        ] {
            let said = said(&text);
            assert!(said.starts_with(expected), "{said}\n{expected}");
        }
    }
}

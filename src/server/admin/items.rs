//! `/api/v1/items/{key}`: what `get`, `set` and `delete` do, over HTTP.
//!
//! The body is the value, unchanged; headers carry flags, expiry time and CAS token. Keys are percent-encoded, and may
//! have any byte.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::State;
use axum::http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPECT, IF_MATCH, IF_NONE_MATCH,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use tokio_stream::StreamExt as _;

use crate::command::{Command, Delete, Get, Outcome, Set, SetMode, Verb};
use crate::item::{Exptime, ItemView, KEY_MAX};
use crate::server::admin::Admin;
use crate::server::admin::problem::Problem;

/// The client's own 32 bits.
const FLAGS: HeaderName = HeaderName::from_static("filbert-flags");

/// Seconds until the item ends; in an answer, absent when it does not.
const TTL: HeaderName = HeaderName::from_static("filbert-ttl");

/// How much of a value that is too large is read, and for how long: its sender must still be there to receive the
/// error.
const LINGER_BYTES: usize = 16 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// Room for a value before any of it has come.
const ROOM_AT_FIRST: usize = 64 << 10;

const PATH: &str = "/api/v1/items/";

pub(super) async fn read(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = key(&uri, PATH)?;
    let known = tags(&headers, &IF_NONE_MATCH)?;
    let is_known = |cas| known.iter().any(|tag| matches!(tag, Tag::Any) || tag.is_of(cas));
    let show = |outcome: Outcome<'_>| match outcome {
        Outcome::Found(found) if is_known(found.item.cas) => {
            Ok((StatusCode::NOT_MODIFIED, item_headers(&found.item)).into_response())
        }
        Outcome::Found(found) => {
            let value = Bytes::copy_from_slice(found.item.value);
            Ok((item_headers(&found.item), value).into_response())
        }
        outcome => Err(refusal(outcome)),
    };
    admin.cache.execute(&command(&key, Verb::Get(Get::PLAIN)), show).await
}

pub(super) async fn write(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let key = key(&uri, PATH)?;
    let (mode, compare) = match (&*tags(&headers, &IF_MATCH)?, &*tags(&headers, &IF_NONE_MATCH)?) {
        ([], []) => (SetMode::Set, None),
        ([Tag::Any], []) => (SetMode::Replace, None),
        ([tag], []) => (SetMode::Set, Some(tag.to_compare()?)),
        ([], [Tag::Any]) => (SetMode::Add, None),
        _ => {
            return Err(Problem::bad_request("allowed are If-Match with one ETag or *, or If-None-Match: *"));
        }
    };
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::bad_request("a value is stored whole, without Content-Range"));
    }
    let flags = number::<u32>(&headers, &FLAGS, "a whole number of 32 bits")?.unwrap_or(0);
    let ttl = number::<i64>(&headers, &TTL, "seconds, as memcached's exptime: 0 for no end")?.unwrap_or(0);
    let value = value(&headers, body, admin.context.store.item_size_max()).await?;
    let exptime = Exptime::from_wire(ttl);
    let set = Set { mode, value: &value, flags, exptime, compare, ..Set::PLAIN };
    let show = |outcome: Outcome<'_>| match outcome {
        Outcome::Stored(_) => Ok(StatusCode::NO_CONTENT),
        // A condition was given, or it would have been stored.
        Outcome::NotFound | Outcome::NotStored | Outcome::Exists => Err(unmet()),
        outcome => Err(refusal(outcome)),
    };
    admin.cache.execute(&command(&key, Verb::Set(set)), show).await
}

pub(super) async fn remove(
    State(admin): State<Arc<Admin>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let key = key(&uri, PATH)?;
    let compare = match (&*tags(&headers, &IF_MATCH)?, &*tags(&headers, &IF_NONE_MATCH)?) {
        ([] | [Tag::Any], []) => None,
        ([tag], []) => Some(tag.to_compare()?),
        _ => return Err(Problem::bad_request("allowed is If-Match with one ETag or *")),
    };
    let show = |outcome: Outcome<'_>| match outcome {
        Outcome::Deleted => Ok(StatusCode::NO_CONTENT),
        Outcome::Exists => Err(unmet()),
        outcome => Err(refusal(outcome)),
    };
    admin.cache.execute(&command(&key, Verb::Delete(Delete { compare, ..Delete::default() })), show).await
}

/// The key at the end of a path: any bytes; bytes that a path cannot hold are percent-encoded.
pub(super) fn key(uri: &Uri, before: &str) -> Result<Vec<u8>, Problem> {
    if uri.query().is_some() {
        return Err(Problem::bad_request("write a ? in a key as %3F: nothing else follows the key"));
    }
    let encoded = uri.path().strip_prefix(before).unwrap_or_default();
    let is_escape = |rest: &str| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    if !encoded.split('%').skip(1).all(is_escape) {
        return Err(Problem::bad_request("a % in a key is written %25: two hexadecimal digits follow it"));
    }
    let key: Vec<u8> = percent_decode_str(encoded).collect();
    if (1..=KEY_MAX).contains(&key.len()) {
        Ok(key)
    } else {
        Err(Problem::bad_request(format!("a key has 1 to {KEY_MAX} bytes, this one {}", key.len())))
    }
}

/// A command on a key. A key that the text protocol can only carry in base64 is marked so.
pub(super) fn command<'a>(key: &'a [u8], verb: Verb<'a>) -> Command<'a> {
    let key_binary = key.iter().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control());
    Command { key, key_binary, verb }
}

/// What a condition names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// `*`: any item.
    Any,
    /// The item with this CAS token; weakened, by a proxy perhaps, or not.
    Cas { cas: u64, weak: bool },
    /// A tag that this server never gave.
    Foreign,
}

impl Tag {
    /// Whether an item with this token is the named one, for reading (RFC 9110, 13.1.2).
    fn is_of(self, item: u64) -> bool {
        matches!(self, Self::Cas { cas, .. } if cas == item)
    }

    /// The token that the item must have to be written; a weak one matches none (RFC 9110, 13.1.1).
    fn to_compare(self) -> Result<u64, Problem> {
        match self {
            Self::Cas { cas, weak: false } => Ok(cas),
            _ => Err(unmet()),
        }
    }
}

/// The tags in a header, none without it.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Vec<Tag>, Problem> {
    let Some(text) = text(headers, name)? else { return Ok(Vec::new()) };
    if text == "*" {
        return Ok(vec![Tag::Any]);
    }
    let tag = |word: &str| {
        let (weak, quoted) = word.strip_prefix("W/").map_or((false, word), |quoted| (true, quoted));
        let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
        let ours = inner.bytes().all(|byte| byte.is_ascii_digit()).then(|| inner.parse().ok()).flatten();
        Some(ours.map_or(Tag::Foreign, |cas| Tag::Cas { cas, weak }))
    };
    // This server's tags contain no commas.
    text.split(',').map(|word| tag(word.trim())).collect::<Option<_>>().ok_or_else(|| {
        Problem::bad_request(format!("{name}: {text}: needs * or ETags of this server, such as \"17\""))
    })
}

fn number<T: std::str::FromStr>(
    headers: &HeaderMap,
    name: &HeaderName,
    what: &str,
) -> Result<Option<T>, Problem> {
    let Some(text) = text(headers, name)? else { return Ok(None) };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Problem::bad_request(format!("{name}: {text}: needs {what}"))),
    }
}

/// A header's lines as one; a number cannot be read from several.
fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().map(str::trim));
    let lines: Result<Vec<_>, _> = lines.collect();
    let lines = lines.map_err(|_| Problem::bad_request(format!("{name} is not ASCII")))?;
    Ok((!lines.is_empty()).then(|| lines.join(", ")))
}

/// Reads a value of at most the given number of bytes.
async fn value(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let detail = format!("a value with its key and header may have {bytes_max} bytes (-I)");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut pieces = body.into_data_stream();
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        if !headers.contains_key(EXPECT) {
            linger(&mut pieces).await;
        }
        return Err(too_large());
    }
    // The room grows with the bytes that have come, not with the announced length.
    let mut value = Vec::with_capacity(announced.unwrap_or(0).min(ROOM_AT_FIRST));
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
        if value.len() + piece.len() > bytes_max {
            linger(&mut pieces).await;
            return Err(too_large());
        }
        value.extend_from_slice(&piece);
    }
    Ok(value)
}

/// Reads and discards what a client still sends, unless that is very much: some clients read the error only after they
/// have sent everything.
async fn linger(pieces: &mut BodyDataStream) {
    let mut left = LINGER_BYTES;
    let read = async {
        while let Some(Ok(piece)) = pieces.next().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                break;
            }
        }
    };
    // A slower client sees a broken connection.
    _ = tokio::time::timeout(LINGER, read).await;
}

fn item_headers(item: &ItemView<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(FLAGS, item.flags.into());
    if let Some(seconds) = item.ttl_seconds {
        headers.insert(TTL, seconds.into());
    }
    if item.cas > 0
        && let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", item.cas))
    {
        headers.insert(ETAG, tag);
    }
    headers
}

fn unmet() -> Problem {
    Problem::new(StatusCode::PRECONDITION_FAILED, "the item is not as If-Match or If-None-Match wants it")
}

fn refusal(outcome: Outcome<'_>) -> Problem {
    match outcome {
        Outcome::NotFound => Problem::not_found("there is no item under this key"),
        Outcome::Failed(failure) => failure.into(),
        other => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("unexpected: {}", other.name())),
    }
}

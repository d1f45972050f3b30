//! `ETag`: what a server knows a version of a value by.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{ETAG, HeaderValue};

use crate::origin::Validator;

/// Bytes of a tag that is remembered. Those of nginx have some 20, hashes in hexadecimal up to 130.
const TAG_BYTES_MAX: usize = 256;

/// The tag of an answer whose value may live for `ttl`. `None` where there is none that can be asked about: not one, too
/// long, or not in its quotes (RFC 9110, 8.8.3), as `*` and a list mean something else in `If-None-Match`. A weak one does
/// (13.1.2).
pub fn validator(headers: &HeaderMap, ttl: Option<Duration>) -> Option<Validator> {
    let mut tags = headers.get_all(ETAG).iter();
    let tag = tags.next()?.as_bytes();
    let is_usable = tags.next().is_none() && tag.len() <= TAG_BYTES_MAX && is_tag(tag);
    is_usable.then(|| Validator { tag: tag.into(), ttl })
}

/// The value of `If-None-Match`.
///
/// # Errors
///
/// None for what [`validator`] has made.
pub fn header(known: &Validator) -> Result<HeaderValue, hyper::http::Error> {
    Ok(HeaderValue::from_bytes(&known.tag)?)
}

fn is_tag(bytes: &[u8]) -> bool {
    let quoted = bytes.strip_prefix(b"W/").unwrap_or(bytes);
    let opaque = quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    opaque.is_some_and(|opaque| opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)))
}

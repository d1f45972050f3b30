//! How long an answer says that its value may live.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{AGE, CACHE_CONTROL, HeaderValue};

/// The most that counts (RFC 9111, 1.2.2: 2 to the power of 31 stands for what is longer).
const SECONDS_MAX: u64 = 1 << 31;

/// What `Cache-Control` and `Age` leave for a cache that serves many (RFC 9111, 5.2.2): `s-maxage`, or else `max-age`,
/// minus `Age`. `None` where neither is there.
///
/// `no-store`, `private` and `no-cache` give zero, the last as what is kept is shown without asking the origin first; the
/// two last with names of headers in them say nothing, as no headers are kept. The first of several counts, and what is
/// malformed counts as not there. `Expires` is not looked at. That requests carry a token does not matter (RFC 9111,
/// 3.5), as it is the cache's own and no user's.
pub fn ttl(headers: &HeaderMap) -> Option<Duration> {
    let (mut shared, mut usual) = (None, None);
    for line in headers.get_all(CACHE_CONTROL) {
        let line = String::from_utf8_lossy(line.as_bytes());
        for directive in split(&line) {
            let (name, argument) = match directive.split_once('=') {
                Some((name, argument)) => (name.trim(), argument.trim().trim_matches('"')),
                None => (directive.trim(), ""),
            };
            match name.to_ascii_lowercase().as_str() {
                "no-store" => return Some(Duration::ZERO),
                "no-cache" | "private" if argument.is_empty() => return Some(Duration::ZERO),
                "s-maxage" => shared = shared.or(seconds(argument)),
                "max-age" => usual = usual.or(seconds(argument)),
                _ => {}
            }
        }
    }
    let age = headers.get(AGE).and_then(age).unwrap_or(0);
    shared.or(usual).map(|lifetime| Duration::from_secs(lifetime.saturating_sub(age)))
}

fn age(value: &HeaderValue) -> Option<u64> {
    seconds(value.to_str().ok()?.trim())
}

/// At most [`SECONDS_MAX`], also where the number has more digits than fit.
fn seconds(text: &str) -> Option<u64> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| text.parse().map_or(SECONDS_MAX, |seconds: u64| seconds.min(SECONDS_MAX)))
}

/// Splits at the commas outside of quoted strings.
fn split(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |char| {
        let plain = !std::mem::take(&mut escaped);
        match char {
            '"' if plain => quoted = !quoted,
            '\\' if quoted && plain => escaped = true,
            ',' => return !quoted,
            _ => {}
        }
        false
    })
}

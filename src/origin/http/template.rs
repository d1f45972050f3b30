//! The address of an origin with `{key}` in it, and what it makes of a key.

use hyper::http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::origin::http::cause::Cause;
use crate::origin::http::site::Site;

/// What stands for the key.
const KEY: &str = "{key}";

/// What of a key is encoded: all but the unreserved characters (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const ALLOWED: &str = "allowed: http:// or https://, a host, maybe a port, then a path or a query with {key}, \
     as in https://host/path/{key}";

/// A site, and a path with maybe a query in which keys are put.
#[derive(Debug)]
pub struct Template {
    site: Site,
    /// What stands around the keys: at least two, and the first begins with a slash.
    parts: Vec<String>,
}

impl Template {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Says what is wrong and what is allowed, and quotes nothing of it: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        Self::read(url).map_err(|why| format!("{why} ({ALLOWED})"))
    }

    fn read(url: &str) -> Result<Self, &'static str> {
        check_characters(url)?;
        let (https, rest) = if let Some(rest) = without_scheme(url, "https://") {
            (true, rest)
        } else if let Some(rest) = without_scheme(url, "http://") {
            (false, rest)
        } else {
            return Err("begins with neither http:// nor https://");
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains(['{', '}']) {
            return Err("has {key} in its host or port, which are the same for all keys");
        }
        let site = Site::parse(https, authority)?;
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        let parts: Vec<String> = rest.split(KEY).map(str::to_owned).collect();
        if parts.iter().any(|part| part.contains(['{', '}'])) {
            return Err("has a brace that is not of {key}");
        }
        if parts.len() == 1 {
            return Err("has no {key}");
        }
        if !parts.iter().all(|part| is_encoded(part)) {
            return Err("has a % without two hexadecimal digits");
        }
        let usual = parts.join("k");
        if climbs(&usual) {
            return Err("has a . or .. between slashes");
        }
        PathAndQuery::try_from(usual).map_err(|_| "has a path or query that cannot be sent")?;
        Ok(Self { site, parts })
    }

    /// Who is asked.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// What is asked for.
    ///
    /// # Errors
    ///
    /// The key would make a `.` or `..` between slashes, if only for a server that decodes before it looks: dots may
    /// stand encoded or not, so that no encoding keeps them from being resolved. Or it is too long.
    pub fn target(&self, key: &[u8]) -> Result<PathAndQuery, Cause> {
        let text = self.parts.join(&percent_encode(key, ENCODED).to_string());
        if climbs(&text) {
            return Err(Cause::Key("makes a . or .. between slashes"));
        }
        PathAndQuery::try_from(text).map_err(|_| Cause::Key("makes an address that is too long"))
    }
}

fn without_scheme<'a>(url: &'a str, scheme: &str) -> Option<&'a str> {
    let (given, rest) = url.split_at_checked(scheme.len())?;
    given.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn check_characters(url: &str) -> Result<(), &'static str> {
    if url.contains('#') {
        return Err("has a fragment (#), which is never sent");
    }
    // RFC 3986, 2: unreserved and reserved characters, and what begins an encoded one; and the braces of the key.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%{}".contains(&byte);
    if url.bytes().all(is_allowed) { Ok(()) } else { Err("has characters that must be percent-encoded") }
}

/// Whether each `%` has its two digits, which a key must not complete.
fn is_encoded(part: &str) -> bool {
    let mut after = part.split('%').skip(1).map(str::as_bytes);
    after.all(|after| after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit))
}

/// Whether the path has a segment that leads elsewhere, also when it is decoded first, and when `\` counts as `/`.
fn climbs(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    decoded.split(|byte| b"/\\".contains(byte)).any(|segment| [&b"."[..], b".."].contains(&segment))
}

//! Where a redirect leads, within the site that sent it.

use hyper::header::HeaderValue;
use hyper::http::uri::PathAndQuery;

use crate::origin::http::site::Site;

const ELSEWHERE: &str = "to another scheme, host or port";
const UNREADABLE: &str = "to an address that cannot be read";

/// What to ask for next: `location`, resolved against what was asked for (RFC 3986, 5.2).
///
/// # Errors
///
/// It leads to another scheme, host or port, or cannot be read.
pub fn resolve(
    site: &Site,
    from: &PathAndQuery,
    location: &HeaderValue,
) -> Result<PathAndQuery, &'static str> {
    let text = location.to_str().map_err(|_| UNREADABLE)?;
    let text = text.split('#').next().unwrap_or_default();
    let (path, query) = match on_site(site, text)? {
        Reference::Absolute(rest) => (rest.split('?').next().unwrap_or_default().to_owned(), query(rest)),
        Reference::Relative("") => return Ok(from.clone()),
        Reference::Relative(rest) => {
            let (path, query) = (rest.split('?').next().unwrap_or_default(), query(rest));
            let base = from.path();
            let path = match path {
                "" => base.to_owned(),
                path if path.starts_with('/') => path.to_owned(),
                path => format!("{}/{path}", base.rsplit_once('/').map_or("", |(before, _)| before)),
            };
            (path, query)
        }
    };
    PathAndQuery::try_from(format!("{}{query}", without_dots(&path))).map_err(|_| UNREADABLE)
}

/// What a location says after the site.
enum Reference<'a> {
    /// A path, maybe empty, from the root.
    Absolute(&'a str),
    /// A path from where the answer came from, unless it begins with a slash.
    Relative(&'a str),
}

/// Takes the scheme, host and port off, which must be the site's.
fn on_site<'a>(site: &Site, text: &'a str) -> Result<Reference<'a>, &'static str> {
    // A colon after a slash or a question mark ends no scheme.
    let scheme = text.split(['/', '?']).next().and_then(|start| Some(start.split_once(':')?.0));
    let (https, rest) = match scheme.map(str::to_ascii_lowercase).as_deref() {
        None => (site.is_https(), text),
        Some("https") => (true, &text["https:".len()..]),
        Some("http") => (false, &text["http:".len()..]),
        Some(_) => return Err(ELSEWHERE),
    };
    let Some(rest) = rest.strip_prefix("//") else {
        return if scheme.is_some() { Err(UNREADABLE) } else { Ok(Reference::Relative(rest)) };
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let named = Site::parse(https, authority).map_err(|_| ELSEWHERE)?;
    if named == *site { Ok(Reference::Absolute(path)) } else { Err(ELSEWHERE) }
}

/// The query with its question mark, or nothing.
fn query(rest: &str) -> &str {
    rest.find('?').map_or("", |at| &rest[at..])
}

/// The path without `.` and `..` (RFC 3986, 5.2.4); it begins with a slash.
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

//! Which requests are allowed, and how long they may take.
//!
//! Without a token, HTTP is only for programs on this machine. A page from elsewhere that a browser here shows must not
//! reach it, not even under a name of its own that leads to this machine (DNS rebinding). So without a token the Host
//! must be an address or `localhost`. Where memcached's clients need a password or the rights to a unix socket, HTTP
//! does not give out keys and values without a token.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, HOST, REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::digest::{Digest, SHA256, digest};

use crate::server::admin::Admin;
use crate::server::admin::problem::Problem;
use crate::tls::ClientVerify;

/// How long a request may take, from its head to the beginning of its answer. A large value on a slow line has this
/// long.
const REQUEST_PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of a token.
const TOKEN_LEN: std::ops::RangeInclusive<usize> = 16..=1024;

/// Paths that are open to everybody who can connect: they reveal nothing.
const OPEN_PATHS: [&str; 3] = ["/", "/healthz", "/readyz"];

/// The token that a request must carry; only its hash is kept.
pub struct Token(Digest);

/// Why a token cannot be used. Never quotes it.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the token of --http-token-file from {}: {why}", path.display())]
pub struct TokenError {
    path: PathBuf,
    why: String,
}

impl Token {
    /// Reads it from a file of one line.
    ///
    /// # Errors
    /// The file cannot be read, or what it holds is no token.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let refuse = |why: String| TokenError { path: path.to_owned(), why };
        let text = fs::read(path).map_err(|error| refuse(error.to_string()))?;
        let token = text.trim_ascii();
        if !TOKEN_LEN.contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
            let (from, to) = (TOKEN_LEN.start(), TOKEN_LEN.end());
            return Err(refuse(format!("needs {from} to {to} characters of ASCII, without blanks")));
        }
        Ok(Self(digest(&SHA256, token)))
    }

    /// Compares hashes: the time this takes reveals nothing about the token.
    fn is(&self, given: &[u8]) -> bool {
        digest(&SHA256, given).as_ref() == self.0.as_ref()
    }
}

/// Paths that reveal keys and values.
const DATA_PATHS: [&str; 3] = ["/api/v1/items/", "/api/v1/keys", "/api/v1/owner/"];

/// Lets a request through to its handler, or refuses it.
pub(super) async fn admit(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let refused = refusal(&admin, &request);
    let answered = match refused.or_else(|| out_of_date(&admin, request.method())) {
        Some(refusal) => refusal,
        None => tokio::time::timeout(REQUEST_PATIENCE, next.run(request)).await.unwrap_or_else(|_| {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "the request did not come in time").into_response()
        }),
    };
    admin.requests.count(answered.status().as_u16());
    with_security_headers(answered)
}

/// Why nothing is changed right after a standstill: the client may have given up meanwhile.
fn out_of_date(admin: &Admin, method: &Method) -> Option<Response> {
    let pauses = admin.cache.cluster().filter(|_| !method.is_safe())?.pauses();
    pauses.ended();
    let refuse = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this node stood still: try again");
    pauses.is_just_over().then(|| refuse().into_response())
}

fn refusal(admin: &Admin, request: &Request) -> Option<Response> {
    if !says_host(request) {
        return Some(Problem::bad_request("a request has one Host header").into_response());
    }
    let path = request.uri().path();
    let Some(token) = &admin.token else {
        return tokenless_refusal(admin, request).map(IntoResponse::into_response);
    };
    let given = request.headers().get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    if OPEN_PATHS.contains(&path) || given.is_some_and(|given| token.is(given)) {
        return None;
    }
    let detail = "needs the header Authorization: Bearer and the token of --http-token-file";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"filbert\""));
    Some(response)
}

/// Whether it has one Host, which may be missing before HTTP/1.1 (RFC 9112, 3.2).
fn says_host(request: &Request) -> bool {
    match request.headers().get_all(HOST).iter().count() {
        0 => request.version() < Version::HTTP_11,
        hosts => hosts == 1,
    }
}

/// Why a request is refused where HTTP asks for no token.
fn tokenless_refusal(admin: &Admin, request: &Request) -> Option<Problem> {
    let authority = request.uri().authority();
    if !is_of_this_machine(request.headers()) || authority.is_some_and(|name| !is_here(name.as_str())) {
        let detail = "without a token (--http-token-file) only localhost and addresses are answered as Host";
        return Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    // A page from elsewhere can make a browser on this machine send such requests.
    let site = request.headers().get("sec-fetch-site");
    if request.uri().path().starts_with("/api/") && site.is_some_and(|site| site == "cross-site") {
        return Some(Problem::new(StatusCode::FORBIDDEN, "pages of other sites are not answered"));
    }
    let is_data = DATA_PATHS.iter().any(|data| request.uri().path().starts_with(data));
    let options = &admin.context.options;
    let needs_certificate = options.tls.as_ref().is_some_and(|tls| tls.verify == ClientVerify::Require);
    let is_kept = admin.context.auth.is_some() || options.unix.is_some() || needs_certificate;
    (is_data && is_kept).then(|| {
        let detail =
            "clients need a password (-Y), a certificate or a unix socket (-s) here: keys need --http-token-file";
        Problem::new(StatusCode::FORBIDDEN, detail)
    })
}

/// The token in `Bearer TOKEN`; the scheme in any case (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn is_of_this_machine(headers: &HeaderMap) -> bool {
    // Without a Host it is no browser.
    headers.get_all(HOST).iter().all(|host| host.to_str().is_ok_and(is_here))
}

fn is_here(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').unwrap_or(("", host)),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |rest: &str| rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if !rest.is_empty() && !is_port(rest) {
        return false;
    }
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_names_are_answered_without_a_token() {
        let answered = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_str(host).expect("a header"));
            is_of_this_machine(&headers)
        };
        for host in
            ["localhost", "LOCALHOST:11280", "127.0.0.1:11280", "[::1]:11280", "10.0.0.1", "a.localhost:1"]
        {
            assert!(answered(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:11280",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::1]evil.example",
            "localhost:abc",
            "",
            "[evil]:1",
        ] {
            assert!(!answered(host), "{host}");
        }
        assert!(is_of_this_machine(&HeaderMap::new()));
    }

    #[test]
    fn a_token_is_one_line_of_ascii() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let load = |text: &str| {
            fs::write(&path, text).expect("written");
            Token::load(&path)
        };
        let token = load("0123456789abcdef\n").expect("a token");
        assert!(token.is(b"0123456789abcdef") && !token.is(b"0123456789abcdeF") && !token.is(b""));
        for text in ["", "short", "0123456789 abcdef", "0123456789abcdef\n0123456789abcdef"] {
            let error = load(text).err().expect("no token").to_string();
            assert!(error.contains("16 to 1024 characters"), "{error}");
        }
        assert!(
            Token::load(Path::new("/no/such")).err().expect("no file").to_string().contains("No such file")
        );
    }

    #[test]
    fn a_scheme_is_known_in_any_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
    }
}

//! An origin behind HTTP: a GET to an address with the key in it.
//!
//! 200 is a value, 404 and 410 say that there is none, 304 says that it is the one with the `ETag` that was asked about, and
//! anything else is a failure. One host is ever asked, over
//! HTTP/2 or HTTP/1.1 as it likes: redirects are followed on it alone, variables like `https_proxy` are not looked at,
//! cookies are not kept, and a value stays as coded as it came. `Cache-Control` bounds how long a value lives
//! (`freshness.rs`); `X-Memcached-Flags` sets its client flags.

mod body;
mod cause;
mod connection;
mod etag;
mod freshness;
mod options;
mod pool;
mod redirect;
mod roots;
mod site;
mod template;
mod token;

use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue,
    IF_NONE_MATCH, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, StatusCode};
use rustls::RootCertStore;

use crate::origin::http::cause::Cause;
use crate::origin::http::connection::Connector;
use crate::origin::http::pool::{Answer, Pool};
use crate::origin::http::template::Template;
use crate::origin::http::token::Token;
use crate::origin::{Failed, Fetched, Fetching, Invalid, Loaded, Origin, Trial, Validator};
pub use options::Options;

/// Redirects one after another. curl stops at 50 and browsers at 20; within one host, 5 is a lot.
const REDIRECTS_MAX: usize = 5;

/// The client flags of a value, as a number of 32 bits.
const FLAGS: HeaderName = HeaderName::from_static("x-memcached-flags");

/// What [`Options::headers`] may not set: who is asked, and how the request lies on its connection.
const RESERVED: [HeaderName; 10] = [
    HOST,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// An origin that is asked over HTTP.
pub struct Http {
    template: Template,
    headers: HeaderMap,
    token: Option<Token>,
    pool: Pool,
    value_max: usize,
}

impl Http {
    /// Says what is wrong with the options. Reads the files they name, and does nothing else outside of memory.
    ///
    /// # Errors
    ///
    /// The first field that cannot be used.
    pub fn check(options: &Options) -> Result<(), Invalid> {
        Checked::read(options).map(|_| ())
    }

    /// Gets ready to ask; connects to nothing yet. Reads the system's authorities where `https` is used without
    /// [`Options::ca_file`].
    ///
    /// # Errors
    ///
    /// As [`Http::check`], and when the system has no authorities.
    pub fn new(options: &Options) -> Result<Self, Invalid> {
        let Checked { template, headers, token, authorities } = Checked::read(options)?;
        let site = template.site().clone();
        let authorities = match authorities {
            None if site.is_https() => Some(roots::system()?),
            given => given,
        };
        let connector = Connector::new(site, authorities, options.connect_timeout)?;
        let pool = Pool::new(connector, options.connections);
        Ok(Self { template, headers, token, pool, value_max: options.value_max })
    }

    async fn answer(&self, key: &[u8], known: Option<&Validator>) -> Result<Fetched, Failed> {
        self.load(key, known).await.or_else(|cause| {
            let why = format!("{}: {cause}", self.template.site());
            match cause {
                Cause::Key(_) => Ok(Fetched::Unaskable(why)),
                cause if cause.is_of_the_key() => Ok(Fetched::Refused(why)),
                _ => Err(Failed(why)),
            }
        })
    }

    async fn load(&self, key: &[u8], mut known: Option<&Validator>) -> Result<Fetched, Cause> {
        let mut target = self.template.target(key)?;
        for redirects in 0..=REDIRECTS_MAX {
            let answer = self.pool.ask(&target, &self.request_headers(known).await?).await?;
            match answer.head.status {
                StatusCode::OK => return self.loaded(answer, redirects == 0).await.map(Fetched::Found),
                StatusCode::NOT_MODIFIED if let Some(known) = known => {
                    let ttl = freshness::ttl(&answer.head.headers).or(known.ttl);
                    answer.finish().await;
                    return Ok(Fetched::Unchanged { ttl });
                }
                StatusCode::NOT_FOUND | StatusCode::GONE => {
                    answer.finish().await;
                    return Ok(Fetched::Absent);
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    target = self.redirected(&target, &answer)?;
                    // Elsewhere, the same tag may be another value's.
                    known = None;
                    answer.finish().await;
                }
                status => {
                    answer.finish().await;
                    return Err(Cause::Status(status));
                }
            }
        }
        Err(Cause::Redirects(REDIRECTS_MAX))
    }

    async fn request_headers(&self, known: Option<&Validator>) -> Result<HeaderMap, Cause> {
        let mut headers = self.headers.clone();
        if let Some(token) = &self.token {
            headers.insert(AUTHORIZATION, token.header().await);
        }
        if let Some(known) = known {
            headers.insert(IF_NONE_MATCH, etag::header(known)?);
        }
        Ok(headers)
    }

    /// The value in an answer; only one that lies at the address `of_the_key` is asked for again by its tag.
    async fn loaded(&self, answer: Answer<'_>, of_the_key: bool) -> Result<Loaded, Cause> {
        let headers = &answer.head.headers;
        let flags = headers.get(FLAGS).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        let ttl = freshness::ttl(headers);
        let validator = if of_the_key { etag::validator(headers, ttl) } else { None };
        let value = answer.value(self.value_max).await?;
        Ok(Loaded { value, flags, ttl, validator })
    }

    fn redirected(&self, from: &PathAndQuery, answer: &Answer<'_>) -> Result<PathAndQuery, Cause> {
        let status = answer.head.status;
        let location =
            answer.head.headers.get(LOCATION).ok_or(Cause::Redirect(status, "without a Location"))?;
        redirect::resolve(self.template.site(), from, location).map_err(|why| Cause::Redirect(status, why))
    }
}

impl Origin for Http {
    fn fetch<'a>(&'a self, key: &'a [u8]) -> Fetching<'a> {
        Box::pin(self.answer(key, None))
    }

    fn fetch_if_changed<'a>(&'a self, key: &'a [u8], known: &'a Validator) -> Fetching<'a> {
        Box::pin(self.answer(key, Some(known)))
    }

    /// Connects, with TLS where it is used, and asks for nothing.
    fn try_out(&self) -> Trial<'_> {
        let failed = |cause| Failed(format!("{}: {cause}", self.template.site()));
        Box::pin(async move { self.pool.try_out().await.map_err(failed) })
    }
}

/// Options that hold, and what their files held.
struct Checked {
    template: Template,
    headers: HeaderMap,
    token: Option<Token>,
    authorities: Option<RootCertStore>,
}

impl Checked {
    fn read(options: &Options) -> Result<Self, Invalid> {
        let template = Template::parse(&options.url).map_err(|why| Invalid::new("http", why))?;
        if options.ca_file.is_some() && !template.site().is_https() {
            return Err(Invalid::new(
                "ca-file",
                "is for an address with https:// (allowed: none with http://)",
            ));
        }
        let headers = headers(&options.headers)?;
        if options.bearer_token_file.is_some() && headers.contains_key(AUTHORIZATION) {
            let why = "Authorization comes from bearer-token-file (allowed: one of the two)";
            return Err(Invalid::new("headers", why));
        }
        let token = options.bearer_token_file.as_deref().map(Token::load).transpose()?;
        let authorities = options.ca_file.as_deref().map(roots::from_file).transpose()?;
        Ok(Self { template, headers, token, authorities })
    }
}

/// The headers of each request. A value is never quoted: it may be a secret.
fn headers(given: &[(String, String)]) -> Result<HeaderMap, Invalid> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let refuse = |why: &str| Invalid::new("headers", format!("{name:?} {why}"));
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| refuse("is no name of a header (allowed: letters, digits and !#$%&'*+-.^_`|~)"))?;
        if RESERVED.contains(&header) {
            return Err(refuse(
                "is set by the connection itself (allowed: headers that say what is asked for)",
            ));
        }
        let value = HeaderValue::from_str(value).map_err(|_| {
            refuse("has a value that cannot be sent (allowed: printable ASCII, blanks and tabs)")
        })?;
        headers.append(header, value);
    }
    let usual = |name: HeaderName, value: &'static str| (name, HeaderValue::from_static(value));
    // Without a word on codings, a server may choose any (RFC 9110, 12.5.3).
    for (name, value) in [
        usual(ACCEPT_ENCODING, "identity"),
        usual(USER_AGENT, concat!("filbert/", env!("CARGO_PKG_VERSION"))),
    ] {
        headers.entry(name).or_insert(value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests;

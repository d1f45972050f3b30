//! The one scheme, host and port that an origin is asked at.

use std::fmt;
use std::net::Ipv6Addr;

use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use rustls::pki_types::ServerName;

/// A scheme, a host and a port. Two are equal when the same server is asked the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    scheme: Scheme,
    /// In lower case, and without the scheme's own port.
    authority: Authority,
}

impl Site {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    ///
    /// Says what is wrong, without quoting it.
    pub fn parse(https: bool, text: &str) -> Result<Self, &'static str> {
        if text.contains('@') {
            return Err("has a user name or a password, which bearer-token-file and headers are for");
        }
        let (host, port) = match text.rfind(':').filter(|at| !text[*at..].contains(']')) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        check_host(host)?;
        let host = host.to_ascii_lowercase();
        let usual = if https { 443 } else { 80 };
        let port = port.map_or(Ok(usual), number)?;
        let text = if port == usual { host } else { format!("{host}:{port}") };
        let scheme = if https { Scheme::HTTPS } else { Scheme::HTTP };
        let authority = Authority::try_from(text).map_err(|_| "has a host that cannot be one")?;
        let site = Self { scheme, authority };
        if https {
            site.server_name()?;
        }
        Ok(site)
    }

    /// What its certificate must be for.
    ///
    /// # Errors
    ///
    /// No certificate can be for such a host; never for a site with `https`, which then would not have been parsed.
    pub fn server_name(&self) -> Result<ServerName<'static>, &'static str> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        ServerName::try_from(host.to_owned()).map_err(|_| "has a host that no certificate can name")
    }

    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// What a Host header says of it: the host, and the port unless it is the scheme's own.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The address of something there.
    ///
    /// # Errors
    ///
    /// Both together are longer than an address may be (`http::Uri`: 65534 bytes).
    pub fn uri(&self, target: PathAndQuery) -> Result<Uri, hyper::http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(target)
            .build()
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.authority.fmt(f)
    }
}

fn number(port: &str) -> Result<u16, &'static str> {
    let all_digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| all_digits && *port > 0).ok_or("has a port that is not from 1 to 65535")
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("has no host");
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().map(|_| ()).map_err(|_| "has brackets without an IPv6 address");
    }
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.bytes().all(is_part) {
        Ok(())
    } else {
        Err("has a host of other than letters, digits, -, . and _")
    }
}

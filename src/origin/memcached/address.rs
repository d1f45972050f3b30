//! A server as the configuration names it.

use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;

/// The port where none stands, which ketama leaves out of the names (memcached.h, `MEMCACHED_DEFAULT_PORT`).
pub(super) const DEFAULT_PORT: u16 = 11211;

/// Where a server is, and its share of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// A name or an address as it is written, without brackets.
    pub host: String,
    /// Never zero.
    pub port: u16,
    /// `None` where none is written.
    pub weight: Option<NonZeroU32>,
}

impl Address {
    /// Reads `host`, `host:port` and `[v6]:port`, with `/?weight` or `:weight` behind.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (place, weight) =
            text.split_once("/?").map_or((text, None), |(place, weight)| (place, Some(weight)));
        let (host, port) = split(place)?;
        let (port, weight) = match port.and_then(|port| port.split_once(':')) {
            Some((port, second)) if weight.is_none() => (Some(port), Some(second)),
            Some(_) => return Err("it has two weights".into()),
            None => (port, weight),
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |port| {
            number(port)
                .filter(|&port| port > 0)
                .ok_or_else(|| format!("{port:?} is no port from 1 to 65535"))
        })?;
        let weight = weight
            .map(|weight| {
                number(weight).ok_or_else(|| format!("{weight:?} is no weight from 1 to {}", u32::MAX))
            })
            .transpose()?;
        Ok(Self { host: host.to_owned(), port, weight })
    }

    /// Whether both are the same server by their names; the weight does not count.
    pub fn is_same_server(&self, other: &Self) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Divides the host from what stands behind its colon.
fn split(place: &str) -> Result<(&str, Option<&str>), String> {
    let (host, behind) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or("a [ without its ]")?;
            if host.parse::<Ipv6Addr>().is_err() {
                return Err("between [ and ] stands no IPv6 address".into());
            }
            (host, behind)
        }
        None => {
            let (host, behind) = place.split_at(place.find(':').unwrap_or(place.len()));
            if host.is_empty() || !host.bytes().all(is_of_name) {
                return Err("no address and no host name".into());
            }
            (host, behind)
        }
    };
    match behind.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if behind.is_empty() => Ok((host, None)),
        None => Err("behind ] only :port may stand".into()),
    }
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// A number of digits alone, which Rust's own reading does not ask for: it takes a plus.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, u16, Option<u32>) {
        let address = Address::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        (address.host, address.port, address.weight.map(NonZeroU32::get))
    }

    #[test]
    fn a_server_has_a_host_and_perhaps_a_port_and_a_weight() {
        assert_eq!(parsed("old-1:11311"), ("old-1".into(), 11311, None));
        assert_eq!(parsed("old_1.example"), ("old_1.example".into(), 11211, None));
        assert_eq!(parsed("10.0.0.1:65535/?3"), ("10.0.0.1".into(), 65535, Some(3)));
        assert_eq!(parsed("old-1/?4294967295"), ("old-1".into(), 11211, Some(u32::MAX)));
        assert_eq!(parsed("old-1:1:2"), ("old-1".into(), 1, Some(2)));
        assert_eq!(parsed("[::1]"), ("::1".into(), 11211, None));
        assert_eq!(parsed("[::1]:11212:2"), ("::1".into(), 11212, Some(2)));
        assert_eq!(parsed("[::1]:11212/?2"), ("::1".into(), 11212, Some(2)));
    }

    #[test]
    fn what_is_no_server_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "no address"),
            (":11211", "no address"),
            ("::1", "no address"),
            ("old 1:11211", "no address"),
            ("old-1 ", "no address"),
            ("/run/memcached.sock", "no address"),
            ("http://old-1", "\"//old-1\" is no port"),
            ("old-1:", "\"\" is no port"),
            ("old-1:0", "\"0\" is no port"),
            ("old-1:65536", "\"65536\" is no port"),
            ("old-1:+1", "\"+1\" is no port"),
            ("old-1:11211/?0", "\"0\" is no weight"),
            ("old-1:11211/?", "\"\" is no weight"),
            ("old-1:11211/?1.5", "\"1.5\" is no weight"),
            ("old-1:11211:2:3", "\"2:3\" is no weight"),
            ("old-1:11211:2/?3", "two weights"),
            ("[::1", "a [ without its ]"),
            ("[old-1]:11211", "no IPv6"),
            ("[::1]11211", "behind ]"),
        ] {
            let refused = Address::parse(text).expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn one_server_is_the_same_whatever_its_weight_and_letters() {
        let of = |text| Address::parse(text).unwrap();
        assert!(of("old-1").is_same_server(&of("OLD-1:11211/?2")));
        assert!(!of("old-1").is_same_server(&of("old-1:11212")));
        assert_eq!(of("[::1]:5/?2").to_string(), "[::1]:5");
        assert_eq!(of("old-1").to_string(), "old-1:11211");
    }
}

//! `host:port` as options have it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host and a port that others receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads `host:port` or `[v6]:port`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = split(text)?;
        let port = port.ok_or("no port")?;
        if !is_host(host) {
            return Err("no address and no host name".into());
        }
        let port = port.parse().map_err(|_| format!("{port} is no port from 0 to 65535"))?;
        Ok(Self { host: host.to_owned(), port })
    }

    /// Whether it means every address of the machine: good to listen on, but no machine can connect to it.
    pub fn is_wildcard(&self) -> bool {
        is_wildcard(&self.host)
    }

    /// Whether only this machine reaches it.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
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

/// Whether a host means every address of the machine.
pub(super) fn is_wildcard(host: &str) -> bool {
    host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_unspecified())
}

/// An address for others to connect to.
pub(super) fn advertised(text: &str) -> Result<Address, String> {
    let refuse = |why: &str| format!("{why} (allowed: host:port, [v6]:port, with a port from 1 to 65535)");
    let address = Address::parse(text).map_err(|why| refuse(&why))?;
    if address.is_wildcard() {
        return Err(refuse("nobody can connect to every address"));
    }
    if address.port == 0 {
        return Err(refuse("nobody can connect to port 0"));
    }
    Ok(address)
}

/// The error in one word of a value. If the word is the whole value, the message names only the value.
pub(super) fn of_word(word: &str, value: &str, why: String) -> String {
    if word == value.trim() { why } else { format!("{word}: {why}") }
}

/// Divides `host:port`, `[v6]:port`, and each of them without its port.
pub(super) fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("a [ without its ]")?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err("between [ and ] stands no IPv6 address".into());
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err("behind ] only :port may stand".into()),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        // Only an address without a port can go without brackets.
        return Ok((text, None));
    }
    Ok(match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    })
}

/// Whether a text may be a host: a name or an address, without brackets.
pub(super) fn is_host(text: &str) -> bool {
    let valid = |letter: char| letter.is_ascii_alphanumeric() || "-_.:".contains(letter);
    !text.is_empty() && text.chars().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_come_out_as_they_went_in() {
        for text in ["127.0.0.1:11212", "cache-1.example.com:1", "[::1]:11212", "0.0.0.0:0", "a_b:65535"] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_no_host_and_port_says_why() {
        for (text, reason) in [
            ("", "no port"),
            ("11212", "no port"),
            ("127.0.0.1", "no port"),
            ("::1", "no port"),
            ("[::1]", "no port"),
            (":11212", "no address and no host name"),
            ("*:11212", "no address and no host name"),
            ("http://a:1", "//a:1 is no port"),
            ("a b:1", "no address and no host name"),
            ("a:http", "http is no port from 0 to 65535"),
            ("a:-1", "-1 is no port"),
            ("a:65536", "65536 is no port"),
            ("a:", " is no port"),
            ("[::1:5", "a [ without its ]"),
        ] {
            let error = Address::parse(text).map_or_else(|why| why, |address| format!("{address} is one"));
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn wildcards_and_loopback_are_known_in_every_spelling() {
        let parse = |text| Address::parse(text).expect(text);
        for text in ["0.0.0.0:1", "[::]:1", "[::ffff:0.0.0.0]:1", "[0:0::0]:1"] {
            assert!(parse(text).is_wildcard() && !parse(text).is_loopback(), "{text}");
        }
        for text in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
            assert!(parse(text).is_loopback() && !parse(text).is_wildcard(), "{text}");
        }
        for text in ["10.0.0.1:1", "[fe80::1]:1", "cache:1"] {
            assert!(!parse(text).is_loopback() && !parse(text).is_wildcard(), "{text}");
        }
    }
}

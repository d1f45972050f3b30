//! `-l`: addresses, as memcached reads them (memcached.c, server_sockets).

use crate::config::address;
use crate::server::{Listen, Security};

/// Reads one value of `-l`: addresses divided by commas. `port` is for those without one.
///
/// # Errors
///
/// Says which address is wrong, and how a correct one looks.
pub(super) fn addresses(text: &str, port: u16) -> Result<Vec<Listen>, String> {
    let mut all = Vec::new();
    // memcached divides at semicolons too.
    for word in text.split([',', ';']).map(str::trim).filter(|word| !word.is_empty()) {
        let listen = one_address(word, port).map_err(|why| {
            let why = address::of_word(word, text, why);
            format!("{why} (allowed: host, host:port, [v6], [v6]:port, * for every address)")
        })?;
        all.push(listen);
    }
    if all.is_empty() {
        return Err("needs an address, such as 127.0.0.1 or 0.0.0.0:11211".into());
    }
    Ok(all)
}

fn one_address(word: &str, default_port: u16) -> Result<Listen, String> {
    let (security, word) = match (word.strip_prefix("notls:"), word.strip_prefix("mtls:")) {
        (Some(rest), _) => (Security::Plain, rest),
        (_, Some(rest)) => (Security::MutualTls, rest),
        _ => (Security::Tls, word),
    };
    // memcached takes them in this order; another order does no harm.
    let word = untagged(protocol(untagged(word)?)?)?;
    let (host, port) = address::split(word)?;
    let port = match port {
        Some(port) => listen_port(port)?,
        None => default_port,
    };
    if host == "*" {
        return Ok(Listen { host: None, port, security });
    }
    if !address::is_host(host) {
        return Err("no address and no host name".into());
    }
    Ok(Listen { host: Some(host.to_owned()), port, security })
}

/// 0 and -1 both pick a free port here, as in memcached.
fn listen_port(text: &str) -> Result<u16, String> {
    match crate::config::values::port(text) {
        Ok(port) => Ok(port.unwrap_or(0)),
        Err(_) => Err(format!("{text} is no port from 0 to 65535")),
    }
}

/// Takes `tag[name]:` off. memcached's proxy uses it to tell its listeners apart (memcached.c, server_sockets): there
/// is no proxy here.
fn untagged(word: &str) -> Result<&str, String> {
    let Some(rest) = word.strip_prefix("tag[") else {
        return Ok(word);
    };
    match rest.split_once("]:") {
        Some((_, rest)) => Ok(rest),
        None => Err("a tag[ without its ]:".into()),
    }
}

/// Takes off `proto[negotiating]:`, which every listener does anyway, and `proto[ascii]:`: `-B` sets the other
/// protocols for all listeners.
fn protocol(word: &str) -> Result<&str, String> {
    let Some(rest) = word.strip_prefix("proto[") else {
        return Ok(word);
    };
    match rest.split_once("]:") {
        Some(("ascii" | "negotiating", rest)) => Ok(rest),
        _ => Err("only proto[ascii]: and proto[negotiating]: are taken here; -B says for all what is spoken"
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(host: Option<&str>, port: u16, plain: bool) -> Listen {
        let security = if plain { Security::Plain } else { Security::Tls };
        Listen { host: host.map(str::to_owned), port, security }
    }

    #[test]
    fn every_form_of_an_address() {
        for (text, expected) in [
            ("127.0.0.1", listen(Some("127.0.0.1"), 11211, false)),
            ("127.0.0.1:0", listen(Some("127.0.0.1"), 0, false)),
            ("127.0.0.1:-1", listen(Some("127.0.0.1"), 0, false)),
            ("cache-1.example.com:12345", listen(Some("cache-1.example.com"), 12345, false)),
            ("::1", listen(Some("::1"), 11211, false)),
            ("::", listen(Some("::"), 11211, false)),
            ("[::1]", listen(Some("::1"), 11211, false)),
            ("[fe80::2]:9", listen(Some("fe80::2"), 9, false)),
            ("*", listen(None, 11211, false)),
            ("*:12", listen(None, 12, false)),
            ("notls:127.0.0.1:12", listen(Some("127.0.0.1"), 12, true)),
            ("notls:[::1]:12", listen(Some("::1"), 12, true)),
            ("proto[ascii]:127.0.0.1:12", listen(Some("127.0.0.1"), 12, false)),
            ("tag[b]:127.0.0.1:12", listen(Some("127.0.0.1"), 12, false)),
            ("tag[]:[::1]:12", listen(Some("::1"), 12, false)),
            ("notls:tag[b]:*:12", listen(None, 12, true)),
            ("notls:proto[ascii]:tag[b]:c:12", listen(Some("c"), 12, true)),
        ] {
            assert_eq!(addresses(text, 11211), Ok(vec![expected]), "{text}");
        }
    }

    #[test]
    fn an_address_may_require_certificates() {
        for text in ["mtls:127.0.0.1:12", "mtls:tag[b]:127.0.0.1:12", "mtls:proto[ascii]:127.0.0.1:12"] {
            let expected = Listen { security: Security::MutualTls, ..listen(Some("127.0.0.1"), 12, false) };
            assert_eq!(addresses(text, 11211), Ok(vec![expected]), "{text}");
        }
    }

    #[test]
    fn commas_divide_addresses() {
        assert_eq!(
            addresses("a, b:2;c", 1).expect("valid"),
            [listen(Some("a"), 1, false), listen(Some("b"), 2, false), listen(Some("c"), 1, false)]
        );
    }

    #[test]
    fn what_is_no_address_is_named() {
        for (text, reason) in [
            ("", "needs an address"),
            (",", "needs an address"),
            ("127.0.0.1:http", "http is no port"),
            ("127.0.0.1:65536", "65536 is no port"),
            ("[::1", "a [ without its ]"),
            ("[::1]11", "only :port may stand"),
            ("[localhost]", "no IPv6 address"),
            (":11211", "no address and no host name"),
            ("a b", "no address and no host name"),
            ("/run/filbert.sock", "no address and no host name"),
            ("proto[binary]:127.0.0.1", "only proto[ascii]: and"),
            ("tag[b:127.0.0.1:12", "a tag[ without its ]:"),
            ("mtls:127.0.0.1:http", "http is no port"),
            ("good,b@d", "b@d: no address"),
        ] {
            let error = addresses(text, 11211).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

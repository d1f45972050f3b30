//! `host:port` as options have it.

use std::net::Ipv6Addr;

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

//! The HTTP server's options: where it listens, and which requests it accepts.

use crate::config::ConfigError;
use crate::config::address::{self, Address};
use crate::config::settings::Settings;
use crate::server::admin::Options;

const LISTEN: &str = "http-listen";
const ADVERTISE: &str = "http-advertise";
const TOKEN_FILE: &str = "http-token-file";
const MEMCACHED_NAMES: &str = "memcached-exporter-metrics";

/// Near memcached's own port, with HTTP's 80, and not in Prometheus' list of default ports: an exporter beside a node,
/// memcached_exporter (9150) above all, finds its own free.
const DEFAULT_LISTEN: &str = "127.0.0.1:11280";

/// Puts them together; `None` when HTTP is turned off.
pub(super) fn options(settings: &Settings) -> Result<Option<Options>, ConfigError> {
    let memcached_names = settings.switch(MEMCACHED_NAMES)?;
    let token_file = settings.path(TOKEN_FILE)?;
    let advertise = settings.value(ADVERTISE, address::advertised)?.map(|address| address.to_string());
    let Some(given) = settings.of(LISTEN) else {
        let listen = DEFAULT_LISTEN.to_owned();
        return Ok(Some(Options { listen, is_default: true, advertise, token_file, memcached_names }));
    };
    // An empty variable counts as none, so that there is a word for it, too.
    if given.last().is_empty() || given.last() == "off" {
        return Ok(None);
    }
    let address = given.parse(|text| {
        Address::parse(text).map_err(|why| {
            format!("{why} (allowed: host:port, [v6]:port, with port 0 for any free one; off, or nothing, for no HTTP)")
        })
    })?;
    if !address.is_loopback() && token_file.is_none() {
        return Err(given.refuse(
            "others than this machine can connect there, and would read and write every key: needs --http-token-file",
        ));
    }
    let listen = address.to_string();
    Ok(Some(Options { listen, is_default: false, advertise, token_file, memcached_names }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::option_specs;
    use crate::config::settings::Source;

    fn read(given: &[(&str, &str)]) -> Result<Option<Options>, String> {
        let mut settings = Settings::default();
        for (name, value) in given {
            let spec = option_specs::named(name).expect("an option");
            settings.add(spec, &Source::CommandLine, value.into()).expect("not refused");
        }
        options(&settings).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn it_is_open_to_this_machine_unless_told_otherwise() {
        let usual = read(&[]).expect("valid").expect("on");
        assert_eq!((usual.listen.as_str(), usual.is_default), ("127.0.0.1:11280", true));
        let other = read(&[("http-listen", "[::1]:0")]).expect("valid").expect("on");
        assert_eq!((other.listen.as_str(), other.is_default), ("[::1]:0", false));
        for off in ["", "off"] {
            assert!(read(&[("http-listen", off)]).expect("valid").is_none());
        }
    }

    #[test]
    fn elsewhere_it_needs_a_token() {
        let error = read(&[("http-listen", "0.0.0.0:11280")]).expect_err("no token");
        assert!(error.starts_with("--http-listen 0.0.0.0:11280: others than this machine"), "{error}");
        assert!(error.ends_with("needs --http-token-file"), "{error}");
        let open = read(&[("http-listen", "0.0.0.0:11280"), ("http-token-file", "token")]).expect("valid");
        assert_eq!(open.expect("on").token_file, Some("token".into()));
        let told = [("http-listen", "127.0.0.1:11280"), ("http-advertise", "cache-1:80")];
        assert_eq!(read(&told).expect("valid").expect("on").advertise, Some("cache-1:80".into()));
        let error = read(&[("http-advertise", "0.0.0.0:80")]).expect_err("every address");
        assert!(error.starts_with("--http-advertise 0.0.0.0:80: nobody can connect to every"), "{error}");
        let error = read(&[("http-listen", "nonsense")]).expect_err("no address");
        assert!(error.starts_with("--http-listen nonsense: no port (allowed: host:port"), "{error}");
    }
}

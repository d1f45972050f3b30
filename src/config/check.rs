//! `--check`: whether a start would succeed, as far as that can be told without one.

use std::net::{TcpListener, ToSocketAddrs};

use crate::auth::Users;
use crate::config::{ConfigError, Launch};
use crate::server::admin::Token;
use crate::server::listen;
use crate::{process, tls};

/// Reads the files that a start would read, looks up users and addresses, and prints the warnings of a start. Binds
/// only default ports.
///
/// # Errors
///
/// Whatever would make a start fail.
pub(super) fn check(launch: &Launch) -> Result<String, ConfigError> {
    let server = &launch.node.server;
    if let Some(tls) = &server.tls {
        tls::Reloadable::load(tls.clone()).map_err(unusable)?;
    }
    if let Some(path) = launch.node.http.as_ref().and_then(|http| http.token_file.as_ref()) {
        Token::load(path).map_err(unusable)?;
    }
    if let Some(path) = &server.auth_file {
        Users::load(path).map_err(unusable)?;
    }
    let mut warnings = launch.warnings.clone();
    warnings.extend(process::check(&launch.process).map_err(unusable)?);
    if server.unix.is_none() {
        listen::check(server).map_err(unusable)?;
    }
    // When the default address cannot be bound, a node runs without it.
    if let Some(http) = launch.node.http.as_ref().filter(|http| !http.is_default) {
        can_listen("--http-listen", &http.listen)?;
    }
    if let Some(cluster) = &launch.node.cluster {
        can_listen("--peer-listen", &cluster.peer.listen)?;
        let membership = &cluster.membership;
        for endpoint in &membership.endpoints {
            let address = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, address)| address);
            warnings.extend(unknown("--etcd-endpoints", address.trim_end_matches('/')));
        }
        // Not known yet where a free port is asked for.
        for (option, address) in
            [("--peer-advertise", &membership.peer_addr), ("--advertise", &membership.memcached_addr)]
        {
            if !address.is_empty() {
                warnings.extend(unknown(option, address));
            }
        }
    }
    let warnings = warnings.iter().map(|warning| format!("warning: {warning}\n"));
    Ok(warnings.chain(["the configuration can be used\n".to_owned()]).collect())
}

fn unusable(error: impl ToString) -> ConfigError {
    ConfigError::Unusable(error.to_string())
}

/// Refuses an address that does not exist, or is another machine's.
fn can_listen(option: &str, address: &str) -> Result<(), ConfigError> {
    let refuse = |error: std::io::Error| ConfigError::value(format!("{option} {address}"), error.to_string());
    let mut addresses = address.to_socket_addrs().map_err(refuse)?;
    // A start takes the first of them that it can bind.
    let tried = addresses.try_fold(None, |_, address| match TcpListener::bind((address.ip(), 0)) {
        Ok(_) => Err(()),
        Err(error) => Ok(Some(error)),
    });
    match tried {
        Ok(Some(error)) => Err(refuse(error)),
        Ok(None) | Err(()) => Ok(()),
    }
}

/// Warns of the name of another machine that is not known here, or not known now: a node waits for
/// etcd, and others may know what this machine does not.
fn unknown(option: &str, address: &str) -> Option<String> {
    let error = address.to_socket_addrs().err()?;
    Some(format!("{option} {address}: the name is not known here: {error}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::config::{Outcome, load};

    fn check(args: &[&str]) -> String {
        let args = ["filbert", "--check"].iter().chain(args).map(OsString::from);
        match load(args, std::iter::empty()) {
            Ok(Outcome::Print(text)) => text,
            Err(refusal) => refusal.to_string(),
            Ok(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_check_finds_what_a_start_would_refuse() {
        assert_eq!(check(&["-m", "65", "-d", "--log-file", "log"]), "the configuration can be used\n");
        assert!(check(&["-d"]).starts_with("warning: in the background (-d) nothing more is logged: "));
        assert_eq!(
            check(&["-k", "--etcd-endpoints", "127.0.0.1:1"]),
            "warning: accepted as memcached does, without effect here: -k\nthe configuration can be used\n"
        );
        for (args, expected) in [
            (&["-m", "lots"][..], "-m lots: needs a number of megabytes"),
            (&["-Y", "/no/such"], "cannot read the users of -Y from /no/such: No such file"),
            (&["-Z", "-o", "ssl_chain_cert=/no/such"], "ssl_chain_cert=/no/such: No such file"),
            (&["--config", "/no/such"], "/no/such: No such file"),
            (&["--sparkle"], "--sparkle is no flag"),
            (&["--log-file", "log", "--log-syslog"], "--log-syslog: there is one log"),
        ] {
            let said = check(args);
            assert!(said.starts_with(expected), "{args:?}: {said}");
        }
    }

    #[test]
    fn addresses_are_looked_up() {
        let etcd = ["--etcd-endpoints", "127.0.0.1:1"];
        // RFC 5737 and 6761: no machine has the one, and nobody the other.
        for (args, expected) in [
            (&["-l", "192.0.2.7"][..], "cannot listen on 192.0.2.7:11211: Cannot assign requested address"),
            (&["-l", "no-such.invalid"], "-l no-such.invalid: "),
            (&["--http-listen", "127.0.0.1:0", "-l", "127.0.0.1,no-such.invalid"], "-l no-such.invalid: "),
            (
                &["--etcd-endpoints", "127.0.0.1:1", "--peer-listen", "192.0.2.7:1"],
                "--peer-listen 192.0.2.7:1: Cannot assign",
            ),
            (
                &["--etcd-endpoints", "http://no-such.invalid:2379"],
                "warning: --etcd-endpoints no-such.invalid:2379: the name is not known here: ",
            ),
        ] {
            let said = check(args);
            assert!(said.lines().any(|line| line.starts_with(expected)), "{args:?}: {said}");
        }
        let told = [&etcd[..], &["--peer-advertise", "no-such.invalid:1"]].concat();
        let said = check(&told);
        assert!(said.starts_with("warning: --peer-advertise no-such.invalid:1: the name is not"), "{said}");
        assert!(said.ends_with("the configuration can be used\n"), "{said}");
        assert_eq!(check(&["-l", "*", "--http-listen", "localhost:0"]), "the configuration can be used\n");
    }

    #[test]
    fn users_are_looked_up() {
        let said = check(&["-u", "no-such-user-here"]);
        let expected = if nix::unistd::Uid::effective().is_root() {
            "-u no-such-user-here: there is no such user"
        } else {
            "warning: -u no-such-user-here has no effect: only root can become another user"
        };
        assert!(said.starts_with(expected), "{said}");
    }
}

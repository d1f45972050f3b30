//! The cluster's options: etcd's address, this node's identity in it, how others reach it.

use std::ffi::OsStr;
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::cache::moves::options as moves;
use crate::cluster::{self, etcd};
use crate::config::ConfigError;
use crate::config::address::{self, Address};
use crate::config::settings::{Setting, Settings};
use crate::config::values;
use crate::node::ClusterOptions;
use crate::peer::options as peer;
use crate::server;

/// Turns the cluster on.
pub(super) const ENDPOINTS: &str = "etcd-endpoints";

/// The options that only have a meaning in a cluster.
const IN_A_CLUSTER: [&str; 20] = [
    "cluster",
    "node-id",
    "peer-listen",
    "peer-advertise",
    "advertise",
    "weight",
    "zone",
    "lease-ttl",
    "etcd-user",
    PASSWORD_FILE,
    "etcd-ca",
    "etcd-cert",
    "etcd-key",
    "peer-cert",
    "peer-key",
    "peer-ca",
    "peer-connect-timeout",
    "peer-timeout",
    "move-rate",
    "drain-timeout",
];

const PASSWORD_FILE: &str = "etcd-password-file";

/// A node that is merely slow loses a lease of a second (etcd itself waits that long for a leader). With a lease of
/// more than a minute, the keys of a dead node would be missing for that long.
const LEASE_SECONDS: RangeInclusive<u64> = 2..=60;

/// Members without a lease are taken for lost after at least this many leases (`etcd::Options::check`).
const GONE_LEASES: u32 = 4;

/// A client waits no longer than a minute for anything.
const WAIT_MILLIS: RangeInclusive<u64> = 1..=60_000;

/// Nothing that stops a node waits longer for it than an hour.
const DRAIN_SECONDS: RangeInclusive<u64> = 0..=3_600;

/// Puts the cluster's options together; `None` without etcd. `server` says where clients come in.
///
/// Values that only binding can tell stay empty, as [`ClusterOptions`] says.
pub(super) fn options(
    settings: &Settings,
    server: &server::Options,
    warnings: &mut Vec<String>,
) -> Result<Option<ClusterOptions>, ConfigError> {
    let Some(given) = settings.of(ENDPOINTS) else {
        let needless = IN_A_CLUSTER.iter().find_map(|name| settings.of(name));
        return match needless {
            Some(needless) => {
                Err(needless.refuse("needs --etcd-endpoints, without which a node is in no cluster"))
            }
            None => Ok(None),
        };
    };
    let endpoints = endpoints(given)?;
    let listen = peer_listen(settings)?;
    let advertised = peer_advertise(settings, &listen)?;
    if advertised.is_loopback()
        && let Some(far) = endpoints.iter().find(|endpoint| !is_here(endpoint))
    {
        warnings.push(format!(
            "other nodes are told to reach this one at {advertised}, which only this machine can, though etcd \
             is at {far}: give --peer-listen and --peer-advertise"
        ));
    }
    let membership = etcd::Options {
        endpoints,
        peer_addr: told(&advertised),
        memcached_addr: client_address(settings, server, &advertised.host)?,
        node_id: match settings.value("node-id", name)? {
            Some(id) => id,
            None if listen.port == 0 => String::new(),
            None => etcd::default_node_id(listen.port),
        },
        ..membership(settings)?
    };
    check(settings, given, &membership)?;
    let peer = peer::Options { listen: listen.to_string(), ..peer(settings)? };
    Ok(Some(ClusterOptions { membership, peer, moves: moves(settings)? }))
}

/// What the files and the options that stand by themselves say of the membership.
fn membership(settings: &Settings) -> Result<etcd::Options, ConfigError> {
    for name in ["etcd-user", PASSWORD_FILE] {
        together(settings, name, &["etcd-user", PASSWORD_FILE])?;
    }
    for name in ["etcd-cert", "etcd-key"] {
        together(settings, name, &["etcd-cert", "etcd-key", "etcd-ca"])?;
    }
    let default = etcd::Options::default();
    let lease_ttl = settings
        .value("lease-ttl", within(LEASE_SECONDS, "seconds"))?
        .map_or(default.lease_ttl, Duration::from_secs);
    Ok(etcd::Options {
        cluster: settings.value("cluster", name)?.unwrap_or(default.cluster),
        user: settings.value("etcd-user", name)?,
        password: password(settings)?,
        ca: file(settings, "etcd-ca")?,
        cert: file(settings, "etcd-cert")?,
        key: file(settings, "etcd-key")?,
        weight: settings.value("weight", values::number(1..=10_000))?.unwrap_or(default.weight),
        zone: settings.value("zone", name)?.unwrap_or(default.zone),
        lease_ttl,
        gone_after: default.gone_after.max(lease_ttl * GONE_LEASES),
        ..etcd::Options::default()
    })
}

fn peer(settings: &Settings) -> Result<peer::Options, ConfigError> {
    let default = peer::Options::default();
    for name in ["peer-cert", "peer-key", "peer-ca"] {
        together(settings, name, &["peer-cert", "peer-key", "peer-ca"])?;
    }
    let files = (file(settings, "peer-cert")?, file(settings, "peer-key")?, file(settings, "peer-ca")?);
    let tls = match files {
        (Some(cert), Some(key), Some(ca)) => Some(peer::Tls { cert, key, ca }),
        _ => None,
    };
    let wait = |name| settings.value(name, within(WAIT_MILLIS, "milliseconds"));
    Ok(peer::Options {
        tls,
        connect_timeout: wait("peer-connect-timeout")?.map_or(default.connect_timeout, Duration::from_millis),
        operation_timeout: wait("peer-timeout")?.map_or(default.operation_timeout, Duration::from_millis),
        ..default
    })
}

fn moves(settings: &Settings) -> Result<moves::Options, ConfigError> {
    let default = moves::Options::default();
    let drain_timeout = settings.value("drain-timeout", within(DRAIN_SECONDS, "seconds"))?;
    Ok(moves::Options {
        bytes_per_second: settings.value("move-rate", values::rate)?.unwrap_or(default.bytes_per_second),
        drain_timeout: drain_timeout.map_or(default.drain_timeout, Duration::from_secs),
    })
}

fn peer_listen(settings: &Settings) -> Result<Address, ConfigError> {
    let parse = |text: &str| {
        Address::parse(text).map_err(|why| {
            format!("{why} (allowed: host:port, [v6]:port, with 0.0.0.0 or [::] for every address and 0 for any free port)")
        })
    };
    match settings.value("peer-listen", parse)? {
        Some(listen) => Ok(listen),
        None => Address::parse(&peer::Options::default().listen).map_err(ConfigError::Usage),
    }
}

/// Where other nodes reach this one. Port 0 means the port that will be bound.
fn peer_advertise(settings: &Settings, listen: &Address) -> Result<Address, ConfigError> {
    if let Some(given) = settings.value("peer-advertise", address::advertised)? {
        return Ok(given);
    }
    match settings.of("peer-listen") {
        Some(given) if listen.is_wildcard() => Err(given.refuse(
            "listens on every address, so that others must be told which to use: --peer-advertise HOST:PORT",
        )),
        _ => Ok(listen.clone()),
    }
}

/// Where clients reach this node. The default is the first listener, or the host that the peers know when that listener
/// is every address or a unix socket. Empty when the port is not known yet.
fn client_address(
    settings: &Settings,
    server: &server::Options,
    peer_host: &str,
) -> Result<String, ConfigError> {
    if let Some(given) = settings.value("advertise", address::advertised)? {
        return Ok(given.to_string());
    }
    let first = server.listen.first();
    let host = first.and_then(|listen| listen.host.as_deref()).filter(|host| !address::is_wildcard(host));
    let host = host.unwrap_or(peer_host).to_owned();
    let port = first.map_or(values::DEFAULT_PORT, |listen| listen.port);
    Ok(told(&Address { host, port }))
}

/// An address as others are told; empty while the port is not known.
fn told(address: &Address) -> String {
    if address.port == 0 { String::new() } else { address.to_string() }
}

/// The words of `--etcd-endpoints`, each once.
fn endpoints(given: &Setting) -> Result<Vec<String>, ConfigError> {
    let mut all = Vec::new();
    for value in given.values() {
        let refuse = |why: String| given.refuse_value(value, why);
        let text = value.to_str().ok_or_else(|| refuse("is not UTF-8 text".into()))?;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word.contains('@') {
                // The value is not shown: this is how passwords get into logs.
                return Err(given.refuse_value(
                    OsStr::new("..."),
                    "a name and a password do not belong into an address: give --etcd-user and --etcd-password-file",
                ));
            }
            if let Err(why) = endpoint(word) {
                let why = address::of_word(word, text, why);
                return Err(refuse(format!(
                    "{why} (allowed: host:port, http://host:port, https://host:port)"
                )));
            }
            if !all.iter().any(|known| known == word) {
                all.push(word.to_owned());
            }
        }
    }
    if all.is_empty() {
        return Err(given.refuse("needs the addresses of etcd, such as 127.0.0.1:2379"));
    }
    Ok(all)
}

fn endpoint(word: &str) -> Result<Address, String> {
    let address = match word.split_once("://") {
        Some(("http" | "https", rest)) => rest.strip_suffix('/').unwrap_or(rest),
        Some((scheme, _)) => return Err(format!("etcd is not asked through {scheme}")),
        None => word,
    };
    let address = Address::parse(address)?;
    if address.port == 0 { Err("nobody can connect to port 0".into()) } else { Ok(address) }
}

fn is_here(endpoint_word: &str) -> bool {
    endpoint(endpoint_word).is_ok_and(|address| address.is_loopback())
}

/// Finds errors at the start that joining would find later. `given` are the endpoints.
fn check(settings: &Settings, given: &Setting, membership: &etcd::Options) -> Result<(), ConfigError> {
    let mut whole = membership.clone();
    if whole.node_id.is_empty() {
        whole.node_id = etcd::default_node_id(0);
    }
    whole.check().map_err(|error| match error {
        cluster::Error::Options { option, why, .. } => settings.of(option).unwrap_or(given).refuse(why),
        error => given.refuse(error.to_string()),
    })
}

/// Refuses `name` when it was given and not all of `names` were.
fn together(settings: &Settings, name: &str, names: &[&str]) -> Result<(), ConfigError> {
    let Some(given) = settings.of(name) else {
        return Ok(());
    };
    let missing: Vec<_> =
        names.iter().filter(|name| settings.of(name).is_none()).map(|name| format!("--{name}")).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(given.refuse(format!("needs {}, too", missing.join(" and "))))
    }
}

/// A file that is read later: this checks that it can be read.
fn file(settings: &Settings, name: &str) -> Result<Option<PathBuf>, ConfigError> {
    match (settings.path(name)?, settings.of(name)) {
        (Some(path), Some(given)) => match fs::read(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) => Err(given.refuse(error.to_string())),
        },
        _ => Ok(None),
    }
}

fn password(settings: &Settings) -> Result<Option<etcd::Password>, ConfigError> {
    let (Some(path), Some(given)) = (settings.path(PASSWORD_FILE)?, settings.of(PASSWORD_FILE)) else {
        return Ok(None);
    };
    let text = fs::read_to_string(path).map_err(|error| given.refuse(error.to_string()))?;
    // Editors end the line.
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(given.refuse("is empty: needs a file that holds the password of --etcd-user"));
    }
    Ok(Some(etcd::Password(password.to_owned())))
}

/// A name that stands in a key of etcd and in a line of `stats`.
fn name(text: &str) -> Result<String, String> {
    let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if (1..=200).contains(&text.len()) && text.bytes().all(valid) {
        Ok(text.to_owned())
    } else {
        Err("needs 1 to 200 characters of ASCII, without blanks and without /".into())
    }
}

/// A whole number of `unit`.
fn within(range: RangeInclusive<u64>, unit: &str) -> impl Fn(&str) -> Result<u64, String> {
    move |text| values::number(range.clone())(text).map_err(|why| format!("{why}, in {unit}"))
}

#[cfg(test)]
mod tests;

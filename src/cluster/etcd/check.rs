//! What is wrong with options, said in the words of the command line.

use std::fmt::Display;
use std::time::Duration;

use crate::cluster::Error;
use crate::cluster::etcd::options::Options;

/// A weight is a share in relation to others', and a hundred times the usual one is plenty.
const WEIGHT_MAX: u32 = 10_000;

/// Names stand in keys of etcd.
const NAME_MAX: usize = 200;

/// etcd counts leases in seconds.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// A node serves without a lease for half of the time after which it may be taken for lost, and
/// that must be longer than a lease by far.
const GONE_LEASES: u32 = 4;

impl Options {
    /// Finds what no retry could mend: names, pairs of options, files that cannot be used.
    ///
    /// # Errors
    /// [`Error::Options`].
    pub fn check(&self) -> Result<(), Error> {
        if self.endpoints.is_empty() {
            return refuse("etcd-endpoints", &"", "needs the addresses of etcd, such as 127.0.0.1:2379");
        }
        let is_bad =
            |name: &str| name.len() > NAME_MAX || name.contains(|c: char| c == '/' || c.is_control());
        for (option, name) in [("cluster", &self.cluster), ("node-id", &self.node_id), ("zone", &self.zone)] {
            if is_bad(name) || name.is_empty() && option != "zone" {
                return refuse(option, name, format!("needs 1 to {NAME_MAX} characters, without /"));
            }
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            let why = format!("needs a whole number from 1 to {WEIGHT_MAX}");
            return refuse("weight", &self.weight, why);
        }
        match (&self.user, &self.password) {
            (Some(user), None) => return refuse("etcd-user", user, "needs --etcd-password-file, too"),
            (None, Some(_)) => return refuse("etcd-password-file", &"", "needs --etcd-user, too"),
            _ => {}
        }
        match (&self.ca, &self.cert, &self.key) {
            (_, Some(cert), None) => {
                return refuse("etcd-cert", &cert.display(), "needs --etcd-key, too");
            }
            (_, None, Some(key)) => return refuse("etcd-key", &key.display(), "needs --etcd-cert, too"),
            (None, Some(cert), Some(_)) => {
                return refuse("etcd-cert", &cert.display(), "needs --etcd-ca, too: who signed etcd's own");
            }
            _ => {}
        }
        if self.lease_ttl < LEASE_MIN {
            let why = format!("needs {} second at least", LEASE_MIN.as_secs());
            return refuse("lease-ttl", &self.lease_ttl.as_secs_f64(), why);
        }
        // What the command line does not know.
        if self.call_timeout.is_zero() {
            return refuse("call_timeout", &"0", "needs some time");
        }
        if self.gone_after < self.lease_ttl * GONE_LEASES {
            let why = format!("needs {GONE_LEASES} times --lease-ttl at least");
            return refuse("gone_after", &self.gone_after.as_secs_f64(), why);
        }
        self.endpoints.iter().try_for_each(|endpoint| self.endpoint(endpoint).map(drop))
    }
}

/// A complaint about the value of an option.
pub(super) fn refuse<T>(
    option: &'static str,
    value: &dyn Display,
    why: impl Into<String>,
) -> Result<T, Error> {
    let said = format!("--{option} {value}").trim_end().to_owned();
    Err(Error::Options { option, said, why: why.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::etcd::Password;

    fn complaint(change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options {
            endpoints: vec!["127.0.0.1:2379".to_owned(), "http://etcd:2379".to_owned()],
            node_id: "a".to_owned(),
            ..Options::default()
        };
        change(&mut options);
        options.check().map_or_else(|error| error.to_string(), |()| String::new())
    }

    type Change = fn(&mut Options);

    #[test]
    fn what_cannot_work_is_refused_by_its_option_and_value() {
        let cases: [(Change, &str); 18] = [
            (|_| (), ""),
            (|options| options.endpoints.clear(), "--etcd-endpoints: needs the addresses of etcd, such as"),
            (|options| options.endpoints = vec!["a b".into()], "--etcd-endpoints a b: invalid uri"),
            (
                |options| options.endpoints = vec!["https://etcd:2379".into()],
                "--etcd-endpoints https://etcd:2379: needs --etcd-ca, the authorities that etcd's certificate",
            ),
            (
                |options| {
                    options.endpoints = vec!["http://etcd:2379".into()];
                    options.ca = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into());
                },
                "--etcd-endpoints http://etcd:2379: needs https with --etcd-ca",
            ),
            (|options| options.cluster = "a/b".into(), "--cluster a/b: needs 1 to 200 characters, without /"),
            (|options| options.node_id.clear(), "--node-id: needs 1 to 200 characters"),
            (|options| options.zone = "x".repeat(201), "--zone xxx"),
            (|options| options.weight = 0, "--weight 0: needs a whole number from 1 to 10000"),
            (
                |options| options.user = Some("root".into()),
                "--etcd-user root: needs --etcd-password-file, too",
            ),
            (
                |options| options.password = Some(Password("secret".into())),
                "--etcd-password-file: needs --etcd-user, too",
            ),
            (|options| options.cert = Some("c.pem".into()), "--etcd-cert c.pem: needs --etcd-key, too"),
            (|options| options.key = Some("k.pem".into()), "--etcd-key k.pem: needs --etcd-cert, too"),
            (
                |options| (options.cert, options.key) = (Some("c.pem".into()), Some("k.pem".into())),
                "--etcd-cert c.pem: needs --etcd-ca, too",
            ),
            (|options| options.ca = Some("/no/such.pem".into()), "--etcd-ca /no/such.pem: No such file"),
            (|options| options.lease_ttl = Duration::from_millis(10), "--lease-ttl 0.01: needs 1 second"),
            (|options| options.gone_after = Duration::from_secs(6), "--gone_after 6: needs 4 times"),
            (|options| options.call_timeout = Duration::ZERO, "--call_timeout 0: needs some time"),
        ];
        for (change, expected) in cases {
            let complaint = complaint(change);
            assert!(complaint.starts_with(expected), "{complaint}");
            assert_eq!(complaint.is_empty(), expected.is_empty(), "{complaint}");
        }
    }
}

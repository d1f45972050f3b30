//! The hosts of this cluster's nodes: which host a node's certificate must carry, and from which addresses members are
//! expected to call.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tracing::debug;

use crate::cluster::view::Member;
use crate::cluster::{Membership, State};
use crate::server::guests::Guests;

/// Nodes that are remembered though they are neither in the view nor registered: a node that has just left or was put
/// out still forwards its clients' commands.
const PAST_MAX: usize = 256;

/// How often names are looked up when nothing else happens.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(60);

/// How long one name may take.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);

/// Where nodes are reached.
#[derive(Debug)]
pub struct Hosts {
    membership: Membership,
    past: Mutex<Past>,
}

/// The result of checking a caller's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It carries the host that the node is reached at.
    Proven,
    /// It belongs to another node: it should carry one of these hosts.
    Foreign(Vec<String>),
    /// Nobody knows such a node.
    Unknown,
}

/// Hosts by id; the most recently seen are kept.
#[derive(Debug, Default)]
struct Past {
    hosts: BTreeMap<String, String>,
    order: VecDeque<String>,
}

impl Hosts {
    /// The hosts of that cluster.
    pub fn new(membership: &Membership) -> Self {
        Self { membership: membership.clone(), past: Mutex::default() }
    }

    /// Checks the certificate of a caller that calls itself `id`. A node is known from the view, from its registration,
    /// or from earlier.
    pub fn check(&self, id: &str, certificate: &CertificateDer<'_>) -> Claim {
        let state = self.membership.state();
        let present = [state.view.members.get(id), state.registered.get(id)].into_iter().flatten();
        let mut hosts: Vec<String> =
            present.map(|member| host_of(&member.peer_addr)).map(str::to_owned).collect();
        hosts.dedup();
        if hosts.is_empty() {
            hosts.extend(self.past.lock().hosts.get(id).cloned());
        }
        let Ok(certificate) = ParsedCertificate::try_from(certificate) else { return Claim::Foreign(hosts) };
        let carries = |host: &String| {
            ServerName::try_from(host.as_str())
                .is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
        };
        match hosts.iter().any(carries) {
            _ if hosts.is_empty() => Claim::Unknown,
            true => Claim::Proven,
            false => Claim::Foreign(hosts),
        }
    }

    /// Follows the members until the membership ends. Tells `guests` from which addresses to expect them.
    pub async fn follow(self: Arc<Self>, guests: Arc<Guests>) {
        let mut membership = self.membership.clone();
        loop {
            let hosts = self.remember(&membership.state());
            let mut addrs = Vec::new();
            for host in &hosts {
                addrs.extend(addresses(host).await);
            }
            guests.expect(addrs);
            let changed = async {
                // Most changes concern other things.
                while let Some(state) = membership.changed().await {
                    if nodes(&state).any(|node| !hosts.iter().any(|host| host == host_of(&node.peer_addr))) {
                        return true;
                    }
                    self.remember(&state);
                }
                false
            };
            if matches!(timeout(LOOKUP_INTERVAL, changed).await, Ok(false)) {
                break;
            }
        }
    }

    /// Remembers the nodes and their hosts, each once.
    fn remember(&self, state: &State) -> Vec<String> {
        let mut past = self.past.lock();
        let mut hosts: Vec<String> = nodes(state)
            .map(|node| {
                let host = host_of(&node.peer_addr);
                past.keep(&node.id, host);
                host.to_owned()
            })
            .collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

impl Past {
    fn keep(&mut self, id: &str, host: &str) {
        if self.hosts.get(id).is_some_and(|known| known == host) {
            return;
        }
        self.order.retain(|known| known != id);
        self.order.push_back(id.to_owned());
        self.hosts.insert(id.to_owned(), host.to_owned());
        if self.order.len() > PAST_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.hosts.remove(&oldest);
        }
    }
}

/// The nodes that are in the view, or registered for it.
fn nodes(state: &State) -> impl Iterator<Item = &Member> {
    state.view.members.values().chain(state.registered.values())
}

async fn addresses(host: &str) -> Vec<IpAddr> {
    if let Ok(addr) = host.parse() {
        return vec![addr];
    }
    match timeout(LOOKUP_PATIENCE, lookup_host((host, 0))).await {
        Ok(Ok(found)) => found.map(|addr| addr.ip()).collect(),
        Ok(Err(error)) => {
            debug!(host, "a member's host has no address: {error}");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// The host of `host:port`, without the brackets of IPv6.
fn host_of(addr: &str) -> &str {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::cluster::Hooks;
    use crate::cluster::view::View;
    use crate::testkit::membership::Script;

    struct Nothing;

    impl Hooks for Nothing {
        fn forget(&self) {}
    }

    fn member(id: &str, host: &str) -> (String, Member) {
        let member = Member {
            id: id.to_owned(),
            incarnation: 1,
            peer_addr: format!("{host}:11212"),
            memcached_addr: String::new(),
            weight: 100,
            zone: String::new(),
        };
        (id.to_owned(), member)
    }

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let signed = CertificateParams::new(names).expect("names").self_signed(&key).expect("signed");
        signed.der().clone()
    }

    #[test]
    fn a_certificate_is_for_the_host_that_the_node_is_reached_at() {
        let (script, membership) = Script::new(member("me", "me.example").1, Arc::new(Nothing));
        let hosts = Hosts::new(&membership);
        let one = certificate(&["one.example"]);
        assert_eq!(hosts.check("one", &one), Claim::Unknown);

        let known = [member("one", "one.example"), member("v4", "10.0.0.4"), member("v6", "[2001:db8::6]")];
        script.push(1, View { members: known.into(), ..View::default() });
        assert_eq!(hosts.check("one", &one), Claim::Proven);
        assert_eq!(hosts.check("one", &certificate(&["two.example", "one.example"])), Claim::Proven);
        for other in ["two.example", "10.0.0.4", "one.example.org"] {
            let claim = hosts.check("one", &certificate(&[other]));
            assert_eq!(claim, Claim::Foreign(vec!["one.example".to_owned()]), "{other}");
        }
        assert_eq!(hosts.check("v4", &certificate(&["10.0.0.4"])), Claim::Proven);
        assert_eq!(hosts.check("v6", &certificate(&["2001:db8::6"])), Claim::Proven);
        assert_eq!(hosts.check("v4", &one), Claim::Foreign(vec!["10.0.0.4".to_owned()]));
        let broken = CertificateDer::from(b"none".to_vec());
        assert_eq!(hosts.check("one", &broken), Claim::Foreign(vec!["one.example".to_owned()]));
    }

    #[test]
    fn who_is_registered_is_known_and_who_was_there_too() {
        let (script, membership) = Script::new(member("me", "me.example").1, Arc::new(Nothing));
        let hosts = Hosts::new(&membership);
        let one = certificate(&["one.example"]);
        script.enlist([member("one", "one.example")].into());
        assert_eq!(hosts.check("one", &one), Claim::Proven, "it would like to be a member");
        hosts.remember(&membership.state());
        script.enlist(BTreeMap::new());
        assert_eq!(hosts.check("one", &one), Claim::Proven, "it has just left");
        assert!(matches!(hosts.check("one", &certificate(&["two.example"])), Claim::Foreign(_)));
        // Its place and its registration may be at different hosts for a while.
        script.push(1, View { members: [member("one", "old.example")].into(), ..View::default() });
        script.enlist([member("one", "one.example")].into());
        assert_eq!(hosts.check("one", &one), Claim::Proven);
        assert_eq!(hosts.check("one", &certificate(&["old.example"])), Claim::Proven);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut past = Past::default();
        (0..PAST_MAX + 10).for_each(|number| past.keep(&number.to_string(), "host"));
        past.keep("10", "other");
        past.keep("new", "host");
        assert_eq!((past.hosts.len(), past.order.len()), (PAST_MAX, PAST_MAX));
        assert!(!past.hosts.contains_key("9") && !past.hosts.contains_key("11"));
        assert_eq!(past.hosts["10"], "other");
    }

    #[tokio::test]
    async fn addresses_are_looked_up() {
        assert_eq!(addresses("10.0.0.4").await, [IpAddr::from([10, 0, 0, 4])]);
        assert!(addresses("localhost").await.iter().all(IpAddr::is_loopback));
        assert_eq!(addresses("no-such-host.invalid").await, [] as [IpAddr; 0]);
        assert_eq!(host_of("[2001:db8::6]:11212"), "2001:db8::6");
        assert_eq!(host_of("node.example:1"), "node.example");
    }
}

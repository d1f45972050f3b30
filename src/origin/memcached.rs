//! A fleet of memcached servers as an origin: a cache that takes their place starts warm.
//!
//! The old servers hold a key with the prefix of its group, and each key on the server that libmemcached's ketama
//! gives it. They are only read, but for one thing: of an item that a client has marked stale, the first meta get
//! is told to make it anew, and no other is. Such a win is handed back, so that a client gets it.

mod address;
mod connection;
mod ketama;
mod key;
mod options;
mod reply;
mod server;

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::origin::memcached::address::Address;
use crate::origin::memcached::ketama::Ring;
use crate::origin::memcached::key::Key;
use crate::origin::memcached::server::Server;
use crate::origin::{Failed, Fetched, Fetching, Invalid, Origin, Trial};
pub use options::Options;

/// The field that names the servers.
const SERVERS_FIELD: &str = "memcached";

/// The form of a server, for messages.
const SERVER_FORM: &str = "allowed: host, host:port, [v6]:port, with a weight host:port/?2 or host:port:2";

/// The servers, with the connections to them. Connects when it is asked, not before.
#[derive(Debug)]
pub struct Memcached {
    prefix: Vec<u8>,
    servers: Vec<Arc<Server>>,
    ring: Ring,
}

impl Memcached {
    /// Whether the options can be used. Looks no name up and connects to nothing.
    ///
    /// # Errors
    ///
    /// No server, one that is not written as it should be or that stands twice, and no connections.
    pub fn check(options: &Options) -> Result<(), Invalid> {
        addresses(options).map(|_| ())
    }

    /// Makes the origin. Looks no name up and connects to nothing.
    ///
    /// # Errors
    ///
    /// As [`Memcached::check`].
    pub fn new(options: &Options) -> Result<Self, Invalid> {
        let addresses = addresses(options)?;
        let ring = Ring::new(&addresses);
        let server = |address| Arc::new(Server::new(address, options));
        let servers = addresses.into_iter().map(server).collect();
        Ok(Self { prefix: options.prefix.clone(), servers, ring })
    }
}

impl Origin for Memcached {
    fn fetch<'a>(&'a self, key: &'a [u8]) -> Fetching<'a> {
        Box::pin(async move {
            match Key::new(&self.prefix, key) {
                Some(key) => self.servers[self.ring.owner(key.stored())].fetch(&key).await,
                None => Ok(Fetched::Absent),
            }
        })
    }

    /// Connects to all servers at the same time, and names those that cannot be reached.
    fn try_out(&self) -> Trial<'_> {
        Box::pin(async move {
            let trial = |server: &Arc<Server>| {
                let server = server.clone();
                AbortOnDropHandle::new(tokio::spawn(async move { server.try_out().await }))
            };
            let trials: Vec<_> = self.servers.iter().map(trial).collect();
            let mut failed = Vec::new();
            for trial in trials {
                if let Ok(Err(Failed(why))) = trial.await {
                    failed.push(why);
                }
            }
            if failed.is_empty() { Ok(()) } else { Err(Failed(failed.join("; "))) }
        })
    }
}

/// Reads the servers.
fn addresses(options: &Options) -> Result<Vec<Address>, Invalid> {
    if options.servers.is_empty() {
        return Err(Invalid::new(SERVERS_FIELD, "needs at least one server, such as \"old-1:11211\""));
    }
    if options.connections == 0 {
        return Err(Invalid::new("connections", "0 connections cannot ask (allowed: from 1)"));
    }
    let mut all: Vec<Address> = Vec::with_capacity(options.servers.len());
    for text in &options.servers {
        let address = Address::parse(text)
            .map_err(|why| Invalid::new(SERVERS_FIELD, format!("{text:?}: {why} ({SERVER_FORM})")))?;
        if all.iter().any(|other| other.is_same_server(&address)) {
            return Err(Invalid::new(
                SERVERS_FIELD,
                format!("{text:?}: stands twice (allowed: each server once)"),
            ));
        }
        all.push(address);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;

//! A connection to one etcd endpoint, where every call has a deadline.
//!
//! The crate `etcd-client` speaks the protocol. What it offers beyond single calls is not used:
//! neither its keep-alive nor its watch notices a server that hangs, and neither comes back by
//! itself (etcdv3/etcd-client#17, #48, #54). Here nothing reconnects: the session that owns a
//! connection ends at the first failure, and the next one tries the next endpoint.

use std::error::Error as _;
use std::time::Duration;

use etcd_client::{
    Channel, Compare, CompareOp, ConnectOptions, GetOptions, KvClient, LeaseClient, Txn, TxnOp, WatchClient,
    WatchOptions, WatchStream,
};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::cluster::etcd::calls::{self, Calls, Change, Check, Connect, Error, Record, Write};
use crate::cluster::etcd::endpoint::innermost;
use crate::cluster::etcd::options::Options;

/// The largest answer that is read: a view of a thousand members is a tenth of it.
const ANSWER_LIMIT_BYTES: usize = 4 << 20;

/// A connection to one endpoint; cheap to clone.
#[derive(Clone)]
pub struct Client {
    kv: KvClient,
    lease: LeaseClient,
    watch: WatchClient,
    deadline: Duration,
}

impl Connect for Options {
    type Calls = Client;

    async fn connect(&self, endpoint: &str) -> Result<Client, Error> {
        Client::connect(self.endpoint(endpoint)?, self.login(), self.call_timeout).await
    }
}

impl Client {
    /// Connects, and says who we are when `login` names a user and a password. `deadline` is for
    /// each call.
    pub async fn connect(
        endpoint: Endpoint,
        login: Option<(&str, &str)>,
        deadline: Duration,
    ) -> Result<Self, Error> {
        let channel = match timeout(deadline, endpoint.connect()).await {
            Err(_) => return Err(Error::Silent("connect", deadline)),
            Ok(Err(error)) => return Err(Error::Connect(innermost(&error))),
            Ok(Ok(channel)) => channel,
        };
        // An endpoint that is cut off from the others refuses then, instead of staying silent.
        let mut options = ConnectOptions::new().with_require_leader(true);
        if let Some((name, password)) = login {
            options = options.with_user(name, password);
        }
        let client = etcd_client::Client::from_channel(Channel::Tonic(channel), Some(options));
        let client = within(deadline, "authenticate", client).await?;
        Ok(Self {
            kv: client.kv_client().max_decoding_message_size(ANSWER_LIMIT_BYTES),
            lease: client.lease_client(),
            watch: client.watch_client().max_decoding_message_size(ANSWER_LIMIT_BYTES),
            deadline,
        })
    }

    async fn within<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Error> {
        within(self.deadline, what, call).await
    }
}

impl Calls for Client {
    type Watch = Watch;

    async fn read(&self, prefix: &str) -> Result<(i64, Vec<(String, Record)>), Error> {
        let mut kv = self.kv.clone();
        let options = GetOptions::new().with_prefix();
        let mut response = self.within("read", kv.get(prefix, Some(options))).await?;
        let revision = response.header().map_or(0, |header| header.revision());
        Ok((revision, response.take_kvs().into_iter().filter_map(record).collect()))
    }

    async fn read_at(&self, key: &str, revision: i64) -> Result<Option<Record>, Error> {
        let mut kv = self.kv.clone();
        let options = GetOptions::new().with_revision(revision);
        let mut response = self.within("read", kv.get(key, Some(options))).await?;
        Ok(response.take_kvs().into_iter().filter_map(record).next().map(|(_, record)| record))
    }

    async fn write_if(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Option<i64>, Error> {
        let compare = checks.into_iter().map(|check| match check {
            Check::Unchanged(key, revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
            Check::NoneNewer(prefix, revision) => {
                Compare::mod_revision(prefix, CompareOp::Less, revision + 1).with_prefix()
            }
        });
        let operation = |write| match write {
            Write::Put(key, value, lease) => {
                TxnOp::put(key, value, Some(etcd_client::PutOptions::new().with_lease(lease)))
            }
            Write::Delete(key) => TxnOp::delete(key, None),
        };
        let txn = Txn::new()
            .when(compare.collect::<Vec<_>>())
            .and_then(writes.into_iter().map(operation).collect::<Vec<_>>());
        let mut kv = self.kv.clone();
        let response = self.within("write", kv.txn(txn)).await?;
        Ok(response.succeeded().then(|| response.header().map_or(0, |header| header.revision())))
    }

    async fn grant(&self, ttl: Duration) -> Result<i64, Error> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let mut lease = self.lease.clone();
        let response = self.within("lease grant", lease.grant(seconds, None)).await?;
        match response.error() {
            "" => Ok(response.id()),
            error => Err(Error::Refused("lease grant", error.to_owned())),
        }
    }

    // Opens a stream for each renewal, which costs little every few seconds, and cannot be stuck
    // from an earlier one.
    async fn keep_alive(&self, id: i64) -> Result<bool, Error> {
        let mut lease = self.lease.clone();
        let renew = async {
            match lease.keep_alive(id).await {
                Ok(_) => Ok(true),
                // What the crate makes of an answer that gives the lease no more time.
                Err(etcd_client::Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.within("lease renewal", renew).await
    }

    async fn revoke(&self, id: i64) -> Result<(), Error> {
        let mut lease = self.lease.clone();
        self.within("lease revocation", lease.revoke(id)).await?;
        Ok(())
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<Watch, Error> {
        let mut watch = self.watch.clone();
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        Ok(Watch(self.within("watch", watch.watch(prefix, Some(options))).await?))
    }
}

/// A running watch.
#[derive(Debug)]
pub struct Watch(WatchStream);

impl calls::Watch for Watch {
    async fn next(&mut self) -> Result<Vec<Change>, Error> {
        let response = match self.0.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(Error::WatchEnded("closed by etcd".into())),
            Err(error) => return Err(Error::WatchEnded(reason(&error))),
        };
        if response.compact_revision() > 0 {
            return Err(Error::Compacted);
        }
        if response.canceled() {
            return Err(Error::WatchEnded(response.cancel_reason().to_owned()));
        }
        let change = |event: &etcd_client::Event| {
            let (key, record) = record(event.kv()?.clone())?;
            // `Event::event_type` panics at what it does not know. A deleted key is one whose
            // count of versions starts anew (etcd's api/mvccpb/kv.proto, KeyValue.version).
            let deleted = event.kv()?.version() == 0;
            Some(Change { key, revision: record.revision, record: (!deleted).then_some(record) })
        };
        Ok(response.events().iter().filter_map(change).collect())
    }
}

async fn within<T>(
    deadline: Duration,
    what: &'static str,
    call: impl Future<Output = Result<T, etcd_client::Error>>,
) -> Result<T, Error> {
    match timeout(deadline, call).await {
        Err(_) => Err(Error::Silent(what, deadline)),
        Ok(Ok(response)) => Ok(response),
        // etcd's api/v3rpc/rpctypes/error.go, ErrGRPCCompacted.
        Ok(Err(etcd_client::Error::GRpcStatus(status))) if status.code() == Code::OutOfRange => {
            Err(Error::Compacted)
        }
        Ok(Err(error)) => Err(Error::Refused(what, reason(&error))),
    }
}

/// A key and what it holds; `None` for a key that is not text, which nobody here wrote.
fn record(kv: etcd_client::KeyValue) -> Option<(String, Record)> {
    let (revision, lease) = (kv.mod_revision(), kv.lease());
    let (key, value) = kv.into_key_value();
    Some((String::from_utf8(key).ok()?, Record { value, revision, lease }))
}

/// What is behind an error of the crate, whose own words leave that out.
fn reason(error: &etcd_client::Error) -> String {
    match error {
        etcd_client::Error::GRpcStatus(status) if status.source().is_none() => status.message().to_owned(),
        etcd_client::Error::GRpcStatus(status) => innermost(status),
        etcd_client::Error::TransportError(error) => innermost(error),
        error => error.to_string(),
    }
}

//! A connection to one etcd endpoint, where every call has a deadline.
//!
//! It never reconnects by itself: the session that owns it ends at the first failure, and the
//! next one tries the next endpoint.

use std::time::Duration;

use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use self::pb::auth_client::AuthClient;
use self::pb::kv_client::KvClient;
use self::pb::lease_client::LeaseClient;
use self::pb::watch_client::WatchClient;

#[expect(clippy::all, reason = "generated")]
mod pb {
    tonic::include_proto!("etcdserverpb");
}

/// The largest answer that is read: a view of a thousand members is a tenth of it.
const ANSWER_LIMIT_BYTES: usize = 4 << 20;

/// A connection to one endpoint; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    credentials: Credentials,
    deadline: Duration,
}

/// A key as etcd holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What is stored.
    pub value: Vec<u8>,
    /// The revision that stored it: what a compare-and-swap compares.
    pub revision: i64,
    /// The lease it goes with; 0 for none.
    pub lease: i64,
}

/// What happened to one key.
#[derive(Debug)]
pub struct Change {
    /// The whole key.
    pub key: String,
    /// The revision of the change.
    pub revision: i64,
    /// What it holds now; `None` when it was deleted.
    pub record: Option<Record>,
}

/// One message of a watch.
#[derive(Debug)]
pub struct Changes {
    /// The revision that these changes lead to.
    pub revision: i64,
    /// The changes in their order.
    pub changes: Vec<Change>,
}

/// One write of a transaction.
#[derive(Debug)]
pub enum Write {
    /// Stores a value that goes with a lease; lease 0 for none.
    Put(String, Vec<u8>, i64),
    /// Deletes a key.
    Delete(String),
}

/// Why an etcd endpoint was no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing listens there, or it does not speak TLS as told.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// It did not answer in time.
    #[error("no answer to {0} within {1:?}")]
    Silent(&'static str, Duration),
    /// It refused.
    #[error("{0} was refused: {1}")]
    Refused(&'static str, String),
    /// What was asked for lies before the history that etcd still has.
    #[error("the history was compacted")]
    Compacted,
    /// The watch ended.
    #[error("the watch ended: {0}")]
    WatchEnded(String),
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
        let mut client = Self { channel, credentials: Credentials::default(), deadline };
        if let Some((name, password)) = login {
            let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
            let mut auth = AuthClient::new(client.channel.clone());
            let response = client.within("authenticate", auth.authenticate(request)).await?;
            let token = response.token.parse();
            client.credentials.token =
                Some(token.map_err(|_| Error::Refused("authenticate", "the token is not text".into()))?);
        }
        Ok(client)
    }

    /// Every key that starts with `prefix`, and the revision at which that was so.
    pub async fn read(&self, prefix: &str) -> Result<(i64, Vec<(String, Record)>), Error> {
        let request =
            pb::RangeRequest { key: prefix.into(), range_end: end_of(prefix), ..pb::RangeRequest::default() };
        let response = self.within("read", self.kv().range(request)).await?;
        let revision = response.header.map_or(0, |header| header.revision);
        Ok((revision, response.kvs.into_iter().filter_map(record).collect()))
    }

    /// What a key held at a revision of the past.
    ///
    /// # Errors
    /// [`Error::Compacted`] besides the usual.
    pub async fn read_at(&self, key: &str, revision: i64) -> Result<Option<Record>, Error> {
        let request = pb::RangeRequest { key: key.into(), revision, ..pb::RangeRequest::default() };
        let response = self.within("read", self.kv().range(request)).await?;
        Ok(response.kvs.into_iter().filter_map(record).next().map(|(_, record)| record))
    }

    /// Writes all when each key of `unchanged` still has the given revision (0: does not exist).
    /// The revision of the writes, or `None` when something had changed.
    pub async fn write_if(
        &self,
        unchanged: &[(&str, i64)],
        writes: Vec<Write>,
    ) -> Result<Option<i64>, Error> {
        let compare = unchanged.iter().map(|&(key, revision)| pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Mod.into(),
            key: key.into(),
            target_union: Some(pb::compare::TargetUnion::ModRevision(revision)),
        });
        let operation = |write| pb::RequestOp {
            request: Some(match write {
                Write::Put(key, value, lease) => {
                    pb::request_op::Request::RequestPut(pb::PutRequest { key: key.into(), value, lease })
                }
                Write::Delete(key) => pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                    key: key.into(),
                    range_end: Vec::new(),
                }),
            }),
        };
        let request = pb::TxnRequest {
            compare: compare.collect(),
            success: writes.into_iter().map(operation).collect(),
            failure: Vec::new(),
        };
        let response = self.within("write", self.kv().txn(request)).await?;
        Ok(response.succeeded.then(|| response.header.map_or(0, |header| header.revision)))
    }

    /// A new lease of at least this length: its id.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, Error> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = pb::LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX), id: 0 };
        let response = self.within("lease grant", self.lease().lease_grant(request)).await?;
        if response.error.is_empty() {
            Ok(response.id)
        } else {
            Err(Error::Refused("lease grant", response.error))
        }
    }

    /// Renews a lease: whether it still lived. Opens a stream for each renewal, which costs little
    /// every few seconds, and cannot be stuck from an earlier one.
    pub async fn keep_alive(&self, id: i64) -> Result<bool, Error> {
        let renew = async {
            let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
            let mut answers = self.lease().lease_keep_alive(request).await?.into_inner();
            Ok(tonic::Response::new(answers.message().await?))
        };
        let answer = self.within("lease renewal", renew).await?;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }

    /// Ends a lease, and every key that goes with it.
    pub async fn revoke(&self, id: i64) -> Result<(), Error> {
        self.within("lease revocation", self.lease().lease_revoke(pb::LeaseRevokeRequest { id })).await?;
        Ok(())
    }

    /// Watches every key that starts with `prefix`, from the revision on.
    pub async fn watch(&self, prefix: &str, from: i64) -> Result<Watch, Error> {
        let create = pb::WatchCreateRequest {
            key: prefix.into(),
            range_end: end_of(prefix),
            start_revision: from,
            progress_notify: false,
        };
        let request =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        // The stream to etcd stays open, or etcd ends the watch.
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let mut watch = WatchClient::with_interceptor(self.channel.clone(), self.credentials.clone())
            .max_decoding_message_size(ANSWER_LIMIT_BYTES);
        Ok(Watch(self.within("watch", watch.watch(requests)).await?))
    }

    async fn within<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Error> {
        match timeout(self.deadline, call).await {
            Err(_) => Err(Error::Silent(what, self.deadline)),
            Ok(Ok(response)) => Ok(response.into_inner()),
            // etcd's api/v3rpc/rpctypes/error.go, ErrGRPCCompacted.
            Ok(Err(status)) if status.code() == Code::OutOfRange => Err(Error::Compacted),
            Ok(Err(status)) => Err(Error::Refused(what, status.message().to_owned())),
        }
    }

    fn kv(&self) -> KvClient<InterceptedService<Channel, Credentials>> {
        KvClient::with_interceptor(self.channel.clone(), self.credentials.clone())
            .max_decoding_message_size(ANSWER_LIMIT_BYTES)
    }

    fn lease(&self) -> LeaseClient<InterceptedService<Channel, Credentials>> {
        LeaseClient::with_interceptor(self.channel.clone(), self.credentials.clone())
    }
}

/// A running watch.
#[derive(Debug)]
pub struct Watch(Streaming<pb::WatchResponse>);

impl Watch {
    /// The next changes, for which there is no deadline. Cancellation safe.
    pub async fn next(&mut self) -> Result<Changes, Error> {
        let response = match self.0.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(Error::WatchEnded("closed by etcd".into())),
            Err(status) => return Err(Error::WatchEnded(status.message().to_owned())),
        };
        if response.compact_revision > 0 {
            return Err(Error::Compacted);
        }
        if response.canceled {
            return Err(Error::WatchEnded(response.cancel_reason));
        }
        let revision = response.header.map_or(0, |header| header.revision);
        let change = |event: pb::Event| {
            let deleted = event.r#type() == pb::event::EventType::Delete;
            let (key, record) = record(event.kv?)?;
            Some(Change { key, revision: record.revision, record: (!deleted).then_some(record) })
        };
        Ok(Changes { revision, changes: response.events.into_iter().filter_map(change).collect() })
    }
}

/// Puts the token into every call, and asks for an endpoint that knows a leader: one cut off
/// from the others refuses then, instead of staying silent.
#[derive(Debug, Clone, Default)]
struct Credentials {
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// A key and what it holds; `None` for a key that is not text, which nobody here wrote.
fn record(kv: pb::KeyValue) -> Option<(String, Record)> {
    let key = String::from_utf8(kv.key).ok()?;
    Some((key, Record { value: kv.value, revision: kv.mod_revision, lease: kv.lease }))
}

/// The first key after all that start with `prefix`, which ends with a slash.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// What went wrong at the bottom: a transport error by itself says only "transport error".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

//! Calls to all other members at once, over the connections of the pings.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::pb;
use crate::pb::peer_client::PeerClient;
use crate::peer::grpc::MESSAGE_BYTES_MAX;
use crate::peer::pings::Pings;
use crate::peer::transport::Error;

/// What each member answered, by its id.
pub type Answers<T> = BTreeMap<String, Result<T, Error>>;

/// The statistics of every other member, as names and values. Returns by the deadline. When it is
/// dropped, nobody is waited for any more.
pub async fn stats(pings: &Pings, deadline: Duration) -> Answers<Vec<(String, String)>> {
    let replies = all(pings, deadline, |mut client, call| async move {
        client.stats(pb::StatsRequest { call: Some(call) }).await
    });
    let named = |reply: pb::StatsReply| reply.stats.into_iter().map(|stat| (stat.name, stat.value)).collect();
    replies.await.into_iter().map(|(id, reply)| (id, reply.map(named))).collect()
}

/// Flushes every other member after a delay. Returns by the deadline; who has not confirmed it
/// then may still do it.
pub async fn flush(pings: &Pings, delay_seconds: u32, deadline: Duration) -> Answers<()> {
    let replies = all(pings, deadline, move |mut client, call| async move {
        client.flush(pb::FlushRequest { call: Some(call), delay_seconds }).await
    });
    replies.await.into_iter().map(|(id, reply)| (id, reply.map(drop))).collect()
}

async fn all<T, F>(
    pings: &Pings,
    deadline: Duration,
    call: impl Fn(PeerClient<Channel>, pb::Call) -> F,
) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
{
    let mut answers = Answers::new();
    let mut calls = JoinSet::new();
    for (id, channel) in pings.channels() {
        let Some(channel) = channel else {
            answers.insert(id, Err(Error::Silent));
            continue;
        };
        let client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let call = call(client, pings.me().call(&id));
        calls.spawn(async move {
            match timeout(deadline, call).await {
                Ok(Ok(reply)) => (id, Ok(reply.into_inner())),
                Ok(Err(status)) => (id, Err(Error::from(status))),
                Err(_) => (id, Err(Error::Silent)),
            }
        });
    }
    // None of them panics.
    while let Some(Ok((id, answer))) = calls.join_next().await {
        answers.insert(id, answer);
    }
    answers
}

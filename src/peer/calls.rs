//! Calls to all members at once, over the connections of the pings.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::pb;
use crate::pb::peer_client::PeerClient;
use crate::peer::grpc::MESSAGE_BYTES_MAX;
use crate::peer::pings::Pings;

impl Pings {
    /// The statistics of every member of the view, this node included, in the order of their ids;
    /// `None` of one that has not answered by the deadline.
    pub async fn stats(&self, deadline: Duration) -> Vec<(String, Option<Vec<pb::Stat>>)> {
        let replies = self.call_all(deadline, |mut client, call| async move {
            client.stats(pb::StatsRequest { call: Some(call) }).await
        });
        replies.await.into_iter().map(|(id, reply)| (id, reply.map(|reply| reply.stats))).collect()
    }

    /// The activity of every member of the view in each of the last seconds, this node included, in the order of their
    /// ids: as it was sent; `None` for one that has not answered by the deadline.
    pub async fn history(&self, seconds: u32, deadline: Duration) -> Vec<(String, Option<Bytes>)> {
        let replies = self.call_all(deadline, move |mut client, call| async move {
            client.history(pb::HistoryRequest { call: Some(call), seconds }).await
        });
        replies.await.into_iter().map(|(id, reply)| (id, reply.map(|reply| reply.told_json))).collect()
    }

    /// Flushes every member of the view after a delay, this node included. Returns the ids of members that have not
    /// confirmed it by the deadline; they may still do it.
    pub async fn flush(&self, delay_seconds: u32, deadline: Duration) -> Vec<String> {
        let replies = self.call_all(deadline, move |mut client, call| async move {
            client.flush(pb::FlushRequest { call: Some(call), delay_seconds }).await
        });
        replies.await.into_iter().filter(|(_, reply)| reply.is_none()).map(|(id, _)| id).collect()
    }

    /// Makes the same call to everyone at the same time. When this is dropped, so are the calls.
    async fn call_all<T, F>(
        &self,
        deadline: Duration,
        call: impl Fn(PeerClient<Channel>, pb::Call) -> F + Clone + Send + 'static,
    ) -> Vec<(String, Option<T>)>
    where
        T: Send + 'static,
        F: Future<Output = Result<Response<T>, Status>> + Send + 'static,
    {
        let mut answers = Vec::new();
        let mut calls = JoinSet::new();
        for (member, channel) in self.members() {
            let (id, grpc, call) = (member.id.clone(), self.grpc().clone(), call.clone());
            let named = self.me().call(&id);
            calls.spawn(async move {
                let answer = async move {
                    let channel = match channel {
                        Some(channel) => channel,
                        // It may be back by now. And this node does not ping itself.
                        None => grpc.connect(&member).await.ok()?,
                    };
                    let client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
                    call(client, named).await.ok().map(Response::into_inner)
                };
                (id, timeout(deadline, answer).await.ok().flatten())
            });
        }
        // None of them panics.
        while let Some(Ok(answer)) = calls.join_next().await {
            answers.push(answer);
        }
        answers.sort_by(|(one, _), (other, _)| one.cmp(other));
        answers
    }
}

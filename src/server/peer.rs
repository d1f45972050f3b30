//! stub
use crate::cache::Cache;
use crate::pb;
use crate::peer::receive::serve_stream;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
/// A
#[derive(Clone)]
pub struct Service;
impl Service {
    /// A
    pub fn new(
        _d: Arc<crate::server::Door>,
        _m: &crate::cluster::Membership,
        _p: &Arc<crate::peer::pings::Pings>,
    ) -> Self {
        Self
    }
    /// A
    pub async fn serve(self, c: Arc<Cache>, mut p: mpsc::Receiver<TcpStream>, stop: CancellationToken) {
        let incoming =
            async_stream(move |cx| p.poll_recv(cx).map(|s| s.map(|s| tokio::net::TcpStream::from_std(s))));
        let one = One { cache: c, stop: stop.clone() };
        let server = pb::peer_server::PeerServer::new(one).max_decoding_message_size(1 << 30);
        _ = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .add_service(server)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await;
    }
}
fn async_stream<T, F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Unpin>(
    f: F,
) -> S<F> {
    S(f)
}
struct S<F>(F);
impl<T, F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Unpin> Stream for S<F> {
    type Item = T;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
        (self.0)(cx)
    }
}
struct One {
    cache: Arc<Cache>,
    stop: CancellationToken,
}
#[tonic::async_trait]
impl pb::peer_server::Peer for One {
    type ForwardStream = Pin<Box<dyn Stream<Item = Result<pb::Outcomes, Status>> + Send>>;
    async fn forward(
        &self,
        r: Request<Streaming<pb::Operations>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let s = serve_stream(
            self.cache.clone(),
            self.cache.shared().me.clone(),
            self.stop.clone(),
            r.into_inner(),
        );
        Ok(Response::new(Box::pin(s)))
    }
    async fn ping(&self, _r: Request<pb::PingRequest>) -> Result<Response<pb::PingReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn view(&self, _r: Request<pb::ViewRequest>) -> Result<Response<pb::ViewReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn stats(&self, _r: Request<pb::StatsRequest>) -> Result<Response<pb::StatsReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn flush(&self, _r: Request<pb::FlushRequest>) -> Result<Response<pb::FlushReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

//! gRPC between processes: one HTTP/2 connection for each stream of operations, so that all of a
//! thread's work stays in it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::view::Member;
use crate::pb;
use crate::pb::peer_client::PeerClient;
use crate::peer::link::batches::Batches;
use crate::peer::options::Options;
use crate::peer::tls;
use crate::peer::transport::{
    Calling, Error, MoveRequests, MoveStream, Opening, OutcomeStream, Transport, innermost,
};

/// The largest message: an item of the largest size that can be set, 1 GiB, and the rest of a full batch.
pub const MESSAGE_BYTES_MAX: usize = (1 << 30) + (16 << 20);

/// How many bytes may be on their way in one direction of a stream, and of a connection, before the other end has read
/// them: some milliseconds of a fast network.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The largest frame of HTTP/2: large enough that a message is seldom cut.
pub const FRAME_BYTES: u32 = 256 << 10;

/// How often the other end must show that it is there, and how fast.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Members over whose connections values are loaded; more than a cluster has.
const LOAD_CHANNELS_MAX: usize = 1_024;

/// Calls over gRPC; cheap to clone.
#[derive(Debug, Clone)]
pub struct Grpc {
    options: Arc<Options>,
    /// The connection to each member over which it is asked to load values, by its address.
    loads: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Grpc {
    /// Calls with these options.
    pub fn new(options: Arc<Options>) -> Self {
        Self { options, loads: Arc::default() }
    }

    /// The options of calls.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A connection to a node, within the connect timeout. When it breaks, calls over it fail
    /// until another is made.
    ///
    /// # Errors
    /// Nobody answers there in time, or the wrong node does.
    pub async fn connect(&self, to: &Member) -> Result<Channel, Error> {
        let endpoint = self.endpoint(to)?;
        let error = |why: String| Error::Connect(to.peer_addr.clone(), why);
        match timeout(self.options.connect_timeout, endpoint.connect()).await {
            Ok(connected) => connected.map_err(|why| error(innermost(&why))),
            Err(_) => Err(error(format!("no answer within {:?}", self.options.connect_timeout))),
        }
    }

    fn endpoint(&self, to: &Member) -> Result<Endpoint, Error> {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        let error = |why: &tonic::transport::Error| Error::Connect(to.peer_addr.clone(), innermost(why));
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", to.peer_addr))
            .map_err(|why| error(&why))?
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES);
        let Some(tls) = &self.options.tls else { return Ok(endpoint) };
        let config = tls::client(tls).map_err(|why| Error::Tls(why.to_string()))?;
        endpoint.tls_config(config).map_err(|why| Error::Tls(innermost(&why)))
    }

    async fn call_load(self, to: Member, request: pb::LoadRequest) -> Result<pb::Outcome, Error> {
        let channel = {
            let mut loads = self.loads.lock();
            if loads.len() >= LOAD_CHANNELS_MAX && !loads.contains_key(&to.peer_addr) {
                // Most of them are of members that have gone.
                loads.clear();
            }
            match loads.get(&to.peer_addr) {
                Some(channel) => channel.clone(),
                // Connects when it is used, and again when that breaks: once for all who call.
                None => {
                    let endpoint = self.endpoint(&to)?.connect_timeout(self.options.connect_timeout);
                    loads.entry(to.peer_addr.clone()).or_insert(endpoint.connect_lazy()).clone()
                }
            }
        };
        Ok(client(channel).load(request).await?.into_inner().outcome.unwrap_or_default())
    }

    async fn call_flush_prefix(
        self,
        to: Member,
        request: pb::FlushPrefixRequest,
    ) -> Result<pb::FlushPrefixReply, Error> {
        // A new connection: an old one may be silent for long after the network has healed.
        let mut client = PeerClient::new(self.connect(&to).await?);
        Ok(client.flush_prefix(request).await?.into_inner())
    }

    async fn ask_for_items(self, to: Member, requests: MoveRequests) -> Result<MoveStream, Error> {
        let mut client = client(self.connect(&to).await?);
        let response = client.move_items(requests).await?;
        Ok(answers(client, response.into_inner()))
    }

    async fn forward(self, to: Member, batches: Batches) -> Result<OutcomeStream, Error> {
        let mut client = client(self.connect(&to).await?);
        let response = client.forward(batches).await?;
        Ok(answers(client, response.into_inner()))
    }
}

/// For messages of every size.
fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The messages of a stream, on a connection of its own.
fn answers<T: Send + 'static>(
    client: PeerClient<Channel>,
    stream: Streaming<T>,
) -> Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>> {
    Box::pin(stream.map(move |message| {
        // The connection lives as long as somebody holds the client.
        let _ = &client;
        message.map_err(Error::from)
    }))
}

impl Transport for Grpc {
    fn open(&self, to: &Member, batches: Batches) -> Opening {
        Box::pin(self.clone().forward(to.clone(), batches))
    }

    fn load(&self, to: &Member, request: pb::LoadRequest) -> Calling<pb::Outcome> {
        Box::pin(self.clone().call_load(to.clone(), request))
    }

    fn flush_prefix(&self, to: &Member, request: pb::FlushPrefixRequest) -> Calling<pb::FlushPrefixReply> {
        Box::pin(self.clone().call_flush_prefix(to.clone(), request))
    }

    fn move_items(&self, to: &Member, requests: MoveRequests) -> Calling<MoveStream> {
        Box::pin(self.clone().ask_for_items(to.clone(), requests))
    }
}

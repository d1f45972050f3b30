//! What a link sends: each time the connection has room for another message, everything that
//! waits leaves in it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio_stream::Stream;

use crate::pb;
use crate::peer::link::shared::Shared;

/// The buffer for the next message is kept when it is not larger.
const KEPT_BYTES: usize = 256 << 10;

/// The messages of one stream, each an encoded `Operations`. Ends when the link wants no more
/// of this stream.
#[derive(Debug)]
pub struct Batches {
    shared: Arc<Shared>,
    stream: u64,
    greeting: Option<Bytes>,
    buffer: BytesMut,
}

impl Batches {
    pub(super) fn new(shared: Arc<Shared>, stream: u64, call: pb::Call) -> Self {
        let greeting = pb::Operations { call: Some(call), ..pb::Operations::default() };
        let greeting = Some(greeting.encode_to_vec().into());
        Self { shared, stream, greeting, buffer: BytesMut::new() }
    }
}

impl Stream for Batches {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Self { shared, stream, greeting, buffer } = self.get_mut();
        if let Some(greeting) = greeting.take() {
            return Poll::Ready(Some(greeting));
        }
        let message = shared.poll_message(*stream, buffer, cx);
        if let Poll::Ready(Some(message)) = &message
            && message.len() > KEPT_BYTES
        {
            *buffer = BytesMut::new();
        }
        message
    }
}

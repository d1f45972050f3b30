//! The messages of a link: each time the connection has room for another message, it carries everything that waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio_stream::Stream;

use crate::pb;
use crate::peer::link::inner::LinkInner;

/// The buffer for the next message is kept when it is not larger.
const KEPT_BYTES: usize = 256 << 10;

/// The messages of one stream. Ends when the link wants no more
/// of this stream.
#[derive(Debug)]
pub struct Batches {
    inner: Arc<LinkInner>,
    stream: u64,
    greeting: Option<pb::Operations>,
    buffer: BytesMut,
}

impl Batches {
    pub(super) fn new(inner: Arc<LinkInner>, stream: u64, call: pb::Call) -> Self {
        let greeting = pb::Operations { call: Some(call), ..pb::Operations::default() };
        Self { inner, stream, greeting: Some(greeting), buffer: BytesMut::new() }
    }
}

impl Stream for Batches {
    type Item = pb::Operations;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<pb::Operations>> {
        let Self { inner, stream, greeting, buffer } = self.get_mut();
        if let Some(greeting) = greeting.take() {
            return Poll::Ready(Some(greeting));
        }
        let message = inner.poll_message(*stream, buffer, cx);
        if let Poll::Ready(Some(message)) = &message
            && message.operations.len() > KEPT_BYTES
        {
            *buffer = BytesMut::new();
        }
        message
    }
}

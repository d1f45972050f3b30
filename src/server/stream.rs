//! What a connection reads from and writes to.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use crate::protocol::output::{Output, SLICES};

/// A client's socket.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Sends `close_notify` on a TLS connection that ends, as far as that needs no wait: without it the client cannot
    /// tell this end from one that an attacker made (RFC 8446, 6.1). Sends it once, however often it is called.
    pub fn take_leave(&mut self, cx: &mut Context<'_>) {
        if let Self::Tls(stream) = self {
            // A client that has gone misses nothing.
            _ = Pin::new(stream).poll_shutdown(cx);
        }
    }

    /// Sends as much as it takes of what is behind the first `sent` bytes.
    #[inline]
    pub fn poll_send(&mut self, cx: &mut Context<'_>, out: &Output, sent: usize) -> Poll<io::Result<usize>> {
        if let Some(bytes) = out.contiguous(sent) {
            return Pin::new(self).poll_write(cx, bytes);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let filled = out.slices(sent, &mut slices);
        Pin::new(self).poll_write_vectored(cx, &slices[..filled])
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

//! A guest's socket, which ends when the guest must.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::transport::server::Connected;

use crate::server::guests::{Arrival, Guest, Place};

/// A guest's socket: reading and writing fail when its time is over, or when it was ended for another.
pub struct GuestStream {
    socket: TcpStream,
    /// Until when it may stay, as far as was known when this was set.
    deadline: Pin<Box<Sleep>>,
    // Dropped after the socket: the place is free only once the file is.
    place: Place,
}

impl GuestStream {
    /// The socket of a new guest, in the runtime that calls this.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn open(arrival: Arrival) -> io::Result<Self> {
        let Arrival { socket, place } = arrival;
        let socket = TcpStream::from_std(socket)?;
        socket.set_nodelay(true)?;
        let deadline = Box::pin(sleep_until(place.guest.deadline()));
        Ok(Self { socket, deadline, place })
    }

    /// The guest that has this socket.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.place.guest
    }

    /// Pending as long as the guest may stay.
    fn poll_over<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.place.guest.attend(cx.waker());
        while !self.place.guest.is_ended() {
            ready!(self.deadline.as_mut().poll(cx));
            let deadline = self.place.guest.deadline();
            if Instant::now() >= deadline {
                self.place.took_too_long();
                self.place.guest.end();
            } else {
                self.deadline.as_mut().reset(deadline);
            }
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for GuestStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A guest that is ended may have much to send.
        if this.place.guest.is_ended() {
            return this.poll_over(cx);
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buf) {
            Poll::Pending => this.poll_over(cx),
            Poll::Ready(Ok(())) if !this.place.guest.hear(buf.filled().len() - before) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "too much before the first call")))
            }
            read => read,
        }
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.socket).poll_write(cx, bytes) {
            Poll::Pending => this.poll_over(cx),
            written => written,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.socket).poll_write_vectored(cx, bytes) {
            Poll::Pending => this.poll_over(cx),
            written => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

impl Connected for GuestStream {
    type ConnectInfo = Arc<Guest>;

    fn connect_info(&self) -> Arc<Guest> {
        self.place.guest.clone()
    }
}

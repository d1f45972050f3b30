//! A client connection that sends and expects raw bytes; every read has a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::support::shown::{Cut, assert_same};

/// How long anything may take before the test fails, a reply or a process that starts. Nothing takes so long, but on a
/// machine that is busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// One connection, over TCP, TLS or a Unix socket.
pub struct Wire {
    socket: Socket,
    /// Received and not yet consumed; consumed bytes are `inbox[..start]`.
    inbox: Vec<u8>,
    start: usize,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub fn connect(addr: SocketAddr) -> Wire {
        Wire { socket: Socket::Tcp(tcp(addr)), inbox: Vec::new(), start: 0 }
    }

    /// Speaks on a connection that was made elsewhere, with the deadlines that it has.
    pub fn over(stream: TcpStream) -> Wire {
        Wire { socket: Socket::Tcp(stream), inbox: Vec::new(), start: 0 }
    }

    /// Connects and shakes hands. With TLS 1.3 the server may still refuse the client's certificate: then the first
    /// read fails.
    ///
    /// # Errors
    ///
    /// The server refuses, or its certificate is not one of `localhost` that the client trusts.
    pub fn connect_tls(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Wire> {
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(client, tcp(addr));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Wire { socket: Socket::Tls(Box::new(stream)), inbox: Vec::new(), start: 0 })
    }

    /// # Errors
    ///
    /// Those of `connect(2)`, so that a test can wait for the socket to appear.
    pub fn connect_unix(path: &Path) -> io::Result<Wire> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Wire { socket: Socket::Unix(stream), inbox: Vec::new(), start: 0 })
    }

    /// A second handle to the same TCP socket, for a thread that only writes.
    pub fn writer(&self) -> TcpStream {
        match &self.socket {
            Socket::Tcp(stream) => stream.try_clone().expect("a socket can be duplicated"),
            Socket::Unix(_) | Socket::Tls(_) => panic!("only TCP connections are split"),
        }
    }

    /// Whether anything has arrived that was not read yet.
    pub fn has_input(&self) -> bool {
        let Socket::Tcp(stream) = &self.socket else { panic!("only TCP connections are looked into") };
        stream.set_nonblocking(true).expect("a TCP socket can be made not to block");
        let arrived = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).expect("a TCP socket can be made to block");
        arrived || !self.pending().is_empty()
    }

    /// The certificate that the server showed.
    pub fn server_certificate(&self) -> CertificateDer<'static> {
        let Socket::Tls(stream) = &self.socket else { panic!("only TLS connections show one") };
        stream.conn.peer_certificates().expect("the hands are shaken")[0].clone()
    }

    /// Sends all bytes.
    ///
    /// # Errors
    ///
    /// If the server has closed the connection, or takes nothing for as long as the deadline.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
            Socket::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Sends all bytes and fails the test if the server does not take them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap_or_else(|e| panic!("the server takes {} bytes: {e}", bytes.len()));
    }

    /// Says that nothing more will be sent; replies still arrive.
    pub fn finish_sending(&self) {
        // Fails if the server has closed already; the caller's next read tells.
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
            Socket::Tls(stream) => stream.sock.shutdown(Shutdown::Write),
        };
    }

    /// Says by TLS that nothing more will be sent (`close_notify`), and leaves the socket open.
    pub fn take_leave(&mut self) {
        let Socket::Tls(stream) = &mut self.socket else { return };
        stream.conn.send_close_notify();
        stream.conn.complete_io(&mut stream.sock).expect("the server takes it");
    }

    /// The next line with its line end; shorter, without one, if the server closes.
    ///
    /// # Errors
    ///
    /// `TimedOut`, with what has arrived in the message, if the line does not come in time.
    pub fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.pending()[searched..].iter().position(|&b| b == b'\n') {
                return Ok(self.take(searched + at + 1));
            }
            searched = self.pending().len();
            if !self.fill()? {
                return Ok(self.take(searched));
            }
        }
    }

    /// The next `len` bytes; fewer if the server closes first.
    ///
    /// # Errors
    ///
    /// As for [`Wire::line`].
    pub fn bytes(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.pending().len() < len {
            if !self.fill()? {
                break;
            }
        }
        Ok(self.take(len.min(self.pending().len())))
    }

    /// Everything until the server closes.
    ///
    /// # Errors
    ///
    /// As for [`Wire::line`].
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? {}
        Ok(self.take(self.pending().len()))
    }

    /// Sends a request and expects exactly this reply.
    #[track_caller]
    pub fn ask(&mut self, request: &str, reply: &str) {
        self.send(request.as_bytes());
        self.expect(reply);
    }

    /// Expects exactly these bytes next.
    #[track_caller]
    pub fn expect(&mut self, reply: &str) {
        let got = self.bytes(reply.len()).expect("the reply comes in time");
        assert_same(got, reply);
    }

    /// One number out of `stats`.
    #[track_caller]
    pub fn stat(&mut self, name: &str) -> u64 {
        self.send(b"stats\r\n");
        let stats = self.until_end();
        let prefix = format!("STAT {name} ");
        let value = stats.lines().find_map(|line| line.strip_prefix(&prefix));
        let value = value.unwrap_or_else(|| panic!("no {name} in {}", Cut(&stats)));
        value.parse().unwrap_or_else(|e| panic!("{name} is {value}: {e}"))
    }

    /// One value out of `stats settings`.
    #[track_caller]
    pub fn setting(&mut self, name: &str) -> String {
        self.send(b"stats settings\r\n");
        let settings = self.until_end();
        let prefix = format!("STAT {name} ");
        let value = settings.lines().find_map(|line| line.strip_prefix(&prefix));
        value.unwrap_or_else(|| panic!("no {name} in {}", Cut(&settings))).to_owned()
    }

    /// The lines up to and with `END`.
    #[track_caller]
    pub fn until_end(&mut self) -> String {
        let mut text = String::new();
        while !text.ends_with("END\r\n") {
            let line = self.line().expect("the reply comes in time");
            assert!(!line.is_empty(), "closed after {:?}", Cut(&text));
            text.push_str(&String::from_utf8_lossy(&line));
        }
        text
    }

    fn pending(&self) -> &[u8] {
        &self.inbox[self.start..]
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let taken = self.inbox[self.start..self.start + len].to_vec();
        self.start += len;
        if self.start == self.inbox.len() {
            self.inbox.clear();
            self.start = 0;
        }
        taken
    }

    /// Reads once; false if the server has closed.
    fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        let read = match &mut self.socket {
            Socket::Tcp(stream) => stream.read(&mut chunk),
            Socket::Unix(stream) => stream.read(&mut chunk),
            // An end without the peer's word for it (close_notify) is an error, as it may have been cut off.
            Socket::Tls(stream) => stream.read(&mut chunk),
        };
        match read {
            Ok(len) => {
                self.inbox.extend_from_slice(&chunk[..len]);
                Ok(len > 0)
            }
            // A server that closes with unread input resets the connection: for the client that is a close.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let so_far = Cut(self.pending().escape_ascii());
                Err(io::Error::new(ErrorKind::TimedOut, format!("no more came in time after \"{so_far}\"")))
            }
            Err(e) => Err(e),
        }
    }
}

fn tcp(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap_or_else(|e| panic!("cannot connect to {addr}: {e}"));
    stream.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline that is not zero");
    stream.set_write_timeout(Some(DEADLINE)).expect("a deadline that is not zero");
    stream
}

//! A client of all nodes. It waits no longer than it was told, and begins anew after a failure.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::support::node::ClientAddr;
use crate::support::wire::Wire;

/// How long a connection may take that a node's kernel alone makes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failure {
    /// Nothing was sent.
    NotConnected,
    /// The node closed the connection, or its process ended.
    Closed,
    /// The node was silent for too long.
    Silent,
}

/// One connection to each node, made when it is needed.
pub struct Client<'a> {
    addrs: &'a [ClientAddr],
    wires: Vec<Option<Wire>>,
    patience: Duration,
}

impl Client<'_> {
    /// A client that waits this time for a reply, and then closes the connection.
    pub fn new(addrs: &[ClientAddr], patience: Duration) -> Client<'_> {
        Client { addrs, wires: addrs.iter().map(|_| None).collect(), patience }
    }

    /// Connects to a node anew for what is asked next.
    pub fn hang_up(&mut self, node: usize) {
        self.wires[node] = None;
    }

    /// Sends a request and returns the line that answers it, without its end.
    ///
    /// # Errors
    ///
    /// No answer came; the connection is closed then.
    pub fn line(&mut self, node: usize, request: &str) -> Result<String, Failure> {
        self.converse(node, request, line)
    }

    /// Sends a `get` and returns what is there of its keys, in the order of the reply; or the line that is no value.
    ///
    /// # Errors
    ///
    /// As for [`Client::line`].
    pub fn values(&mut self, node: usize, request: &str) -> Result<Result<Vec<Value>, String>, Failure> {
        self.converse(node, request, |wire| {
            let mut values = Vec::new();
            loop {
                let header = line(wire)?;
                let words: Vec<&str> = header.split(' ').collect();
                match words[..] {
                    ["END"] => return Ok(Ok(values)),
                    ["VALUE", key, _, len, ref token @ ..] if len.parse::<usize>().is_ok() => {
                        values.push(Value {
                            key: key.to_owned(),
                            data: data(wire, len)?,
                            token: token.first().map(|&token| token.to_owned()),
                        });
                    }
                    _ => return Ok(Err(header)),
                }
            }
        })
    }

    /// Sends `mg KEY v` and returns the value, `None` for a miss; or the line that is neither.
    ///
    /// # Errors
    ///
    /// As for [`Client::line`].
    pub fn meta_value(&mut self, node: usize, key: &str) -> Result<Result<Option<String>, String>, Failure> {
        self.converse(node, &format!("mg {key} v\r\n"), |wire| {
            let header = line(wire)?;
            match header.strip_prefix("VA ") {
                Some(len) => Ok(Ok(Some(data(wire, len)?))),
                None if header == "EN" => Ok(Ok(None)),
                None => Ok(Err(header)),
            }
        })
    }

    fn converse<T>(
        &mut self,
        node: usize,
        request: &str,
        read: impl FnOnce(&mut Wire) -> io::Result<T>,
    ) -> Result<T, Failure> {
        let mut wire = match self.wires[node].take() {
            Some(wire) => wire,
            None => self.connect(node).map_err(|_| Failure::NotConnected)?,
        };
        // Not sent whole, perhaps, but the part may have been a command.
        let reply = wire.try_send(request.as_bytes()).and_then(|()| read(&mut wire));
        let reply = reply.map_err(|e| match e.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Failure::Silent,
            _ => Failure::Closed,
        })?;
        self.wires[node] = Some(wire);
        Ok(reply)
    }

    fn connect(&self, node: usize) -> io::Result<Wire> {
        let addr = &self.addrs[node];
        let stream = addr.site.connect(addr.port, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(Wire::over(stream))
    }
}

/// One value of a reply.
#[derive(Debug)]
pub struct Value {
    pub key: String,
    pub data: String,
    /// What `gets` tells.
    pub token: Option<String>,
}

fn line(wire: &mut Wire) -> io::Result<String> {
    let line = wire.line()?;
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads `len` bytes and a line end.
fn data(wire: &mut Wire, len: &str) -> io::Result<String> {
    let len: usize = len.parse().map_err(io::Error::other)?;
    let mut data = wire.bytes(len + 2)?;
    if data.len() < len + 2 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    data.truncate(len);
    Ok(String::from_utf8_lossy(&data).into_owned())
}

//! One connection to a server: a question, and its answer.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::origin::Loaded;
use crate::origin::memcached::address::Address;
use crate::origin::memcached::key::Key;
use crate::origin::memcached::reply::{self, Head, Value};

/// Bytes that a first line has at most: the longest has a key of 250 bytes and some numbers.
const LINE_MAX: usize = 2048;

/// Room for a reply until its length is known.
const ROOM_FIRST: usize = 512;

/// How a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `mg`, which tells the lifetime and takes every key.
    Meta,
    /// `get`, which every server knows.
    Classic,
}

impl Dialect {
    fn question(self, key: &Key) -> Vec<u8> {
        let (before, after): (&[u8], &[u8]) = match self {
            Self::Meta if key.is_binary() => (b"mg ", b" v f t c b\r\n"),
            Self::Meta => (b"mg ", b" v f t c\r\n"),
            Self::Classic => (b"get ", b"\r\n"),
        };
        [before, key.sent(), after].concat()
    }

    fn head(self, line: &[u8], key: &Key) -> Head {
        match self {
            Self::Meta => reply::meta(line),
            Self::Classic => reply::classic(line, key.sent()),
        }
    }

    /// What stands behind a value.
    fn end(self) -> &'static [u8] {
        match self {
            Self::Meta => b"\r\n",
            Self::Classic => b"\r\nEND\r\n",
        }
    }
}

/// What a server says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is a value. `won` is the item's number if the reply obliges its reader to make it anew.
    Found { loaded: Loaded, won: Option<u64> },
    /// There is none, or only the place of one that a client is about to make.
    Absent,
    /// The question is not understood; the line.
    NotUnderstood(String),
}

/// Why a connection gave no answer. It must not be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It ended before the first byte of a reply, as one does that the server had closed; says how.
    Gone(String),
    /// The value is larger than allowed.
    TooLarge(String),
    /// Anything else.
    Failed(String),
}

impl Trouble {
    fn malformed() -> Self {
        Self::Failed("malformed reply".into())
    }
}

/// A connection between two questions. One that was dropped while asking is closed with it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects, the look-up of the name included.
    ///
    /// # Errors
    ///
    /// Says why not, without the name of the server.
    pub async fn open(address: &Address, timeout: Duration) -> Result<Self, String> {
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let stream = tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| format!("no connection within {timeout:?}"))?
            .map_err(|error| described(&error))?;
        stream.set_nodelay(true).map_err(|error| described(&error))?;
        Ok(Self { stream })
    }

    /// Whether the server has neither closed it nor sent what nobody asked for, as far as that has arrived.
    pub fn is_quiet(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Asks for a value of at most `value_max` bytes.
    ///
    /// # Errors
    ///
    /// The connection must then be dropped, as it must be when this future is.
    pub async fn ask(&mut self, dialect: Dialect, key: &Key, value_max: usize) -> Result<Answer, Trouble> {
        let mut reply = self.send(&dialect.question(key)).await?;
        let line = reply.line().await?;
        let answer = match dialect.head(&line, key) {
            Head::Value(value) if value.len > value_max => {
                let why = format!("a value of {} bytes, where {value_max} are allowed", value.len);
                return Err(Trouble::TooLarge(why));
            }
            Head::Value(value) => answer_of(&value, reply.value(value.len, dialect.end()).await?),
            Head::Absent => Answer::Absent,
            Head::NotUnderstood(line) => Answer::NotUnderstood(line),
            Head::Refused(line) => return Err(Trouble::Failed(line)),
            Head::Malformed => return Err(Trouble::malformed()),
        };
        reply.finish()?;
        Ok(answer)
    }

    /// Gives a win back: marks the item as stale once more, if it still is the one that was read, so that the next
    /// client that reads it is told to make it anew.
    ///
    /// # Errors
    ///
    /// As [`Connection::ask`].
    pub async fn give_back(&mut self, key: &Key, cas: u64) -> Result<(), Trouble> {
        let base64 = if key.is_binary() { " b" } else { "" };
        let command = [b"md ", key.sent(), format!(" I C{cas}{base64}\r\n").as_bytes()].concat();
        let mut reply = self.send(&command).await?;
        let line = reply.line().await?;
        // Done, or the item is gone, or somebody has changed it: there is nothing to give back then.
        if !matches!(&line[..], b"HD" | b"OK" | b"NF" | b"EX") {
            return Err(Trouble::malformed());
        }
        reply.finish()
    }

    async fn send(&mut self, command: &[u8]) -> Result<Reply<'_>, Trouble> {
        self.stream.write_all(command).await.map_err(|error| Trouble::Gone(described(&error)))?;
        Ok(Reply { stream: &mut self.stream, arrived: BytesMut::with_capacity(ROOM_FIRST) })
    }
}

/// A reply that is being read.
struct Reply<'a> {
    stream: &'a mut TcpStream,
    arrived: BytesMut,
}

impl Reply<'_> {
    /// The first line, without its end.
    async fn line(&mut self) -> Result<BytesMut, Trouble> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.arrived) {
                let mut line = self.arrived.split_to(end + 1);
                if !line.ends_with(b"\r\n") {
                    return Err(Trouble::malformed());
                }
                line.truncate(line.len() - 2);
                return Ok(line);
            }
            if self.arrived.len() > LINE_MAX {
                return Err(Trouble::malformed());
            }
            let nothing_yet = self.arrived.is_empty();
            self.more()
                .await
                .map_err(|why| if nothing_yet { Trouble::Gone(why) } else { Trouble::Failed(why) })?;
        }
    }

    /// The value of the length that the line has announced, and what stands behind it.
    async fn value(&mut self, len: usize, end: &[u8]) -> Result<Bytes, Trouble> {
        let whole = len + end.len();
        self.arrived.reserve(whole.saturating_sub(self.arrived.len()));
        while self.arrived.len() < whole {
            self.more().await.map_err(Trouble::Failed)?;
        }
        let value = self.arrived.split_to(len);
        if self.arrived.split_to(end.len()) != end {
            return Err(Trouble::malformed());
        }
        Ok(value.freeze())
    }

    /// Makes sure that nothing more has come: the next question would take it for its answer.
    fn finish(self) -> Result<(), Trouble> {
        if self.arrived.is_empty() { Ok(()) } else { Err(Trouble::malformed()) }
    }

    async fn more(&mut self) -> Result<(), String> {
        match self.stream.read_buf(&mut self.arrived).await {
            Ok(0) => Err("connection closed before the end of the reply".into()),
            Ok(_) => Ok(()),
            Err(error) => Err(described(&error)),
        }
    }
}

/// The answer that a value is. An empty one that somebody else was told to make is a place held free (`mg` with `N`),
/// and no value yet.
fn answer_of(head: &Value, value: Bytes) -> Answer {
    if value.is_empty() && head.is_promised {
        return Answer::Absent;
    }
    // A server that numbers no items (`-C`) cannot tell whether a client has changed it since.
    let won = head.cas.filter(|&cas| head.is_won && cas > 0);
    Answer::Found { loaded: Loaded { value, flags: head.flags, ttl: head.ttl, validator: None }, won }
}

/// An error in few words: without the number where the kind says the same.
fn described(error: &io::Error) -> String {
    use io::ErrorKind::*;
    match error.kind() {
        kind @ (AddrNotAvailable | BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset
        | HostUnreachable | NetworkUnreachable | TimedOut) => kind.to_string(),
        _ => error.to_string(),
    }
}

//! A client of one connection: sends a batch of gets and sets, then waits for the replies.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::support::Result;

const REPLY_DEADLINE: Duration = Duration::from_secs(30);
const INPUT_BYTES: usize = 256 << 10;

/// Values are slices of one random text of this many bytes beyond the longest value's length; a prime, so that keys
/// whose numbers are near or a power of ten apart do not share a value.
const PATTERN_OFFSETS: usize = 4093;

/// The value of each key: it follows from the key's number, and a shorter one is the beginning of a longer one.
#[derive(Debug)]
pub struct Values {
    pattern: Vec<u8>,
}

impl Values {
    /// For values of up to `longest_bytes`.
    pub fn new(longest_bytes: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(0x5eed);
        // Any byte may occur, line ends too: a server must go by the length.
        Self { pattern: (0..PATTERN_OFFSETS + longest_bytes).map(|_| random.u8(..)).collect() }
    }

    pub fn value(&self, number: u64, bytes: usize) -> &[u8] {
        let start = (number % PATTERN_OFFSETS as u64) as usize;
        &self.pattern[start..start + bytes]
    }

    pub fn is_value(&self, number: u64, value: &[u8]) -> bool {
        value.len() <= self.pattern.len() - PATTERN_OFFSETS && value == self.value(number, value.len())
    }
}

/// A connection to a server. What is put goes out at `send`; then as many replies must be read, in the same order.
#[derive(Debug)]
pub struct Client {
    /// The server's, for errors.
    name: String,
    stream: TcpStream,
    input: BufReader<TcpStream>,
    output: Vec<u8>,
    line: Vec<u8>,
    value: Vec<u8>,
}

impl Client {
    pub fn connect(name: &str, address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_DEADLINE))?;
        stream.set_write_timeout(Some(REPLY_DEADLINE))?;
        Ok(Self {
            name: name.to_owned(),
            input: BufReader::with_capacity(INPUT_BYTES, stream.try_clone()?),
            stream,
            output: Vec::new(),
            line: Vec::new(),
            value: Vec::new(),
        })
    }

    /// One `get` of all the keys; nothing when there are none.
    pub fn put_gets(&mut self, keys: &[impl AsRef<[u8]>]) {
        if keys.is_empty() {
            return;
        }
        self.output.extend_from_slice(b"get");
        for key in keys {
            self.output.push(b' ');
            self.output.extend_from_slice(key.as_ref());
        }
        self.output.extend_from_slice(b"\r\n");
    }

    pub fn put_set(&mut self, key: &[u8], value: &[u8]) {
        self.output.extend_from_slice(b"set ");
        self.output.extend_from_slice(key);
        // A vector takes all that is written to it.
        let _ = write!(self.output, " 0 0 {}\r\n", value.len());
        self.output.extend_from_slice(value);
        self.output.extend_from_slice(b"\r\n");
    }

    /// Bytes that the next `send` has to send.
    #[allow(dead_code)] // Only one of the comparisons asks.
    pub fn unsent_bytes(&self) -> usize {
        self.output.len()
    }

    pub fn send(&mut self) -> Result<()> {
        let sent = self.stream.write_all(&self.output);
        self.output.clear();
        sent.map_err(|error| self.blamed(error))
    }

    /// The reply to a `put_gets`: calls `hit` with the place of each key that is there, and its value; false from it
    /// says that the value is wrong.
    pub fn read_gets<K: AsRef<[u8]>>(
        &mut self,
        keys: &[K],
        mut hit: impl FnMut(usize, &[u8]) -> bool,
    ) -> Result<()> {
        let mut places = keys.iter().map(AsRef::as_ref).enumerate();
        while !keys.is_empty() {
            self.read_line()?;
            if self.line == b"END\r\n" {
                break;
            }
            let Some((key, bytes)) = value_line(&self.line) else {
                return Err(self.wrong_line());
            };
            // In the order of the request, without those that are not there.
            let Some((place, _)) = places.find(|&(_, wanted)| wanted == key) else {
                return Err(self.wrong_line());
            };
            self.value.resize(bytes + b"\r\n".len(), 0);
            self.input.read_exact(&mut self.value).map_err(|error| blamed(&self.name, error))?;
            if !self.value.strip_suffix(b"\r\n").is_some_and(|value| hit(place, value)) {
                let key = keys[place].as_ref().escape_ascii().to_string();
                return Err(self.blamed(format!("a wrong value of {key}, with {bytes} bytes")));
            }
        }
        Ok(())
    }

    /// The reply to a `put_set`: whether the value was stored. A server without memory for it may say so.
    pub fn read_set(&mut self) -> Result<bool> {
        self.read_line()?;
        match &self.line[..] {
            b"STORED\r\n" => Ok(true),
            line if line.starts_with(b"SERVER_ERROR ") => Ok(false),
            _ => Err(self.wrong_line()),
        }
    }

    /// The reply that was read last, without its end.
    pub fn reply(&self) -> String {
        String::from_utf8_lossy(self.line.trim_ascii_end()).into_owned()
    }

    fn read_line(&mut self) -> Result<()> {
        self.line.clear();
        let read = self.input.read_until(b'\n', &mut self.line);
        let bytes = read.map_err(|error| blamed(&self.name, error))?;
        if bytes == 0 { Err(self.blamed("it closed the connection")) } else { Ok(()) }
    }

    fn wrong_line(&self) -> Box<dyn std::error::Error> {
        self.blamed(format!("a wrong reply: {}", self.line.escape_ascii()))
    }

    fn blamed(&self, error: impl Display) -> Box<dyn std::error::Error> {
        blamed(&self.name, error)
    }
}

fn blamed(name: &str, error: impl Display) -> Box<dyn std::error::Error> {
    format!("{name}: {error}").into()
}

/// Key and length of a line such as `VALUE key 0 100`.
fn value_line(line: &[u8]) -> Option<(&[u8], usize)> {
    let rest = line.strip_prefix(b"VALUE ")?.strip_suffix(b"\r\n")?;
    let mut words = rest.split(|&byte| byte == b' ');
    let (key, flags, bytes) = (words.next()?, words.next()?, words.next()?);
    let bytes = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    (flags == b"0" && words.next().is_none()).then_some((key, bytes))
}

//! A server that a test plays byte by byte.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::origin::http::{Http, Options};

/// A port that connections come to.
pub struct Server {
    listener: TcpListener,
}

/// A connection, with what was read of it last.
pub struct Client<S = TcpStream> {
    pub stream: S,
}

impl Server {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a free port") }
    }

    pub fn host(&self) -> String {
        self.listener.local_addr().expect("it is bound").to_string()
    }

    /// Options that ask here, below a path.
    pub fn options(&self) -> Options {
        options(&format!("http://{}/scores/{{key}}", self.host()))
    }

    pub fn http(&self) -> Http {
        Http::new(&self.options()).expect("valid")
    }

    pub async fn accept(&self) -> Client {
        Client { stream: self.listener.accept().await.expect("a connection").0 }
    }

    /// Takes one connection and answers its first request; returns what was asked.
    pub async fn answer_one(&self, answer: impl AsRef<str>) -> (Client, String) {
        let mut client = self.accept().await;
        let asked = client.answer(answer).await;
        (client, asked)
    }
}

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Client<S> {
    /// Reads a request up to the end of its head; empty at the end of the connection.
    pub async fn asked(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).expect("the head is text")
    }

    pub async fn send(&mut self, answer: impl AsRef<str>) {
        self.stream.write_all(answer.as_ref().as_bytes()).await.expect("it is read");
        self.stream.flush().await.expect("it is read");
    }

    /// Reads a request, answers it, and returns it.
    pub async fn answer(&mut self, answer: impl AsRef<str>) -> String {
        let asked = self.asked().await;
        self.send(answer).await;
        asked
    }

    /// Waits until the other side closes.
    pub async fn closed(&mut self) {
        let mut rest = [0; 1 << 10];
        while !matches!(self.stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    }
}

/// Usual options for an address.
pub fn options(url: &str) -> Options {
    Options {
        url: url.to_owned(),
        headers: Vec::new(),
        bearer_token_file: None,
        ca_file: None,
        connections: 4,
        value_max: 1 << 20,
        connect_timeout: Duration::from_secs(10),
    }
}

/// A value with its length.
pub fn ok(value: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{value}", value.len())
}

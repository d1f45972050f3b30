//! Asks the node at one address for its metrics every second, as Prometheus would: its own default is a minute.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Where the node that is watched answers HTTP.
pub const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 19150));

const INTERVAL: Duration = Duration::from_secs(1);

/// Asks until it is dropped.
pub struct Scraper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<u64>>,
}

impl Scraper {
    pub fn start() -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut scrapes = 0;
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // Between two cases there is no node.
                scrapes += u64::from(scrape().is_ok_and(|text| text.contains("filbert_commands_total")));
            }
            scrapes
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(scrapes) = self.thread.take().and_then(|thread| thread.join().ok()) {
            println!("scraped {scrapes} times\n");
        }
    }
}

fn scrape() -> std::io::Result<String> {
    let mut stream = TcpStream::connect(ADDRESS)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

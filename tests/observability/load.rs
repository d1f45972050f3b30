//! Clients that do a little of everything, so that every metric moves.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::node::ClientAddr;

/// How long a reply may take before the connection is made anew: nodes are killed meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two rounds: this is to be seen, and not to keep the machine busy.
const PAUSE: Duration = Duration::from_millis(10);

/// A thread that asks all nodes in turn, until this is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts to ask the nodes at these addresses. A node that does not answer is left out for a round.
    pub fn on(addrs: Vec<ClientAddr>) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut clients: Vec<_> = addrs.into_iter().map(|addr| (addr, None)).collect();
            for round in 0.. {
                for (addr, client) in &mut clients {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let asked = match client.take() {
                        Some(open) => Ok(open),
                        None => addr.site.connect(addr.port, PATIENCE),
                    };
                    *client = asked.and_then(|client| ask(client, round)).ok();
                }
                thread::sleep(PAUSE);
            }
        });
        Load { stop, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Only a bug in the thread itself makes it panic, which it has said.
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One round with one node.
fn ask(mut client: TcpStream, round: u64) -> io::Result<TcpStream> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    client.write_all(&requests(round))?;
    let mut answers = Vec::new();
    while !answers.ends_with(b"MN\r\n") {
        let mut chunk = [0; 16 << 10];
        match client.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => answers.extend_from_slice(&chunk[..len]),
        }
    }
    Ok(client)
}

/// Hits and misses of everything; `MN` answers last.
fn requests(round: u64) -> Vec<u8> {
    let (value, too_large) = ("v".repeat(2_000), "v".repeat(5_000));
    let set = |key: &str, ttl: u32, value: &str| format!("set {key} 0 {ttl} {}\r\n{value}\r\n", value.len());
    let mut text = String::new();
    // Keys that never come again, until memory is full.
    for number in 0..5 {
        text += &set(&format!("once-{round}-{number}"), 0, &value);
    }
    text += &format!("get once-{round}-0\r\nget once-{}-0\r\n", round.saturating_sub(100_000));
    // Some are found dead by a get, some by a sweep.
    text += &set(&format!("brief-{}", round % 200), 1, "x");
    text += &format!("get brief-{}\r\n", (round + 50) % 200);
    text += "set kept 0 0 1\r\n1\r\nadd kept 0 0 1\r\n1\r\nget kept\r\nincr kept 1\r\ndecr kept 1\r\ntouch kept 0\r\n";
    text += "cas kept 0 0 1 1\r\n1\r\nmg kept v\r\nme kept\r\nmd gone\r\nms meta 1\r\nx\r\ndelete meta\r\n";
    text +=
        "get gone\r\nincr gone 1\r\ndecr gone 1\r\ntouch gone 0\r\ncas gone 0 0 1 1\r\n1\r\ndelete gone\r\n";
    text += &set("large", 0, &too_large);
    text += &format!("get g:{}\r\n", round % 10);
    text += "mn\r\n";
    text.into_bytes()
}

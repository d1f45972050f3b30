mod real;
mod scripted;
mod trouble;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::origin::{Failed, Loaded};

/// How long a test waits for what must happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

/// One after the other, what a server does on a connection. When all is done it waits until the client closes.
#[derive(Debug, Clone)]
enum Step {
    /// Reads a line and sends this.
    Say(&'static [u8]),
    /// Reads a line and closes.
    Close,
    /// Closes.
    Leave,
    /// Sends this without being asked, once there is an event `go`.
    Stray(&'static [u8]),
}

use Step::{Close, Leave, Say, Stray};

/// A server that does on its first connection what the first script says, and so on.
struct Scripted {
    address: SocketAddr,
    events: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        tokio::spawn(async move {
            for (number, script) in (1..).zip(scripts) {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(play(stream, script, number, Arc::clone(&heard)));
            }
        });
        Self { address, events }
    }

    /// What came in, each with the number of its connection; `1: closed` when the client closes the first.
    fn events(&self) -> Vec<String> {
        self.events.lock().clone()
    }

    async fn until(&self, event: &str) {
        until(&self.events, event).await;
    }

    fn options(&self) -> Options {
        options(&[&self.address.to_string()])
    }

    fn origin(&self) -> Memcached {
        Memcached::new(&self.options()).unwrap()
    }
}

/// Waits for an event.
async fn until(events: &Mutex<Vec<String>>, event: &str) {
    let happened = async {
        while !events.lock().iter().any(|other| other == event) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, happened).await;
    waited.unwrap_or_else(|_| panic!("no {event:?} among {:?}", events.lock()));
}

async fn play(stream: TcpStream, script: Vec<Step>, number: usize, events: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    for step in script {
        if matches!(step, Say(_) | Close) {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            events.lock().push(format!("{number}: {}", line.escape_default()));
        }
        match step {
            Say(reply) => stream.write_all(reply).await.unwrap(),
            Stray(bytes) => {
                until(&events, "go").await;
                stream.write_all(bytes).await.unwrap();
                events.lock().push(format!("{number}: stray"));
            }
            Close | Leave => return,
        }
    }
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    if !rest.is_empty() {
        events.lock().push(format!("{number}: {}", rest.escape_ascii()));
    }
    events.lock().push(format!("{number}: closed"));
}

fn options(servers: &[&str]) -> Options {
    Options {
        servers: servers.iter().map(|&server| server.to_owned()).collect(),
        prefix: b"p:".to_vec(),
        connections: 4,
        value_max: 1 << 20,
        connect_timeout: Duration::from_secs(5),
    }
}

fn found(value: &'static [u8], flags: u32, ttl: Option<u64>) -> Result<Fetched, Failed> {
    let ttl = ttl.map(Duration::from_secs);
    Ok(Fetched::Found(Loaded { value: Bytes::from_static(value), flags, ttl, validator: None }))
}

/// Why it failed, without the server's name, which must stand in front.
async fn why(origin: &Memcached, key: &[u8], server: impl ToString) -> String {
    let why = match origin.fetch(key).await {
        Err(Failed(why)) | Ok(Fetched::Refused(why) | Fetched::Unaskable(why)) => why,
        other => panic!("{other:?}"),
    };
    why.strip_prefix(&format!("{}: ", server.to_string())).expect("names the server").to_owned()
}

#[test]
fn options_that_can_be_used_pass() {
    for servers in
        [&["old-1:11211", "old-2:11211"][..], &["old-1"], &["[::1]:11211", "127.0.0.1"], &["a/?2", "b"]]
    {
        assert_eq!(Memcached::check(&options(servers)), Ok(()), "{servers:?}");
        assert!(Memcached::new(&options(servers)).is_ok());
    }
}

#[test]
fn options_that_cannot_be_used_say_what_is_allowed() {
    for (servers, says) in [
        (&[][..], "needs at least one server"),
        (
            &["old-1:11211", "old-2:0"],
            "\"old-2:0\": \"0\" is no port from 1 to 65535 (allowed: host, host:port",
        ),
        (&["old-1", "OLD-1:11211"], "\"OLD-1:11211\": stands twice (allowed: each server once)"),
        (&["::1"], "no address and no host name (allowed: host, host:port, [v6]:port"),
    ] {
        let Invalid { field, why } = Memcached::check(&options(servers)).expect_err(says);
        assert_eq!(field, "memcached");
        assert!(why.contains(says), "{why}");
        assert!(Memcached::new(&options(servers)).is_err());
    }
    let none = Options { connections: 0, ..options(&["old-1"]) };
    assert_eq!(Memcached::check(&none).unwrap_err().field, "connections");
}

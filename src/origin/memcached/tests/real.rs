//! Against memcached itself, which must be installed (Debian's package `memcached`).

use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;

/// A memcached of a test's own, killed on drop.
struct Real {
    process: Child,
    address: SocketAddr,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Real {
    async fn start() -> Self {
        // Somebody else may take the port in between.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            if let Some(real) = Self::start_at(free).await {
                return real;
            }
        }
        panic!("memcached does not start on any of five free ports");
    }

    async fn start_at(address: SocketAddr) -> Option<Self> {
        let process = Command::new("memcached")
            .args(["-l", "127.0.0.1", "-p", &address.port().to_string(), "-U", "0", "-u", "nobody"])
            .stderr(Stdio::null())
            .spawn()
            .expect("memcached runs (Debian's package memcached)");
        let mut real = Self { process, address };
        // Whoever answers must be this process: others take ports too.
        let pid = format!("STAT pid {}", real.process.id());
        let answers = async {
            while !matches!(real.try_tell(b"stats").await, Ok(line) if line == pid) {
                if real.process.try_wait().unwrap().is_some() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            true
        };
        let answers = tokio::time::timeout(PATIENCE, answers).await.expect("memcached answers");
        answers.then_some(real)
    }

    /// Sends a command with its block and returns the first line of the reply, without its end.
    async fn tell(&self, command: &[u8]) -> String {
        self.try_tell(command).await.unwrap()
    }

    async fn try_tell(&self, command: &[u8]) -> std::io::Result<String> {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await?);
        stream.write_all(&[command, b"\r\n"].concat()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }

    /// How many connections there ever were, this one included.
    async fn connections(&self) -> u32 {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await.unwrap());
        stream.write_all(b"stats\r\n").await.unwrap();
        let mut lines = stream.lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("they are counted");
            if let Some(count) = line.strip_prefix("STAT total_connections ") {
                return count.parse().unwrap();
            }
        }
    }

    async fn set(&self, key: &[u8], flags: u32, ttl: u32, value: &[u8]) {
        let line = format!("ms {} {} b F{flags} T{ttl}\r\n", BASE64.encode(key), value.len());
        assert_eq!(self.tell(&[line.as_bytes(), value].concat()).await, "HD");
    }

    fn origin(&self) -> Memcached {
        Memcached::new(&options(&[&self.address.to_string()])).unwrap()
    }
}

async fn loaded(origin: &Memcached, key: &[u8]) -> Loaded {
    match origin.fetch(key).await {
        Ok(Fetched::Found(loaded)) => loaded,
        other => panic!("{}: {other:?}", key.escape_ascii()),
    }
}

#[tokio::test]
async fn values_come_with_flags_and_lifetimes() {
    let server = Real::start().await;
    let origin = server.origin();
    server.set(b"p:a", u32::MAX, 0, b"END\r\nEN\r\n").await;
    server.set(b"p:b", 0, 1000, b"").await;
    assert_eq!(origin.fetch(b"a").await, found(b"END\r\nEN\r\n", u32::MAX, None));
    let Loaded { value, flags, ttl, .. } = loaded(&origin, b"b").await;
    assert_eq!((&value[..], flags), (&b""[..], 0));
    let ttl = ttl.expect("it expires");
    assert!(ttl <= Duration::from_secs(1000) && ttl > Duration::from_secs(900), "{ttl:?}");
    assert_eq!(origin.fetch(b"c").await, Ok(Fetched::Absent));
}

#[tokio::test]
async fn values_of_every_size_come_whole() {
    let server = Real::start().await;
    let origin = server.origin();
    for len in [1, 500, 512, 2048, 4096, 65_536, 1_000_000] {
        let value: Vec<u8> = (0..len).map(|at: usize| (at * 7 + at / 251) as u8).collect();
        server.set(b"p:k", 1, 0, &value).await;
        assert_eq!(loaded(&origin, b"k").await.value, value, "{len}");
    }
    let small =
        Memcached::new(&Options { value_max: 999_999, ..options(&[&server.address.to_string()]) }).unwrap();
    assert!(why(&small, b"k", server.address).await.contains("1000000 bytes, where 999999 are allowed"));
    server.set(b"p:k", 1, 0, b"small").await;
    assert_eq!(small.fetch(b"k").await, found(b"small", 1, None));
}

#[tokio::test]
async fn keys_of_every_kind_are_found() {
    let server = Real::start().await;
    let origin = server.origin();
    let all: Vec<u8> = (0..184).collect();
    for key in [
        &b""[..],
        b" ",
        b"a b",
        b"\r\nflush_all\r\n",
        b"\0",
        b"v f t c b",
        b"\xff\xfe",
        "schl\u{fc}ssel".as_bytes(),
        &[b'x'; 184],
        &all,
    ] {
        assert_eq!(origin.fetch(key).await, Ok(Fetched::Absent), "{}", key.escape_ascii());
        server.set(&[b"p:", key].concat(), 3, 0, key).await;
        assert_eq!(loaded(&origin, key).await.value, key, "{}", key.escape_ascii());
    }
    let long = [&b"p:"[..], &[b'x'; 248]].concat();
    assert_eq!(server.tell(&[b"set ", &long[..], b" 3 0 4\r\nlong"].concat()).await, "STORED");
    assert_eq!(origin.fetch(&long[2..]).await, found(b"long", 3, None));
}

#[tokio::test]
async fn a_stale_item_is_found_and_its_win_left_to_others() {
    let server = Real::start().await;
    let origin = server.origin();
    for (key, sent) in [(&b"a"[..], "p:a"), (b" ", "cDog b")] {
        let (sent, base64) = sent.split_once(' ').map_or((sent, ""), |(sent, _)| (sent, " b"));
        server.set(&[b"p:", key].concat(), 0, 0, b"old").await;
        assert_eq!(server.tell(format!("md {sent} I{base64}").as_bytes()).await, "HD");
        for _ in 0..2 {
            assert_eq!(origin.fetch(key).await, found(b"old", 0, None));
        }
        let get = format!("mg {sent} t{base64}");
        let first = server.tell(get.as_bytes()).await;
        assert!(first.contains("X") && first.contains("W"), "the client wins: {first}");
        assert_eq!(origin.fetch(key).await, found(b"old", 0, None));
        let second = server.tell(get.as_bytes()).await;
        assert!(second.contains("Z") && !second.contains("W"), "it has won, nobody else: {second}");
    }
}

#[tokio::test]
async fn a_place_held_for_a_value_is_not_found() {
    let server = Real::start().await;
    assert_eq!(server.tell(b"mg p:a N30 t").await, "HD t30 W");
    assert_eq!(server.origin().fetch(b"a").await, Ok(Fetched::Absent));
}

#[tokio::test]
async fn a_server_that_was_started_anew_is_asked_again() {
    let server = Real::start().await;
    let address = server.address;
    let origin = server.origin();
    server.set(b"p:a", 0, 0, b"before").await;
    assert_eq!(origin.fetch(b"a").await, found(b"before", 0, None));
    drop(server);
    assert_eq!(why(&origin, b"a", address).await, "connection refused");
    let server = Real::start_at(address).await.expect("its port is free again");
    server.set(b"p:a", 0, 0, b"after").await;
    assert_eq!(origin.fetch(b"a").await, found(b"after", 0, None));
}

#[tokio::test]
async fn many_fetches_share_the_connections() {
    let server = Real::start().await;
    let origin = Arc::new(
        Memcached::new(&Options { connections: 3, ..options(&[&server.address.to_string()]) }).unwrap(),
    );
    for number in 0..200 {
        server.set(format!("p:{number}").as_bytes(), number, 0, number.to_string().as_bytes()).await;
    }
    let before = server.connections().await;
    let mut fetches = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let origin = Arc::clone(&origin);
        fetches.spawn(async move {
            let fetch = origin.fetch(number.to_string().as_bytes()).await;
            (number, fetch)
        });
    }
    while let Some(fetch) = fetches.join_next().await {
        let (number, fetched) = fetch.unwrap();
        let loaded = Loaded { value: number.to_string().into(), flags: number, ..Loaded::default() };
        assert_eq!(fetched, Ok(Fetched::Found(loaded)));
    }
    let opened = server.connections().await - before;
    assert!((2..=4).contains(&opened), "{opened}: ours, and one to count them");
}

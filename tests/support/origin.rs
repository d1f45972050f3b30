//! An origin that tests script: an HTTP server whose answers wait when a test wants them to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::support::server::eventually;

/// What is answered for a key.
#[derive(Clone, Debug)]
pub enum Said {
    /// This value.
    Value(String),
    /// This value, with a `Cache-Control`.
    ValueFor(String, String),
    /// This value, with this `ETag`; 304 to whoever has it.
    Tagged(String, String),
    /// 304, whatever is asked.
    Unchanged,
    /// There is none.
    Absent,
    /// The server fails.
    Error,
    /// The server will not serve this key.
    Forbidden,
    /// It is at another host.
    Elsewhere,
}

/// The server. It ends with the test.
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    numbers: Option<Arc<AtomicU64>>,
}

#[derive(Default)]
struct State {
    said: HashMap<String, Said>,
    asked: Vec<String>,
    /// Keys that were asked for with an `If-None-Match`, and what it said.
    asked_about: Vec<(String, String)>,
    under_way: usize,
    most_under_way: usize,
    held: bool,
}

impl Origin {
    /// One that says of every key that there is no value.
    pub fn start() -> Origin {
        Origin::of(Shared::default())
    }

    /// One whose every answer is a higher number, and takes a while.
    pub fn counting(numbers: Arc<AtomicU64>) -> Origin {
        Origin::of(Shared { numbers: Some(numbers), ..Shared::default() })
    }

    fn of(shared: Shared) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let shared = Arc::new(shared);
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = accepting.clone();
                thread::spawn(move || shared.converse(&stream));
            }
        });
        Origin { addr, shared }
    }

    /// What a group's origin is set to.
    pub fn template(&self) -> String {
        format!("http://{}/values/{{key}}", self.addr)
    }

    /// A configuration with one group `g` of the prefix `g:`, with these fields.
    pub fn config(&self, fields: &str) -> String {
        let template = self.template();
        format!("[[group]]\nname = \"g\"\nprefix = \"g:\"\n{fields}\n[group.origin]\nhttp = \"{template}\"\n")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("nobody panics with it")
    }

    /// From now on this is answered for a key, without the group's prefix.
    pub fn says(&self, key: &str, said: Said) {
        self.state().said.insert(key.to_owned(), said);
    }

    /// From now on a key has this value.
    pub fn has(&self, key: &str, value: &str) {
        self.says(key, Said::Value(value.to_owned()));
    }

    /// What comes from now on waits.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Everything is answered.
    pub fn release(&self) {
        self.state().held = false;
        self.shared.changed.notify_all();
    }

    /// How often a key was asked for.
    pub fn asked(&self, key: &str) -> usize {
        self.state().asked.iter().filter(|asked| *asked == key).count()
    }

    /// With which tags in `If-None-Match` a key was asked for.
    pub fn asked_about(&self, key: &str) -> Vec<String> {
        let state = self.state();
        let of_key = state.asked_about.iter().filter(|(asked, _)| asked == key);
        of_key.map(|(_, tag)| tag.clone()).collect()
    }

    /// How often anything was asked for.
    pub fn asked_in_all(&self) -> usize {
        self.state().asked.len()
    }

    /// The most requests that were under way at the same time.
    pub fn most_under_way(&self) -> usize {
        self.state().most_under_way
    }

    /// Waits until a key has been asked for so often.
    pub fn await_asked(&self, key: &str, times: usize) {
        eventually("the origin is asked", || self.asked(key) >= times);
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // In a test that failed, too, whoever waits goes on.
        if let Ok(mut state) = self.shared.state.lock() {
            state.held = false;
        }
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn converse(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let Some(known) = read_head(&mut reader) else { return };
            let key = path.rsplit('/').next().unwrap_or_default();
            let said = self.answer(key, known.as_deref());
            let (status, extra, body) = match &said {
                Said::Value(value) => ("200 OK", String::new(), value.as_str()),
                Said::ValueFor(value, control) => {
                    ("200 OK", format!("Cache-Control: {control}\r\n"), value.as_str())
                }
                Said::Tagged(_, tag) if known.as_ref() == Some(tag) => {
                    ("304 Not Modified", String::new(), "")
                }
                Said::Tagged(value, tag) => ("200 OK", format!("ETag: {tag}\r\n"), value.as_str()),
                Said::Unchanged => ("304 Not Modified", String::new(), ""),
                Said::Absent => ("404 Not Found", String::new(), ""),
                Said::Forbidden => ("403 Forbidden", String::new(), ""),
                Said::Elsewhere => ("302 Found", "Location: http://elsewhere.test/\r\n".to_owned(), ""),
                Said::Error => ("500 Internal Server Error", String::new(), ""),
            };
            let answer = format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\n\r\n{body}", body.len());
            if (&mut &*stream).write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// Notes a request, waits for as long as the test wants, and says what is to be answered: what was set when it came.
    fn answer(&self, key: &str, known: Option<&str>) -> Said {
        if let Some(numbers) = &self.numbers {
            let number = numbers.fetch_add(1, Ordering::SeqCst) + 1;
            self.state.lock().expect("nobody panics with it").asked.push(key.to_owned());
            thread::sleep(Duration::from_millis(number % 20));
            return Said::Value(number.to_string());
        }
        let mut state = self.state.lock().expect("nobody panics with it");
        state.asked.push(key.to_owned());
        state.asked_about.extend(known.map(|tag| (key.to_owned(), tag.to_owned())));
        state.under_way += 1;
        state.most_under_way = state.most_under_way.max(state.under_way);
        let said = state.said.get(key).cloned().unwrap_or(Said::Absent);
        while state.held {
            state = self.changed.wait(state).expect("nobody panics with it");
        }
        state.under_way -= 1;
        said
    }
}

/// Reads the headers of a request: the value of its `If-None-Match`, if it has one. `None` at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> Option<Option<String>> {
    let mut known = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 {
            return None;
        }
        let header = header.trim();
        if header.is_empty() {
            return Some(known);
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("if-none-match")
        {
            known = Some(value.trim().to_owned());
        }
    }
}

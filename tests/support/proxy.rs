//! A TCP proxy that can be cut, can be slow or can swallow everything, to take one process's way to another.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::support::site::Site;

/// Forwards connections to one address until it is told otherwise.
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    mood: Mood,
    /// How long each way takes longer.
    delay: Duration,
    /// Both ends of every connection that there was.
    streams: Vec<TcpStream>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Forwards,
    /// Closes every connection.
    Cut,
    /// Takes whatever comes, and passes nothing on.
    Hangs,
}

impl Proxy {
    /// Starts to forward to `target`. The thread ends with the process.
    pub fn start(target: String) -> Proxy {
        Proxy::start_on(Site::localhost(), target)
    }

    /// As [`Proxy::start`], anywhere.
    pub fn start_on(site: Site, target: String) -> Proxy {
        let listener = site.within(|| TcpListener::bind((site.ip, 0))).expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A connection that cannot be made is closed, and the client sees it.
                let _ = forward(client, &site, &target, &shared);
            }
        });
        Proxy { addr, state }
    }

    pub fn endpoint(&self) -> String {
        self.addr.to_string()
    }

    /// Breaks all connections, and every new one.
    pub fn cut(&self) {
        self.switch_to(Mood::Cut);
    }

    /// Keeps all connections and accepts new ones, and is silent on all of them.
    pub fn hang(&self) {
        self.state.lock().mood = Mood::Hangs;
    }

    /// Delays everything by this time, in both directions, on all connections.
    pub fn slow(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Forwards again, on new connections.
    pub fn heal(&self) {
        self.switch_to(Mood::Forwards);
    }

    fn switch_to(&self, mood: Mood) {
        let mut state = self.state.lock();
        state.mood = mood;
        for stream in state.streams.drain(..) {
            // Closed already is fine.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn forward(client: TcpStream, site: &Site, target: &str, shared: &Arc<Mutex<State>>) -> io::Result<()> {
    let mut state = shared.lock();
    if state.mood == Mood::Cut {
        return Ok(());
    }
    let server = site.within(|| TcpStream::connect(target))?;
    state.streams.extend([client.try_clone()?, server.try_clone()?]);
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // Ends when either side does.
            let _ = copy(&from, &to, &shared);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, shared: &Mutex<State>) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let delay = shared.lock().delay;
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        if shared.lock().mood == Mood::Forwards {
            to.write_all(&buffer[..length])?;
        }
    }
}

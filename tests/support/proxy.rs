//! A TCP proxy that can be cut, to take one process's way to another.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// Forwards connections to one address until it is cut.
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    is_cut: bool,
    /// Both ends of every connection that there was.
    streams: Vec<TcpStream>,
}

impl Proxy {
    /// Starts to forward to `target`. The thread ends with the process.
    pub fn start(target: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A connection that cannot be made is closed, and the client sees it.
                let _ = forward(client, &target, &shared);
            }
        });
        Proxy { addr, state }
    }

    pub fn endpoint(&self) -> String {
        self.addr.to_string()
    }

    /// Breaks all connections, and every new one.
    pub fn cut(&self) {
        let mut state = self.state.lock();
        state.is_cut = true;
        for stream in state.streams.drain(..) {
            // Closed already is fine.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Forwards again.
    pub fn heal(&self) {
        self.state.lock().is_cut = false;
    }
}

fn forward(client: TcpStream, target: &str, shared: &Mutex<State>) -> io::Result<()> {
    let mut state = shared.lock();
    if state.is_cut {
        return Ok(());
    }
    let server = TcpStream::connect(target)?;
    state.streams.extend([client.try_clone()?, server.try_clone()?]);
    for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || {
            // Ends when either side does.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}

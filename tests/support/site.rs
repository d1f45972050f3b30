//! Where processes of a test run and how it reaches them: at an address of the loopback network, or on a host of a
//! network of its own.
//!
//! The benches use this file, too.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::child::{self, program};
use super::netns::Namespace;

/// Below those that Linux gives to clients and for port 0 (`ip_local_port_range`), above what servers have by default.
const PORTS: Range<u32> = 12_000..32_000;

/// An address that no other test's processes listen at, so that a port of it stays free while a process restarts.
#[derive(Clone, Debug)]
pub struct Site {
    pub ip: Ipv4Addr,
    apart: Option<Apart>,
}

#[derive(Clone, Debug)]
struct Apart {
    host: Namespace,
    /// Where clients are.
    router: Namespace,
}

impl Site {
    /// An address of 127.0.0.0/8 that is given out once.
    pub fn loopback() -> Site {
        static GIVEN: AtomicU32 = AtomicU32::new(0);
        let number = GIVEN.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = process::id().to_be_bytes();
        let second = u8::try_from(1 + number % 250).expect("251 at most");
        Site { ip: Ipv4Addr::new(127, second, high, low), apart: None }
    }

    /// 127.0.0.1, which many share.
    pub fn localhost() -> Site {
        Site { ip: Ipv4Addr::LOCALHOST, apart: None }
    }

    /// A host of a network, with clients at its router.
    pub fn apart(ip: Ipv4Addr, host: Namespace, router: Namespace) -> Site {
        Site { ip, apart: Some(Apart { host, router }) }
    }

    /// What a process is started through to run here.
    pub fn wrapper(&self) -> Vec<String> {
        let Some(apart) = &self.apart else { return Vec::new() };
        let nsenter = program("nsenter", "util-linux").to_string_lossy().into_owned();
        vec![nsenter, format!("--net={}", apart.host.path()), "--".to_owned()]
    }

    /// A command that runs a program here. It dies with the thread that starts it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = child::command();
        command.args(self.wrapper()).arg(program);
        command
    }

    /// A port that nobody listens on now, and that nobody else is given: not by this process, and not by the kernel for
    /// port 0 or for a client.
    pub fn free_port(&self) -> u16 {
        static GIVEN: AtomicU32 = AtomicU32::new(0);
        let ports = PORTS.end - PORTS.start;
        // Processes share 127.0.0.1: each begins elsewhere.
        let first = process::id().wrapping_mul(2_654_435_761);
        for _ in 0..ports {
            let number = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
            let port = u16::try_from(PORTS.start + number % ports).expect("it is below the kernel's");
            if self.within(|| TcpListener::bind((self.ip, port))).is_ok() {
                return port;
            }
        }
        panic!("no port of {PORTS:?} is free at {}", self.ip)
    }

    /// A client's connection to a port here.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`, and `TimedOut`.
    pub fn connect(&self, port: u16, timeout: Duration) -> io::Result<TcpStream> {
        let connect = || TcpStream::connect_timeout(&(self.ip, port).into(), timeout);
        let stream = match &self.apart {
            Some(apart) => apart.router.within(connect)?,
            None => connect()?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Runs `f` where the processes are.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        match &self.apart {
            Some(apart) => apart.host.within(f),
            None => f(),
        }
    }
}

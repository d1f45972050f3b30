//! Binding: every listener exists before the node claims to be ready.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::stat::{Mode, umask};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::server::{Listen, Options, Security, UnixListen};

/// Why a listener cannot be opened; the operator can mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("-l {host}: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// The address cannot be bound: in use, not of this machine, or not allowed.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The unix socket cannot be made.
    #[error("cannot listen on {}: {error}", path.display())]
    Unix {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file for `MEMCACHED_PORT_FILENAME` cannot be written.
    #[error("MEMCACHED_PORT_FILENAME={}: {error}", path.display())]
    PortFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// A bound listener that nobody accepts from yet.
#[derive(Debug)]
pub enum Bound {
    /// TCP, with TLS or without.
    Tcp {
        /// The socket.
        listener: TcpListener,
        /// The protocol that clients must speak; plain text where there are no certificates.
        security: Security,
    },
    /// A unix socket, whose file is removed at the end.
    Unix {
        /// The socket.
        listener: UnixListener,
        /// Its file.
        path: PathBuf,
    },
}

impl Bound {
    /// Where it listens, when that is TCP.
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp { listener, .. } => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }

    /// Where clients connect: `host:port`, or the path of the socket.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp { listener, .. } => {
                listener.local_addr().map_or_else(|_| String::new(), |at| at.to_string())
            }
            Self::Unix { path, .. } => path.display().to_string(),
        }
    }

    /// The number of its socket.
    pub fn id(&self) -> u64 {
        let socket = match self {
            Self::Tcp { listener, .. } => listener.as_raw_fd(),
            Self::Unix { listener, .. } => listener.as_raw_fd(),
        };
        u64::from(socket.unsigned_abs())
    }

    /// Where it listens, as `stats conns` shows it.
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Tcp { listener, .. } => match listener.local_addr() {
                Ok(address) => tcp_name(address).into(),
                Err(_) => "tcp".into(),
            },
            Self::Unix { path, .. } => format!("unix:{}", path.display()).into(),
        }
    }
}

/// A TCP address as `stats conns` shows it (memcached.c, `conn_to_str`).
pub(super) fn tcp_name(address: SocketAddr) -> String {
    let family = if address.is_ipv6() { "tcp6" } else { "tcp" };
    format!("{family}:{address}")
}

/// Binds every requested listener.
///
/// # Errors
/// The first address that cannot be listened on.
pub fn bind(options: &Options) -> Result<Vec<Bound>, Error> {
    if let Some(unix) = &options.unix {
        return Ok(vec![bind_unix(unix, options.backlog)?]);
    }
    let mut bound = Vec::new();
    for listen in &options.listen {
        let security = if options.tls.is_some() { listen.security } else { Security::Plain };
        for address in addresses(listen)? {
            match bind_tcp(address, options.backlog) {
                Ok(listener) => bound.push(Bound::Tcp { listener, security }),
                // "Every address" means those that the machine has.
                Err(error) if listen.host.is_none() && address.is_ipv6() && no_ipv6(&error) => {}
                Err(error) => return Err(Error::Bind { address, error }),
            }
        }
    }
    Ok(bound)
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

fn addresses(listen: &Listen) -> Result<Vec<SocketAddr>, Error> {
    let Some(host) = &listen.host else {
        return Ok(vec![([0, 0, 0, 0], listen.port).into(), ([0_u16; 8], listen.port).into()]);
    };
    let resolved = (host.as_str(), listen.port).to_socket_addrs();
    let mut addresses: Vec<_> =
        resolved.map_err(|error| Error::Resolve { host: host.clone(), error })?.collect();
    addresses.dedup();
    Ok(addresses)
}

/// Checks that the addresses exist and are this machine's, without listening on any.
///
/// # Errors
/// The first address that cannot be used; whether it is in use is not checked.
pub fn check(options: &Options) -> Result<(), Error> {
    for listen in &options.listen {
        for address in addresses(listen)? {
            match TcpListener::bind((address.ip(), 0)) {
                Ok(_) => {}
                Err(error) if listen.host.is_none() && address.is_ipv6() && no_ipv6(&error) => {}
                Err(error) => return Err(Error::Bind { address, error }),
            }
        }
    }
    Ok(())
}

fn bind_tcp(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these.
    socket.set_keepalive(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog.min(i32::MAX as u32) as i32)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_unix(unix: &UnixListen, backlog: u32) -> Result<Bound, Error> {
    let failed = |error| Error::Unix { path: unix.path.clone(), error };
    // A socket that a killed server left behind is in the way; any other file is not ours.
    if fs::symlink_metadata(&unix.path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(&unix.path).map_err(failed)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    let address = SockAddr::unix(&unix.path).map_err(failed)?;
    // The file never exists with more rights than asked for. No other thread runs yet.
    let before = umask(Mode::from_bits_truncate(!unix.mode & 0o777));
    let bound = socket.bind(&address);
    umask(before);
    bound.map_err(failed)?;
    socket.listen(backlog.min(i32::MAX as u32) as i32).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(Bound::Unix { listener: socket.into(), path: unix.path.clone() })
}

fn port_line(protocol: &str, listener: &TcpListener) -> io::Result<String> {
    let address = listener.local_addr()?;
    let family = if address.is_ipv6() { "INET6" } else { "INET" };
    Ok(format!("{protocol} {family}: {}\n", address.port()))
}

/// Writes a line for each TCP address, for the process that started the server with a port of the system's choice
/// (memcached.c, `MEMCACHED_PORT_FILENAME`), and one for HTTP. The file appears whole.
pub fn write_port_file(path: &Path, bound: &[Bound], http: Option<&TcpListener>) -> Result<(), Error> {
    let failed = |error| Error::PortFile { path: path.to_owned(), error };
    let mut lines = String::new();
    for bound in bound {
        if let Bound::Tcp { listener, .. } = bound {
            lines.push_str(&port_line("TCP", listener).map_err(failed)?);
        }
    }
    if let Some(listener) = http {
        lines.push_str(&port_line("HTTP", listener).map_err(failed)?);
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".lck");
    fs::write(&unfinished, lines).map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)
}

//! A node's outside resources, acquired before it starts.

use std::io;
use std::net::{IpAddr, TcpListener};

use crate::auth::Users;
use crate::node::cluster;
use crate::node::options::{ClusterOptions, Error, Options};
use crate::process::rights::Rights;
use crate::process::signals;
use crate::server::admin::{self, Token};
use crate::server::listen::{self, Bound as Listening};
use crate::snapshot::Claim;
use crate::tls;

/// A node's outside resources: sockets, certificates, users.
pub struct Bound {
    pub(super) listening: Vec<Listening>,
    pub(super) peers: Option<(TcpListener, ClusterOptions)>,
    pub(super) certificates: Option<tls::Reloadable>,
    pub(super) users: Option<Users>,
    pub(super) http: Option<BoundHttp>,
    pub(super) snapshot: Option<Claim>,
}

pub(super) struct BoundHttp {
    pub(super) listener: TcpListener,
    pub(super) options: admin::Options,
    pub(super) token: Option<Token>,
}

/// Gets hold of all that can be missing or taken, before any thread is started. From here on
/// signals wait for [`run`](crate::node::run), in the same thread. Files that only the user of `-u` may open are opened
/// by these `rights`.
///
/// # Errors
/// A port in use, a file that cannot be read or used.
pub fn bind(options: &Options, rights: &Rights) -> Result<Bound, Error> {
    let certificates =
        rights.root_first(|| options.server.tls.clone().map(tls::Reloadable::load).transpose())?;
    let users = rights.root_first(|| options.server.auth_file.as_ref().map(Users::load).transpose())?;
    let listening = match &options.server.unix {
        // The file must belong to the user.
        Some(_) => rights.user_first(|| listen::bind(&options.server))?,
        None => listen::bind(&options.server)?,
    };
    let http = options.http.as_ref().map(|http| bind_http(http, rights)).transpose()?.flatten();
    let peers = options.cluster.clone().map(|mut options| {
        let listener = cluster::bind(&mut options, &listening)?;
        Ok::<_, Error>((listener, options))
    });
    let snapshot = options.snapshot.as_ref().map(|snapshot| {
        // The file must belong to the user.
        Claim::new(snapshot, rights.user_first(|| snapshot.open_lock())?)
    });
    let snapshot = snapshot.transpose()?;
    // Not earlier, so that a wait for a silent name server, or for another process, can be interrupted.
    signals::hold().map_err(io::Error::from)?;
    if let Some(path) = &options.port_file {
        let http = http.as_ref().map(|http| &http.listener);
        rights.root_first(|| listen::write_port_file(path, &listening, http))?;
    }
    Ok(Bound { listening, peers: peers.transpose()?, certificates, users, http, snapshot })
}

fn bind_http(options: &admin::Options, rights: &Rights) -> Result<Option<BoundHttp>, Error> {
    let token = rights.root_first(|| options.token_file.as_deref().map(Token::load).transpose())?;
    let listener = admin::bind(options)?;
    Ok(listener.map(|listener| BoundHttp { listener, options: options.clone(), token }))
}

/// Where browsers that see a page of another member reach this node's; empty when they do not.
pub(super) fn http_addr(http: Option<&BoundHttp>, cluster: Option<&ClusterOptions>) -> String {
    let Some(BoundHttp { listener, options, .. }) = http else { return String::new() };
    if let Some(told) = &options.advertise {
        return told.clone();
    }
    let Ok(addr) = listener.local_addr() else { return String::new() };
    let peer_host = cluster.and_then(|cluster| cluster.membership.peer_addr.rsplit_once(':'));
    match peer_host.map(|(host, _)| host) {
        Some(host) if addr.ip().is_unspecified() => format!("{host}:{}", addr.port()),
        // Other machines have a loopback of their own.
        Some(host) if addr.ip().is_loopback() && !is_loopback(host) => String::new(),
        _ => addr.to_string(),
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_matches(['[', ']']).parse();
    host == "localhost" || ip.is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::moves;
    use crate::cluster::etcd;
    use crate::peer;

    #[test]
    fn pages_are_told_of_where_a_browser_reaches_them() {
        let told = |listen: &str, advertise: Option<&str>, peer_addr: &str| {
            let http = BoundHttp {
                listener: TcpListener::bind(listen).expect("a free port"),
                options: admin::Options {
                    listen: listen.to_owned(),
                    is_default: false,
                    token_file: None,
                    memcached_names: false,
                    advertise: advertise.map(str::to_owned),
                },
                token: None,
            };
            let port = http.listener.local_addr().expect("bound").port().to_string();
            let membership = etcd::Options { peer_addr: peer_addr.to_owned(), ..etcd::Options::default() };
            let cluster = ClusterOptions {
                membership,
                peer: peer::options::Options::default(),
                moves: moves::options::Options::default(),
            };
            http_addr(Some(&http), Some(&cluster)).replace(&port, "PORT")
        };
        assert_eq!(told("127.0.0.1:0", None, "127.0.0.1:11212"), "127.0.0.1:PORT");
        assert_eq!(told("127.0.0.1:0", None, "cache-1:11212"), "", "nobody there would reach it");
        assert_eq!(told("0.0.0.0:0", None, "cache-1:11212"), "cache-1:PORT");
        assert_eq!(told("0.0.0.0:0", Some("localhost:9"), "cache-1:11212"), "localhost:9");
        assert_eq!(http_addr(None, None), "");
    }
}

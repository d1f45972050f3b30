//! TLS, and HTTP/2 within it.

use std::convert::Infallible;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::yield_now;
use tokio::{join, select};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::server::{Client, Server, ok, options};
use crate::origin::http::{Http, Options};
use crate::origin::{Failed, Fetched, Origin};

/// An authority's file, and what accepts with a certificate of it for 127.0.0.1.
struct Authority {
    dir: TempDir,
    acceptor: TlsAcceptor,
}

impl Authority {
    fn new(name: &str, protocols: &[&[u8]]) -> Self {
        let authority_key = KeyPair::generate().expect("rcgen makes it");
        let mut params = CertificateParams::new(Vec::new()).expect("rcgen makes it");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Authorities of one name are told apart by their keys alone.
        params.distinguished_name.push(DnType::CommonName, name);
        let authority = params.self_signed(&authority_key).expect("rcgen makes it");
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().expect("rcgen makes it");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("rcgen makes it");
        let certificate = params.signed_by(&key, &issuer).expect("rcgen makes it");

        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("ca.pem"), authority.pem()).expect("writable");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key)
            })
            .expect("valid");
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Self { dir, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    async fn accept(&self, server: &Server) -> Client<TlsStream<TcpStream>> {
        let client = server.accept().await;
        Client { stream: self.acceptor.accept(client.stream).await.expect("TLS") }
    }
}

fn over_tls(host: &str, ca_file: Option<PathBuf>) -> Options {
    Options { ca_file, ..options(&format!("https://{host}/scores/{{key}}")) }
}

#[tokio::test]
async fn a_private_authority_comes_from_a_file() {
    let authority = Authority::new("one", &[]);
    let server = Server::start().await;
    let http = Http::new(&over_tls(&server.host(), Some(authority.file()))).expect("valid");
    let serve = async {
        let mut client = authority.accept(&server).await;
        let asked = client.answer(ok("one")).await;
        client.answer(ok("two")).await;
        (client, asked)
    };
    let fetch = async { (http.fetch(b"1").await, http.fetch(b"2").await) };
    let ((one, two), (_client, asked)) = join!(fetch, serve);
    assert!(matches!(one, Ok(Fetched::Found(loaded)) if loaded.value == "one"));
    assert!(matches!(two, Ok(Fetched::Found(loaded)) if loaded.value == "two"));
    assert!(asked.starts_with("GET /scores/1 HTTP/1.1\r\n"), "{asked}");
}

#[tokio::test]
async fn others_certificates_are_refused() {
    let (authority, other) = (Authority::new("one", &[]), Authority::new("another", &[]));
    let server = Server::start().await;
    let refused = |http: Http| {
        let (server, authority) = (&server, &authority);
        async move {
            let serve = async {
                let client = server.accept().await;
                assert!(authority.acceptor.accept(client.stream).await.is_err());
            };
            let (fetched, ()) = join!(http.fetch(b"k"), serve);
            let Err(Failed(why)) = fetched else { panic!("trusted") };
            why
        }
    };
    let why = refused(Http::new(&over_tls(&server.host(), Some(other.file()))).expect("valid")).await;
    assert_eq!(why, format!("{}: invalid peer certificate: UnknownIssuer", server.host()));

    // Nor is it good for another name.
    let named = server.host().replace("127.0.0.1", "localhost");
    let why = refused(Http::new(&over_tls(&named, Some(authority.file()))).expect("valid")).await;
    assert!(
        why.starts_with(&format!("{named}: invalid peer certificate: certificate not valid for name")),
        "{why}"
    );
}

#[tokio::test]
async fn the_system_does_not_trust_a_private_authority() {
    let authority = Authority::new("one", &[]);
    let server = Server::start().await;
    let http = match Http::new(&over_tls(&server.host(), None)) {
        Ok(http) => http,
        // A machine without any authorities says so.
        Err(invalid) => return assert_eq!(invalid.field, "ca-file"),
    };
    let serve = async {
        let client = server.accept().await;
        assert!(authority.acceptor.accept(client.stream).await.is_err());
    };
    let (fetched, ()) = join!(http.fetch(b"k"), serve);
    assert_eq!(fetched, Err(Failed(format!("{}: invalid peer certificate: UnknownIssuer", server.host()))));
}

#[tokio::test]
async fn a_value_cut_off_below_tls_is_noticed() {
    let authority = Authority::new("one", &[]);
    let server = Server::start().await;
    let http = Http::new(&over_tls(&server.host(), Some(authority.file()))).expect("valid");
    let serve = async {
        let mut client = authority.accept(&server).await;
        client.answer("HTTP/1.1 200 OK\r\n\r\nto the end").await;
    };
    let (fetched, ()) = join!(http.fetch(b"k"), serve);
    let Err(Failed(why)) = fetched else { panic!("found") };
    assert!(why.contains("without sending TLS close_notify"), "{why}");
}

#[test]
fn the_file_of_authorities_is_checked() {
    let authority = Authority::new("one", &[]);
    let check = |options: &Options| Http::check(options).map_err(|invalid| invalid.to_string());
    assert_eq!(check(&over_tls("host", Some(authority.file()))), Ok(()));
    let error = check(&over_tls("host", Some(authority.dir.path().join("none.pem")))).expect_err("no file");
    assert!(error.starts_with("ca-file: ") && error.contains("No such file"), "{error}");
    fs::write(authority.file(), "nothing").expect("writable");
    let error = check(&over_tls("host", Some(authority.file()))).expect_err("no certificate");
    assert!(error.ends_with("has no certificate in PEM (-----BEGIN CERTIFICATE-----)"), "{error}");
    let plain = Options { ca_file: Some(authority.file()), ..options("http://host/{key}") };
    let error = check(&plain).expect_err("no TLS");
    assert_eq!(error, "ca-file: is for an address with https:// (allowed: none with http://)");
}

#[tokio::test(start_paused = true)]
async fn connecting_takes_no_longer_than_allowed() {
    let server = Server::start().await;
    let authority = Authority::new("one", &[]);
    let with_timeout = Options {
        connect_timeout: Duration::from_millis(50),
        ..over_tls(&server.host(), Some(authority.file()))
    };
    let http = Http::new(&with_timeout).expect("valid");
    // Nobody answers what TLS begins with.
    assert_eq!(http.fetch(b"k").await, Err(Failed(format!("{}: timed out connecting", server.host()))));

    // Nor what TCP begins with, as more than one connection waits already.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let full = socket.listen(0).expect("it is bound");
    let address = full.local_addr().expect("it is bound");
    let _waiting = [(); 4].map(|()| tokio::spawn(TcpStream::connect(address)));
    yield_now().await;
    let plain = Options {
        connect_timeout: Duration::from_millis(50),
        ..options(&format!("http://{address}/{{key}}"))
    };
    let http = Http::new(&plain).expect("valid");
    assert_eq!(http.fetch(b"k").await, Err(Failed(format!("{address}: timed out connecting"))));
}

/// Answers the path that was asked for; `/scores/large` with 1 MiB, `/scores/none` with 404.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.version(), Version::HTTP_2);
    assert!(request.uri().authority().is_some());
    let path = request.uri().path().to_owned();
    let body =
        if path == "/scores/large" { Bytes::from(vec![b'x'; 1 << 20]) } else { Bytes::from(path.clone()) };
    let mut response = Response::new(Full::new(body));
    if path == "/scores/none" {
        *response.status_mut() = hyper::StatusCode::NOT_FOUND;
    }
    Ok(response)
}

#[tokio::test]
async fn many_share_a_connection_over_http2() {
    let authority = Authority::new("one", &[b"h2", b"http/1.1"]);
    let server = Server::start().await;
    let with = |value_max| Options { value_max, ..over_tls(&server.host(), Some(authority.file())) };
    let http = Http::new(&with(1000)).expect("valid");
    let serve = async {
        let client = authority.accept(&server).await;
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let connection = connection.serve_connection(TokioIo::new(client.stream), service_fn(echo));
        select! {
            ended = connection => ended.expect("ends well"),
            _ = server.accept() => panic!("a second connection"),
        }
    };
    let fetch = async {
        let value = |fetched| match fetched {
            Ok(Fetched::Found(loaded)) => loaded.value,
            other => panic!("{other:?}"),
        };
        assert_eq!(value(http.fetch(b"1").await), "/scores/1");
        let (two, three) = join!(http.fetch(b"2"), http.fetch(b"/3"));
        assert_eq!((value(two), value(three)), ("/scores/2".into(), "/scores/%2F3".into()));
        assert_eq!(http.fetch(b"none").await, Ok(Fetched::Absent));
        let over = Fetched::Refused(format!("{}: a value of more than 1000 bytes", server.host()));
        assert_eq!(http.fetch(b"large").await, Ok(over));
        assert_eq!(value(http.fetch(b"4").await), "/scores/4");
        // The connection ends with its last user.
        drop(http);
    };
    join!(fetch, serve);
}

#[tokio::test]
async fn an_http2_connection_that_ended_is_replaced() {
    let authority = Authority::new("one", &[b"h2"]);
    let server = Server::start().await;
    let http = Http::new(&over_tls(&server.host(), Some(authority.file()))).expect("valid");
    for _ in 0..3 {
        let mut fetch = http.fetch(b"1");
        let client = select! {
            _ = &mut fetch => panic!("nobody has answered"),
            client = authority.accept(&server) => client,
        };
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let connection = connection.serve_connection(TokioIo::new(client.stream), service_fn(echo));
        select! {
            fetched = fetch => assert!(matches!(fetched, Ok(Fetched::Found(_)))),
            _ = connection => panic!("ended"),
        }
    }
}

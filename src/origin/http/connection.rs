//! One connection to the host: TCP, TLS, and HTTP in the version that both sides know.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::service::Service;
use hyper::{HeaderMap, Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::origin::Invalid;
use crate::origin::http::cause::Cause;
use crate::origin::http::site::Site;

/// Names of HTTP versions in TLS (RFC 7301; RFC 9113, 3.1).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What the head of an answer may take, and how much is read at once. hyper's own bound is 400 KiB, per connection.
const BUFFER_BYTES: usize = 64 << 10;

/// A shared connection whose host is gone without a word would fail all requests: it is asked for a sign of life when
/// nothing came for so long while something is asked for, and given up after as long again.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Opens connections to one host.
pub struct Connector {
    site: Site,
    uri: Uri,
    /// Tries the name's addresses, IPv4 soon after IPv6 (RFC 8305).
    tcp: HttpConnector,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    patience: Duration,
}

impl Connector {
    /// One that trusts those authorities; over plain HTTP without them.
    ///
    /// # Errors
    ///
    /// The libraries refuse the host, or TLS.
    pub fn new(site: Site, authorities: Option<RootCertStore>, patience: Duration) -> Result<Self, Invalid> {
        let refuse = |why: &str| Invalid::new("http", why);
        let tls = match authorities.filter(|_| site.is_https()) {
            Some(authorities) => {
                let name = site.server_name().map_err(refuse)?;
                let config = client_config(authorities).map_err(|error| refuse(&error.to_string()))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            None => None,
        };
        let uri = site.uri(PathAndQuery::from_static("/")).map_err(|error| refuse(&error.to_string()))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience));
        Ok(Self { site, uri, tcp, tls, patience })
    }

    /// A new connection. Cancellation safe.
    ///
    /// # Errors
    ///
    /// There is none, or not in time.
    pub async fn connect(&self) -> Result<Connection, Cause> {
        timeout(self.patience, self.establish()).await.map_err(|_| Cause::ConnectTimeout)?
    }

    async fn establish(&self) -> Result<Connection, Cause> {
        let tcp = TowerToHyperService::new(self.tcp.clone());
        let stream = tcp.call(self.uri.clone()).await.map_err(Cause::connecting)?.into_inner();
        let Some((tls, name)) = &self.tls else { return self.http1(stream).await };
        let stream = tls.connect(name.clone(), stream).await.map_err(Cause::connecting)?;
        if stream.get_ref().1.alpn_protocol() == Some(HTTP2) {
            self.http2(stream).await
        } else {
            self.http1(stream).await
        }
    }

    async fn http1<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
    ) -> Result<Connection, Cause> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        // How it ends is told to who waits for an answer.
        let task = tokio::spawn(async move { drop(driver.await) });
        Ok(Connection::new(&self.site, Sender::Http1(sender), AbortOnDropHandle::new(task)))
    }

    async fn http2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: S,
    ) -> Result<Connection, Cause> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_INTERVAL);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(async move { drop(driver.await) });
        Ok(Connection::new(&self.site, Sender::Http2(sender), AbortOnDropHandle::new(task)))
    }
}

fn client_config(authorities: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    // Named here, and not installed as the process's default: no globals.
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(config)
}

/// A connection, which is closed when the last of its handles is dropped; one of HTTP/1.1 at once, whatever goes on in
/// it.
pub struct Connection {
    site: Site,
    sender: Sender,
    task: Arc<AbortOnDropHandle<()>>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    fn new(site: &Site, sender: Sender, task: AbortOnDropHandle<()>) -> Self {
        Self { site: site.clone(), sender, task: Arc::new(task) }
    }

    /// Another handle, if many requests at a time can use it: over HTTP/2.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self {
                site: self.site.clone(),
                sender: Sender::Http2(sender.clone()),
                task: Arc::clone(&self.task),
            }),
        }
    }

    /// Whether both are handles of one connection.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.task, &other.task)
    }

    /// Whether it is known to be of no more use.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Waits until the answer before is out of the way.
    ///
    /// # Errors
    ///
    /// The connection is closed.
    pub async fn ready(&mut self) -> Result<(), hyper::Error> {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await,
            Sender::Http2(sender) => sender.ready().await,
        }
    }

    /// Asks, and waits for the head of the answer. When this is dropped before, an HTTP/1.1 connection is of no more
    /// use.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub async fn ask(
        &mut self,
        target: &PathAndQuery,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, Cause> {
        let mut request = Request::new(Empty::new());
        request.headers_mut().clone_from(headers);
        match &mut self.sender {
            Sender::Http1(sender) => {
                *request.uri_mut() = Uri::from(target.clone());
                let host = HeaderValue::from_str(self.site.authority().as_str())
                    .map_err(hyper::http::Error::from)?;
                request.headers_mut().insert(HOST, host);
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                *request.uri_mut() = self.site.uri(target.clone())?;
                Ok(sender.send_request(request).await?)
            }
        }
    }
}

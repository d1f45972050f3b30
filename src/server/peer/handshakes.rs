//! TLS with peers that connect.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error};

use crate::peer::options::Tls;
use crate::peer::tls;
use crate::server::guests::{Arrival, GuestStream};

/// How often the files of certificates are read again: not for every connection, because strangers can make many.
const CERTIFICATES_LAST: Duration = Duration::from_secs(1);

/// Completes the TLS handshake with each, without one waiting for another. There are no more of them than guests.
pub(super) async fn shake_hands(
    mut arrivals: mpsc::Receiver<Arrival>,
    tls: Tls,
    shaken: mpsc::Sender<io::Result<TlsStream<GuestStream>>>,
) {
    let certificates = Arc::new(Certificates { tls, read: Mutex::default() });
    let mut handshakes = JoinSet::new();
    loop {
        let arrival = tokio::select! {
            arrival = arrivals.recv() => arrival,
            Some(_) = handshakes.join_next() => continue,
        };
        let Some(arrival) = arrival else { break };
        let (certificates, shaken) = (certificates.clone(), shaken.clone());
        handshakes.spawn(async move {
            match shake_hand(arrival, &certificates).await {
                // When nobody takes it, the node stops.
                Ok(stream) => _ = shaken.send(Ok(stream)).await,
                Err(error) => debug!("a peer's handshake: {error}"),
            }
        });
    }
}

async fn shake_hand(arrival: Arrival, certificates: &Certificates) -> io::Result<TlsStream<GuestStream>> {
    let stream = GuestStream::open(arrival)?;
    // A silent caller costs no more than this.
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let config = certificates.present().inspect_err(|error| error!("peers are refused: {error}"));
    hello.into_stream(config.map_err(io::Error::other)?).await
}

/// What is shown to peers, and asked of them.
struct Certificates {
    tls: Tls,
    read: Mutex<Option<(Instant, Arc<ServerConfig>)>>,
}

impl Certificates {
    fn present(&self) -> Result<Arc<ServerConfig>, tls::Error> {
        let mut read = self.read.lock();
        if let Some((at, config)) = &*read
            && at.elapsed() < CERTIFICATES_LAST
        {
            return Ok(config.clone());
        }
        let config = Arc::new(tls::server(&self.tls)?);
        *read = Some((Instant::now(), config.clone()));
        Ok(config)
    }
}

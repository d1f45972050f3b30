//! TLS for clients: the certificate, who must show one, and reading both again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio_rustls::TlsAcceptor;

/// `-Z` with the `ssl_*` options of `-o`.
#[derive(Debug, Clone)]
pub struct Options {
    /// PEM file of the certificate chain (`ssl_chain_cert`).
    pub chain_cert: PathBuf,
    /// PEM file of the private key (`ssl_key`).
    pub key: PathBuf,
    /// PEM file of the authorities that client certificates must come from (`ssl_ca_cert`).
    pub ca_cert: Option<PathBuf>,
    /// Whether a client must, may or need not show a certificate (`ssl_verify_mode`).
    pub verify: ClientVerify,
    /// Lowest protocol version (`ssl_min_version`).
    pub min_version: MinVersion,
    /// Whether some listener requires a client certificate whatever `verify` says (`mtls:`).
    pub mutual: bool,
}

/// memcached's `ssl_verify_mode`: 0 none, 1 request, 2 require, 3 once (the same as 2 here).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientVerify {
    /// Clients are not asked for a certificate.
    None,
    /// A client may show a certificate, which must then be good.
    Request,
    /// A client must show a good certificate.
    Require,
}

/// memcached's `ssl_min_version`: 2 is TLS 1.2 and 3 is TLS 1.3; 0 and 1 (TLS 1.0, 1.1) are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 and 1.3.
    Tls12,
    /// TLS 1.3 alone.
    Tls13,
}

impl MinVersion {
    /// Its name in `stats settings` (memcached.c, `ssl_proto_text`).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "tlsv1.2",
            Self::Tls13 => "tlsv1.3",
        }
    }
}

/// The certificate and rules that connections are accepted with, which can be read again while
/// the server runs.
pub struct Reloadable {
    options: Options,
    current: RwLock<Current>,
}

/// The result of reading the files the last time.
struct Current {
    usual: Arc<ServerConfig>,
    /// For `mtls:` listeners, when there are any.
    mutual: Option<Arc<ServerConfig>>,
    since: Instant,
}

impl Current {
    fn read(options: &Options) -> Result<Self, Error> {
        let usual = Arc::new(server_config(options)?);
        let strict = Options { verify: ClientVerify::Require, ..options.clone() };
        let mutual = options.mutual.then(|| server_config(&strict)).transpose()?.map(Arc::new);
        Ok(Self { usual, mutual, since: Instant::now() })
    }
}

/// Why TLS cannot be used as the options say. Names the option and its file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or lacks what it should hold.
    #[error("{option}={}: {why}", path.display())]
    File {
        /// The word of `-o` that names the file.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The certificate and the key do not make a pair, or cannot be used.
    #[error("ssl_chain_cert={} with ssl_key={}: {why}", chain_cert.display(), key.display())]
    Pair {
        /// The file of the certificate.
        chain_cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        why: rustls::Error,
    },
    /// Client certificates are to be checked, but no authority is given.
    #[error("ssl_verify_mode 1 to 3 need ssl_ca_cert: the authorities of client certificates")]
    NoAuthorities,
    /// The library refuses for a reason outside of the files.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

impl Reloadable {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// Files that cannot be read, are not PEM, or do not belong together.
    pub fn load(options: Options) -> Result<Self, Error> {
        let current = RwLock::new(Current::read(&options)?);
        Ok(Self { options, current })
    }

    /// What to accept the next connection with. Cheap: a lock for reading and a count.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().usual))
    }

    /// The same for a listener that requires a client certificate; `None` when the options have no such listener.
    pub fn mutual_acceptor(&self) -> Option<TlsAcceptor> {
        self.current.read().mutual.clone().map(TlsAcceptor::from)
    }

    /// How long ago the files were read.
    pub fn age(&self) -> Duration {
        self.current.read().since.elapsed()
    }

    /// Reads the files again, for connections from now on; those that are open stay as they are.
    ///
    /// Sessions begun before cannot be resumed afterwards, so that nobody gets around an
    /// authority that was taken away.
    ///
    /// # Errors
    ///
    /// As [`Reloadable::load`]; what was read the last time then stays in force.
    pub fn reload(&self) -> Result<(), Error> {
        let current = Current::read(&self.options)?;
        *self.current.write() = current;
        Ok(())
    }
}

/// Builds the library's configuration from the files.
///
/// # Errors
///
/// As [`Reloadable::load`].
pub fn server_config(options: &Options) -> Result<ServerConfig, Error> {
    // Named here, and not installed as the process's default: no globals.
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(options.min_version))?;
    let builder = match options.verify {
        ClientVerify::None => builder.with_no_client_auth(),
        verify => {
            let path = options.ca_cert.as_deref().ok_or(Error::NoAuthorities)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities(path)?.into(), provider);
            let verifier =
                if verify == ClientVerify::Request { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|error| file_error("ssl_ca_cert", path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };

    let chain = certificates("ssl_chain_cert", &options.chain_cert)?;
    let key = private_key(&options.key)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|why| Error::Pair {
        chain_cert: options.chain_cert.clone(),
        key: options.key.clone(),
        why,
    })?;
    // Sessions are resumed from tickets that the client keeps, so that they cost no memory here
    // however many clients there are; the key behind them changes by itself every few hours.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    Ok(config)
}

fn versions(min: MinVersion) -> Vec<&'static SupportedProtocolVersion> {
    match min {
        MinVersion::Tls12 => vec![&version::TLS13, &version::TLS12],
        MinVersion::Tls13 => vec![&version::TLS13],
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ssl_ca_cert", path)? {
        roots.add(certificate).map_err(|error| file_error("ssl_ca_cert", path, error))?;
    }
    Ok(roots)
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(option, path, error))?;
    if all.is_empty() {
        return Err(file_error(option, path, "has no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => file_error(
            "ssl_key",
            path,
            "has no private key in PEM (-----BEGIN PRIVATE KEY-----; one under a password cannot be read)",
        ),
        error => pem_error("ssl_key", path, error),
    })
}

fn pem_error(option: &'static str, path: &Path, error: pem::Error) -> Error {
    match error {
        pem::Error::Io(error) => file_error(option, path, error),
        error => file_error(option, path, format!("is not PEM: {error}")),
    }
}

fn file_error(option: &'static str, path: &Path, why: impl ToString) -> Error {
    Error::File { option, path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests;

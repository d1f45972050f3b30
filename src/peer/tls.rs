//! Mutual TLS between nodes. The files are read for connections as they come, so that certificates
//! are renewed by writing them anew; connections that are open stay as they are.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::peer::options::Tls;

/// A certificate of the peers that cannot be used. Names the option and its file.
#[derive(Debug, thiserror::Error)]
#[error("{option} {}: {why}", path.display())]
pub struct Error {
    option: &'static str,
    path: std::path::PathBuf,
    why: String,
}

/// This node's certificate and checks for its own calls. The certificate of the called node must carry the host of its
/// peer address: its name, or its IP address.
///
/// # Errors
/// A file cannot be read, or its content is not valid.
pub fn client(tls: &Tls) -> Result<ClientTlsConfig, Error> {
    // The library says too little about what is wrong with them.
    server(tls)?;
    let identity = Identity::from_pem(read("--peer-cert", &tls.cert)?, read("--peer-key", &tls.key)?);
    let authorities = Certificate::from_pem(read("--peer-ca", &tls.ca)?);
    Ok(ClientTlsConfig::new().identity(identity).ca_certificate(authorities))
}

/// This node's certificate and checks for calls of others: every caller must show a certificate of the authorities.
///
/// # Errors
/// A file cannot be read, or its content is not valid.
pub fn server(tls: &Tls) -> Result<ServerConfig, Error> {
    let error = |option, path: &Path, why: &dyn ToString| Error {
        option,
        path: path.to_owned(),
        why: why.to_string(),
    };
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates("--peer-ca", &tls.ca)? {
        roots.add(authority).map_err(|why| error("--peer-ca", &tls.ca, &why))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .map_err(|why| error("--peer-ca", &tls.ca, &why))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|why| error("--peer-key", &tls.key, &why))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| error("--peer-cert", &tls.cert, &why))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates("--peer-cert", &tls.cert)?, key)
        .map_err(|why| error("--peer-cert", &tls.cert, &why))?;
    // Nobody resumes a session: nodes keep their connections, and a store of sessions would need a bound.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols.push(b"h2".to_vec());
    Ok(config)
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let error = |why: String| Error { option, path: path.to_owned(), why };
    match all {
        Ok(all) if all.is_empty() => {
            Err(error("has no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()))
        }
        Ok(all) => Ok(all),
        Err(why) => Err(error(why.to_string())),
    }
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|why| Error { option, path: path.to_owned(), why: why.to_string() })
}

//! The authorities that a host's certificate may come from.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use crate::origin::Invalid;

/// Those of a PEM file, and no others.
///
/// # Errors
///
/// It cannot be read, or holds none.
pub fn from_file(path: &Path) -> Result<RootCertStore, Invalid> {
    let refuse = |why: String| Invalid::new("ca-file", format!("{}: {why}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| match error {
        pem::Error::Io(error) => refuse(error.to_string()),
        error => refuse(format!("is not PEM: {error}")),
    })?;
    if certificates.is_empty() {
        return Err(refuse("has no certificate in PEM (-----BEGIN CERTIFICATE-----)".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
    }
    Ok(roots)
}

/// The system's, which its administrators add to and its updates keep: `/etc/ssl` and the like, or what `SSL_CERT_FILE`
/// and `SSL_CERT_DIR` name.
///
/// # Errors
///
/// There are none.
pub fn system() -> Result<RootCertStore, Invalid> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
    let why = format!(
        "is needed for https://, as this system has no authorities{why} (allowed: a PEM file with some)"
    );
    Err(Invalid::new("ca-file", why))
}

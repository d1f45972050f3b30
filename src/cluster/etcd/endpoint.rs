//! An endpoint of etcd, ready to be connected to.

use std::fs;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::cluster::Error;
use crate::cluster::etcd::check::refuse;
use crate::cluster::etcd::options::Options;

impl Options {
    /// The endpoint with its TLS. Reads the files each time, so that a renewed certificate is
    /// used by the next connection.
    pub(super) fn endpoint(&self, address: &str) -> Result<Endpoint, Error> {
        let wrong = |why: String| refuse("etcd-endpoints", &address, why);
        let url = match (address.contains("://"), &self.ca) {
            (true, _) => address.to_owned(),
            (false, None) => format!("http://{address}"),
            (false, Some(_)) => format!("https://{address}"),
        };
        let endpoint = match Endpoint::from_shared(url.clone()) {
            Ok(endpoint) => endpoint.tcp_nodelay(true).connect_timeout(self.call_timeout),
            Err(error) => {
                return wrong(format!("{} (allowed: host:port, or a URL of them)", innermost(&error)));
            }
        };
        let Some(ca) = &self.ca else {
            if url.starts_with("https://") {
                return wrong(
                    "needs --etcd-ca, the authorities that etcd's certificate comes from".to_owned(),
                );
            }
            return Ok(endpoint);
        };
        if !url.starts_with("https://") {
            return wrong("needs https with --etcd-ca".to_owned());
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("etcd-ca", ca)?));
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read("etcd-cert", cert)?, read("etcd-key", key)?));
        }
        endpoint.tls_config(tls).or_else(|error| wrong(innermost(&error)))
    }
}

fn read(option: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).or_else(|error| refuse(option, &path.display(), error.to_string()))
}

/// What went wrong at the bottom: a transport error by itself says only "transport error".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

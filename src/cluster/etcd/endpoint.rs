//! An endpoint of etcd, ready to be connected to.

use std::fs;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::cluster::Error;
use crate::cluster::etcd::{Options, client};

impl Options {
    /// The endpoint with its TLS. Reads the files each time, so that a renewed certificate is
    /// used by the next connection.
    pub(super) fn endpoint(&self, address: &str) -> Result<Endpoint, Error> {
        let wrong = |why: String| Error::Options(format!("etcd endpoint {address}: {why}"));
        let url = match (address.contains("://"), &self.ca) {
            (true, _) => address.to_owned(),
            (false, None) => format!("http://{address}"),
            (false, Some(_)) => format!("https://{address}"),
        };
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| wrong(error.to_string()))?;
        let endpoint = endpoint.tcp_nodelay(true).connect_timeout(self.call_timeout);
        let Some(ca) = &self.ca else {
            if url.starts_with("https://") {
                return Err(wrong("https needs the file of etcd's authorities".to_owned()));
            }
            return Ok(endpoint);
        };
        if !url.starts_with("https://") {
            return Err(wrong("authorities are given, but the address is not https".to_owned()));
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        endpoint.tls_config(tls).map_err(|error| wrong(client::innermost(&error)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::Options(format!("{}: {error}", path.display())))
}

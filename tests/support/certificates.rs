//! Certificates for the tests of TLS, made anew for each.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tempfile::TempDir;

/// An authority, and a folder with its certificate and those that it signed: `server` and `client`.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority, and signs for a server and a client.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Another name than its certificates have, which would look signed by themselves.
        params.distinguished_name.push(DnType::CommonName, "the tests' authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let folder = TempDir::new().expect("a temporary directory can be made");
        let authority = Authority { folder, issuer };
        fs::write(authority.path("ca.pem"), authority.issuer.pem()).expect("the directory is writable");
        authority.sign("server");
        authority.sign("client");
        authority
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a new certificate for localhost and its key, `NAME.pem` and `NAME.key`; returns the certificate.
    pub fn sign(&self, name: &str) -> CertificateDer<'static> {
        self.sign_for(name, &["localhost"])
    }

    /// As [`Authority::sign`], for these names and addresses.
    pub fn sign_for(&self, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let params = CertificateParams::new(hosts).expect("names and addresses");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("the directory is writable");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("the directory is writable");
        certificate.der().clone()
    }

    /// What follows `-o` for the server's certificate, with `more` words behind it.
    pub fn words(&self, more: &str) -> String {
        let folder = self.folder.path().display();
        let comma = if more.is_empty() { "" } else { "," };
        format!("ssl_chain_cert={folder}/server.pem,ssl_key={folder}/server.key{comma}{more}")
    }

    /// A client that trusts this authority and shows no certificate.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client_of(&version::TLS13, None)
    }

    /// A client of one protocol version that trusts this authority, and shows `signer`'s client certificate whether
    /// or not the server asks for one of that authority.
    pub fn client_of(
        &self,
        version: &'static SupportedProtocolVersion,
        signer: Option<&Authority>,
    ) -> Arc<ClientConfig> {
        let mut config = self.builder(version).with_no_client_auth();
        let Some(signer) = signer else { return config.into() };
        let read = |name| signer.path(name);
        let chain = vec![CertificateDer::from_pem_file(read("client.pem")).expect("readable")];
        let key = PrivateKeyDer::from_pem_file(read("client.key")).expect("readable");
        let key = ring::default_provider().key_provider.load_private_key(key).expect("usable");
        let shown = rustls::sign::CertifiedKey::new(chain, key);
        let resolver = rustls::sign::SingleCertAndKey::from(shown);
        config.client_auth_cert_resolver = Arc::new(resolver);
        config.into()
    }

    fn builder(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[version])
            .expect("a known version")
            .with_root_certificates(roots)
    }
}

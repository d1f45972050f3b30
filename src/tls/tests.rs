use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, ServerConnection};

use super::*;

/// An authority, and a folder of files that it signed.
struct Files {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("signed");
        let files = Self { folder: tempfile::tempdir().expect("a folder"), authority };
        fs::write(files.path("ca.pem"), files.authority.pem()).expect("written");
        files.sign("server");
        files.sign("client");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a new certificate for localhost and its key; returns the certificate.
    fn sign(&self, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.authority).expect("signed");
        fs::write(self.path(&format!("{name}.pem")), certificate.pem()).expect("written");
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).expect("written");
        certificate.der().clone()
    }

    fn options(&self, verify: ClientVerify) -> Options {
        Options {
            chain_cert: self.path("server.pem"),
            key: self.path("server.key"),
            ca_cert: Some(self.path("ca.pem")),
            verify,
            min_version: MinVersion::Tls12,
            mutual: false,
        }
    }

    /// A client that trusts the authority, with the certificate of that name.
    fn client(&self, certificate: Option<&str>, min: MinVersion) -> ClientConfig {
        let version = match min {
            MinVersion::Tls12 => &version::TLS12,
            MinVersion::Tls13 => &version::TLS13,
        };
        let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[version])
            .expect("known versions")
            .with_root_certificates(authorities(&self.path("ca.pem")).expect("readable"));
        match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => builder
                .with_client_auth_cert(
                    certificates("test", &self.path(&format!("{name}.pem"))).expect("readable"),
                    private_key(&self.path(&format!("{name}.key"))).expect("readable"),
                )
                .expect("a pair"),
        }
    }
}

/// Shakes hands in memory, and lets one byte through so that tickets arrive.
fn shake_hands(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<ClientConnection, rustls::Error> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    for _ in 0..8 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("memory");
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).expect("memory");
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(client)
}

fn config(reloadable: &Reloadable) -> Arc<ServerConfig> {
    Arc::clone(reloadable.acceptor().config())
}

#[test]
fn clients_show_certificates_as_the_mode_says() {
    let files = Files::new();
    let stranger = Files::new();
    for (verify, without, with) in [
        (ClientVerify::None, true, true),
        (ClientVerify::Request, true, true),
        (ClientVerify::Require, false, true),
    ] {
        let server = Arc::new(server_config(&files.options(verify)).expect("valid"));
        for version in [MinVersion::Tls12, MinVersion::Tls13] {
            let shake = |client: ClientConfig| shake_hands(&client.into(), &server).is_ok();
            assert_eq!(shake(files.client(None, version)), without, "{verify:?} {version:?}: without");
            assert_eq!(shake(files.client(Some("client"), version)), with, "{verify:?} {version:?}: with");

            // Rustls's client shows a certificate only where its issuer is asked for; write the
            // stranger's over ours to show it anyway.
            let mut client = files.client(None, version);
            client.client_auth_cert_resolver =
                stranger.client(Some("client"), version).client_auth_cert_resolver;
            assert_eq!(shake(client), verify == ClientVerify::None, "{verify:?} {version:?}: a stranger's");
        }
    }
}

#[test]
fn the_lowest_version_holds() {
    let files = Files::new();
    let mut options = files.options(ClientVerify::None);
    let both = Arc::new(server_config(&options).expect("valid"));
    options.min_version = MinVersion::Tls13;
    let newest = Arc::new(server_config(&options).expect("valid"));

    let old = Arc::new(files.client(None, MinVersion::Tls12));
    let client = shake_hands(&old, &both).expect("TLS 1.2 is allowed");
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert!(shake_hands(&old, &newest).is_err());
    let new = Arc::new(files.client(None, MinVersion::Tls13));
    assert!(shake_hands(&new, &newest).is_ok());
}

#[test]
fn sessions_are_resumed_until_the_files_are_read_again() {
    let files = Files::new();
    let reloadable = Reloadable::load(files.options(ClientVerify::None)).expect("valid");
    for version in [MinVersion::Tls12, MinVersion::Tls13] {
        let client = Arc::new(files.client(None, version));
        let kind = || shake_hands(&client, &config(&reloadable)).expect("shaken").handshake_kind();
        assert_eq!(kind(), Some(HandshakeKind::Full));
        assert_eq!(kind(), Some(HandshakeKind::Resumed), "{version:?}");
        reloadable.reload().expect("unchanged");
        assert_eq!(kind(), Some(HandshakeKind::Full), "{version:?}: the old tickets are worth nothing");
    }
}

#[test]
fn a_reload_changes_the_certificate_and_a_bad_one_changes_nothing() {
    let files = Files::new();
    let reloadable = Reloadable::load(files.options(ClientVerify::None)).expect("valid");
    let client = Arc::new(files.client(None, MinVersion::Tls13));
    let shown = || {
        let client = shake_hands(&client, &config(&reloadable)).expect("shaken");
        client.peer_certificates().expect("shown")[0].clone()
    };
    let first = shown();

    let second = files.sign("server");
    assert_eq!(shown(), first, "not before it is asked to");
    reloadable.reload().expect("valid");
    assert_eq!(shown(), second);

    fs::write(files.path("server.key"), "half-writ").expect("written");
    assert!(reloadable.reload().is_err());
    assert_eq!(shown(), second);
}

#[test]
fn a_key_may_stand_in_the_file_of_the_chain() {
    let files = Files::new();
    let key = fs::read_to_string(files.path("server.key")).expect("readable");
    let chain = fs::read_to_string(files.path("server.pem")).expect("readable");
    fs::write(files.path("both.pem"), key + &chain).expect("written");
    let mut options = files.options(ClientVerify::None);
    options.chain_cert = files.path("both.pem");
    options.key = files.path("both.pem");
    assert!(server_config(&options).is_ok());
}

#[test]
fn faults_name_the_option_and_the_file() {
    let files = Files::new();
    fs::write(files.path("empty.pem"), "").expect("written");
    fs::write(files.path("torn.pem"), "-----BEGIN CERTIFICATE-----\nMII").expect("written");
    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = files.options(ClientVerify::Require);
        change(&mut options);
        server_config(&options).expect_err("a fault").to_string()
    };
    for (error, option, why) in [
        (with(&|o| o.chain_cert = "/nowhere.pem".into()), "ssl_chain_cert=/nowhere.pem: ", "No such file"),
        (with(&|o| o.chain_cert = files.path("empty.pem")), "ssl_chain_cert=", "has no certificate"),
        (with(&|o| o.chain_cert = files.path("torn.pem")), "ssl_chain_cert=", "is not PEM"),
        (with(&|o| o.key = "/nowhere.key".into()), "ssl_key=/nowhere.key: ", "No such file"),
        (with(&|o| o.key = files.path("ca.pem")), "ssl_key=", "has no private key"),
        (with(&|o| o.key = files.path("client.key")), "ssl_chain_cert=", "client.key: "),
        (with(&|o| o.ca_cert = Some(files.path("empty.pem"))), "ssl_ca_cert=", "has no certificate"),
        (with(&|o| o.ca_cert = None), "ssl_verify_mode", "need ssl_ca_cert"),
    ] {
        assert!(error.starts_with(option) && error.contains(why), "{option}: {error}");
    }
}

//! How nodes are let in by etcd.

use filbert::cluster::MemberStatus;
use filbert::cluster::etcd::{Options, Password};
use tempfile::TempDir;

use crate::membership::node::{Network, Node, await_agreement, options};
use crate::support::etcd::{Etcd, Tls};

#[test]
fn a_user_and_password_are_shown_to_etcd() {
    let (etcd, network) = (Etcd::start(), Network::default());
    etcd.ctl(&["user", "add", "root:secret"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["auth", "enable"]);
    let with = |password: &str, id: &str| Options {
        user: Some("root".to_owned()),
        password: Some(Password(password.to_owned())),
        ..options(&etcd.endpoint(), id)
    };
    let wrong = Node::start(with("wrong", "a"), &network);
    let right = Node::start(with("secret", "b"), &network);
    await_agreement(&[right], &["b"]);
    assert_eq!(wrong.state().standing, MemberStatus::Joining);
}

#[test]
fn etcd_is_reached_through_mutual_tls() {
    let dir = TempDir::new().unwrap();
    let tls = certificates(&dir);
    let (etcd, network) = (Etcd::start_with(tls.clone()), Network::default());
    let with = |id: &str| Options {
        ca: Some(tls.ca.clone().into()),
        cert: Some(tls.cert.clone().into()),
        key: Some(tls.key.clone().into()),
        ..options(&etcd.endpoint(), id)
    };
    let stranger = Node::start(Options { cert: None, key: None, ..with("a") }, &network);
    let known = Node::start(with("b"), &network);
    await_agreement(&[known], &["b"]);
    assert_eq!(stranger.state().standing, MemberStatus::Joining);
}

/// An authority, and one certificate that serves both sides.
fn certificates(dir: &TempDir) -> Tls {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    let write = |name: &str, pem: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).expect("the directory is writable");
        path.to_str().expect("the path is text").to_owned()
    };
    let authority_key = KeyPair::generate().expect("rcgen makes it");
    let mut params = CertificateParams::new(Vec::new()).expect("rcgen makes it");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).expect("rcgen makes it");
    let issuer = Issuer::new(params, authority_key);

    let key = KeyPair::generate().expect("rcgen makes it");
    let mut params =
        CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("rcgen makes it");
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer).expect("rcgen makes it");
    Tls {
        ca: write("ca.pem", authority.pem()),
        cert: write("cert.pem", certificate.pem()),
        key: write("key.pem", key.serialize_pem()),
    }
}

//! Over real connections on the loopback, in real time.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::Code;

use super::*;
use crate::cluster::etcd;
use crate::cluster::failure_detector::FailureDetector as _;
use crate::cluster::view::View;
use crate::cluster::{Hooks, Membership};
use crate::pb::peer_client::PeerClient;
use crate::peer::grpc::Grpc;
use crate::peer::options::Tls;
use crate::peer::pings::Pings;
use crate::server::peer::{PeerHandler, Service};
use crate::testkit::membership::Script;

/// Real time is less exact; nothing here takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct NoHooks;

impl Hooks for NoHooks {
    fn forget(&self) {}
}

#[derive(Default)]
struct Flushed(Mutex<Vec<u32>>);

impl PeerHandler for Flushed {
    fn stats(&self) -> Vec<(String, String)> {
        vec![("flushes".to_owned(), self.0.lock().len().to_string())]
    }

    fn flush(&self, delay_seconds: u32) {
        self.0.lock().push(delay_seconds);
    }
}

/// A node that is called, and pings.
struct Site {
    owner: Arc<Owner>,
    script: Script,
    membership: Membership,
    pings: Arc<Pings>,
    flushed: Arc<Flushed>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Site {
    async fn start(id: &str, tls: Option<Tls>) -> Self {
        Self::start_with(id, tls, Duration::from_secs(4)).await
    }

    async fn start_with(id: &str, tls: Option<Tls>, lease_ttl: Duration) -> Self {
        let options = options(tls);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let SocketAddr::V4(addr) = listener.local_addr().expect("bound") else { panic!("not IPv4") };
        // By its name, which the certificates carry.
        let (script, membership) =
            Script::new(member(id, &format!("localhost:{}", addr.port())), Arc::new(NoHooks));
        let etcd = etcd::Options {
            cluster: "test".to_owned(),
            node_id: id.to_owned(),
            lease_ttl,
            ..etcd::Options::default()
        };
        let pings = Pings::new(&etcd, &options);
        let (owner, flushed) = (Owner::new(), Arc::new(Flushed::default()));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (sockets, inbox) = mpsc::channel(4);
        let service = Service::of(flushed.clone(), &membership, &pings, 1_000);
        let guests = service.guests().clone();
        tasks.spawn(service.serve(owner.clone(), inbox, stop.clone()));
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((socket, from)) = listener.accept().await {
                let socket = socket.into_std().expect("a socket");
                let arrival = guests.admit(socket, from.ip()).expect("there is room");
                sockets.send(arrival).await.expect("served");
            }
        }));
        pings.start(membership.clone(), &tasks, stop.clone());
        Self { owner, script, membership, pings, flushed, tasks, stop }
    }

    fn caller(&self, tls: Option<Tls>) -> Caller {
        let options = options(tls);
        let transport = Arc::new(Grpc::new(Arc::new(options.clone())));
        Caller::new(transport, options, self.script.me())
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("the site's tasks end");
    }
}

fn options(tls: Option<Tls>) -> Options {
    // Long, because these tests may run on a machine that is busy.
    Options { tls, connect_timeout: PATIENCE, operation_timeout: PATIENCE, ..Options::default() }
}

fn view(sites: &[&Site]) -> View {
    let members = sites.iter().map(|site| site.script.me()).map(|me| (me.id.clone(), me));
    View { members: BTreeMap::from_iter(members), ..View::default() }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waits = async {
        while !condition() {
            sleep(MS).await;
        }
    };
    timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// An operation that may take its time.
fn patient(caller: &Caller, key: impl Into<Bytes>, value: Bytes) -> Awaited {
    let (op, awaited) = op_of(set_of(&value), key, 1, Instant::now() + PATIENCE);
    caller.link().send(op);
    awaited
}

#[tokio::test]
async fn operations_go_over_grpc() {
    let site = Site::start("b", None).await;
    let caller = site.caller(None);
    let keys: Vec<_> = (0..20_000).map(|number| Bytes::from(number.to_string())).collect();
    for some in keys.chunks(5_000) {
        let awaited: Vec<_> =
            some.iter().map(|key| patient(&caller, key.clone(), Bytes::from_static(b"v"))).collect();
        for each in awaited {
            assert_eq!(each.await_outcome().await, Ok(Kind::Deleted));
        }
    }
    assert_eq!(site.owner.keys(), keys);
    let stats = caller.link().stats();
    assert!(stats.batches.load(Ordering::Relaxed) < 200, "{stats:?}");

    let large = patient(&caller, "large", vec![7; 32 << 20].into());
    let small = patient(&caller, "small", Bytes::new());
    assert_eq!(large.await_outcome().await, Ok(Kind::Deleted));
    assert_eq!(small.await_outcome().await, Ok(Kind::Deleted));
    assert_eq!(stats.streams.load(Ordering::Relaxed), 1);
    site.end().await;
}

#[tokio::test]
async fn a_stop_answers_what_has_come_and_ends_streams() {
    let site = Site::start("b", None).await;
    let caller = site.caller(None);
    assert!(patient(&caller, "first", Bytes::new()).await_outcome().await.is_ok());
    *site.owner.thinks.lock() = MS * 200;
    let awaited = patient(&caller, "k", Bytes::new());
    until("it has come", || site.owner.arrived.load(Ordering::Relaxed) == 2).await;
    site.end().await;
    assert!(awaited.await_outcome().await.is_ok());
}

#[tokio::test]
async fn members_ping_each_other_and_tell_newer_views() {
    let (a, b) = (Site::start("a", None).await, Site::start("b", None).await);
    let (first, second) = (view(&[&a, &b]), view(&[&a, &b]));
    a.script.push(1, first.clone());
    b.script.push(1, first);
    let (me, other) = (a.script.me(), b.script.me());
    let heard = a.pings.contact(&other);
    until("b answers", || a.pings.contact(&other).answered > heard.answered).await;
    until("b reaches a", || a.pings.contact(&other).granted > heard.granted).await;
    until("a reaches b", || b.pings.contact(&me).granted > heard.granted).await;
    until("b is reached", || a.pings.reaches("b")).await;
    assert!(!a.pings.reaches("c"));

    b.script.push(2, second);
    until("a learns the view", || a.membership.state().epoch == 2).await;
    until("a is known to have it", || b.pings.contact(&me).epoch == 2).await;

    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn members_with_another_lease_are_reached_but_not_granted() {
    let a = Site::start("a", None).await;
    let b = Site::start_with("b", None, Duration::from_secs(5)).await;
    let view = view(&[&a, &b]);
    a.script.push(1, view.clone());
    b.script.push(1, view);
    let (me, other) = (a.script.me(), b.script.me());
    // The second answer is to a ping sent after the first had shown that both directions work.
    for (from, to) in [(&a, &other), (&b, &me)] {
        until("they reach each other", || from.pings.reaches(&to.id)).await;
    }
    for _ in 0..2 {
        let last = a.pings.contact(&other).answered;
        until("b answers again", || a.pings.contact(&other).answered > last).await;
        let last = b.pings.contact(&me).answered;
        until("a answers again", || b.pings.contact(&me).answered > last).await;
    }
    assert_eq!((a.pings.contact(&other).granted, b.pings.contact(&me).granted), (None, None));
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn another_process_at_an_address_is_not_the_member() {
    let (a, b, c) =
        (Site::start("a", None).await, Site::start("b", None).await, Site::start("c", None).await);
    let mut view = view(&[&a, &b, &c]);
    let earlier = Member { incarnation: 1, ..c.script.me() };
    view.members.insert("c".to_owned(), earlier.clone());
    a.script.push(1, view);
    let (b_then, c_then) = (a.pings.contact(&b.script.me()), a.pings.contact(&earlier));
    // Both are pinged at the same times; the second answer of b comes after the first of c.
    let mut last = b_then.answered;
    for _ in 0..2 {
        until("b answers", || a.pings.contact(&b.script.me()).answered > last).await;
        last = a.pings.contact(&b.script.me()).answered;
    }
    assert_eq!(a.pings.contact(&earlier), c_then);
    until("b is reached", || a.pings.reaches("b")).await;
    assert!(!a.pings.reaches("c"));
    for site in [a, b, c] {
        site.end().await;
    }
}

#[tokio::test]
async fn calls_reach_every_member() {
    let (a, b) = (Site::start("a", None).await, Site::start("b", None).await);
    let both = view(&[&a, &b]);
    a.script.push(1, both.clone());
    b.script.push(1, both);
    until("b is connected", || a.pings.reaches("b")).await;
    assert_eq!(a.pings.flush(9, PATIENCE).await, Vec::<String>::new());
    assert_eq!((&*a.flushed.0.lock(), &*b.flushed.0.lock()), (&vec![9], &vec![9]));
    let stats = a.pings.stats(PATIENCE).await;
    let stat = pb::Stat { name: "flushes".to_owned(), value: "1".to_owned() };
    assert_eq!(stats, ["a", "b"].map(|id| (id.to_owned(), Some(vec![stat.clone()]))));

    b.end().await;
    assert_eq!(a.pings.flush(5, PATIENCE).await, ["b"]);
    assert_eq!(*a.flushed.0.lock(), [9, 5]);
    a.end().await;
}

/// Writes an authority's certificate and a node's, which is for `localhost`, and one for another host.
fn certificates(folder: &Path, name: &str) -> Tls {
    let mut params = CertificateParams::new([]).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("signed");
    let path = |kind: &str| folder.join(format!("{name}.{kind}"));
    std::fs::write(path("ca"), authority.pem()).expect("written");
    for (host, kind) in [("localhost", ""), ("elsewhere.example", "foreign-")] {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([host.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &authority).expect("signed");
        std::fs::write(path(&format!("{kind}cert")), certificate.pem()).expect("written");
        std::fs::write(path(&format!("{kind}key")), key.serialize_pem()).expect("written");
    }
    Tls { cert: path("cert"), key: path("key"), ca: path("ca") }
}

#[tokio::test]
async fn peers_show_each_other_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates(folder.path(), "cluster");
    let site = Site::start("b", Some(tls.clone())).await;
    // A caller is known by the host that its certificate must carry.
    let known = Member { peer_addr: "localhost:1".to_owned(), ..member("a", "") };
    site.script.push(1, View { members: [("a".to_owned(), known)].into(), ..View::default() });
    let caller = site.caller(Some(tls.clone()));
    assert!(patient(&caller, "k", Bytes::new()).await_outcome().await.is_ok());

    // One whom the site does not believe, one who does not believe the site, one whose certificate is
    // for another host than it is reached at, and one without.
    let stranger = certificates(folder.path(), "stranger");
    let unbelieved = Tls { ca: tls.ca.clone(), ..stranger.clone() };
    let unbelieving = Tls { ca: stranger.ca.clone(), ..tls.clone() };
    let foreign = foreign(folder.path(), &tls);
    for wrong in [Some(unbelieved), Some(unbelieving), Some(foreign), None] {
        let caller = site.caller(wrong);
        let stats = caller.link().stats().clone();
        until("it gives up", || stats.open.load(Ordering::Relaxed)).await;
        assert_eq!(stats.streams.load(Ordering::Relaxed), 0);
    }
    assert_eq!(site.owner.keys(), ["k"]);

    let broken = Tls { key: folder.path().join("none"), ..tls };
    let error = crate::peer::tls::server(&broken).expect_err("no key").to_string();
    assert!(error.starts_with("--peer-key ") && error.contains("none: "), "{error}");
    site.end().await;
}

/// Of the same authority, for another host.
fn foreign(folder: &Path, tls: &Tls) -> Tls {
    let path = |kind: &str| folder.join(format!("cluster.foreign-{kind}"));
    Tls { cert: path("cert"), key: path("key"), ca: tls.ca.clone() }
}

#[tokio::test]
async fn a_certificate_is_that_of_who_calls() {
    let folder = tempfile::tempdir().expect("a folder");
    let tls = certificates(folder.path(), "cluster");
    let site = Site::start("b", Some(tls.clone())).await;
    let known = Member { peer_addr: "localhost:1".to_owned(), ..member("a", "") };
    site.script.push(1, View { members: [("a".to_owned(), known)].into(), ..View::default() });
    let foreign = foreign(folder.path(), &tls);
    for (tls, from, pings, views) in [
        (&tls, "a", Ok(()), Ok(())),
        (&foreign, "a", Err(Code::PermissionDenied), Err(Code::PermissionDenied)),
        // It may have been put out long ago.
        (&tls, "nobody", Ok(()), Err(Code::PermissionDenied)),
    ] {
        let grpc = Grpc::new(Arc::new(options(Some(tls.clone()))));
        let channel = grpc.connect(&site.script.me()).await.expect("it belongs to the authority");
        let mut client = PeerClient::new(channel);
        let call = Some(pb::Call { from: from.to_owned(), ..identity("a").call("b") });
        let ping = client.ping(pb::PingRequest { call: call.clone(), lease_millis: 1 }).await;
        assert_eq!(ping.map(|_| ()).map_err(|status| status.code()), pings, "{from}");
        let view = client.view(pb::ViewRequest { call: call.clone() }).await;
        assert_eq!(view.map(|_| ()).map_err(|status| status.code()), views, "{from}");
        let stats = client.stats(pb::StatsRequest { call: call.clone() }).await;
        assert_eq!(stats.map(|_| ()).map_err(|status| status.code()), views, "{from}");
        let flush = client.flush(pb::FlushRequest { call, delay_seconds: 1 }).await;
        assert_eq!(flush.map(|_| ()).map_err(|status| status.code()), views, "{from}");
    }
    assert_eq!(*site.flushed.0.lock(), [1], "once");
    site.end().await;
}

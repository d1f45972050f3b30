//! Nodes that find each other through a real etcd, lose it, lose each other, and agree again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use filbert::cluster::etcd::{self, Options, Password};
use filbert::cluster::{Hooks, Membership, Reachability, Standing, State};
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::etcd::{Etcd, Tls, free_port};
use crate::support::proxy::Proxy;
use crate::support::server::{always, eventually};

const TTL: Duration = Duration::from_secs(1);

/// Who reaches whom.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<BTreeSet<String>>>);

impl Network {
    /// Nobody reaches this node, and it reaches nobody.
    fn cut(&self, id: &str) {
        self.0.lock().insert(id.to_owned());
    }

    fn heal(&self, id: &str) {
        self.0.lock().remove(id);
    }
}

struct Reach {
    me: String,
    network: Network,
}

impl Reachability for Reach {
    fn reachable(&self, id: &str) -> bool {
        let cut = self.network.0.lock();
        !cut.contains(id) && !cut.contains(&self.me)
    }
}

/// Sees that nothing is skipped, and that everything is forgotten before a node serves.
#[derive(Default)]
struct Recorder {
    forgotten: AtomicUsize,
}

impl Hooks for Recorder {
    fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }

    fn change(&self, before: &State, after: &State) {
        assert!(after.epoch > before.epoch);
        if after.standing == Standing::Serving {
            assert!(self.forgotten.load(Ordering::SeqCst) > 0, "served before it forgot");
        }
    }
}

/// A node with threads of its own, so that stopping it is as sudden as a kill.
struct Node {
    membership: Membership,
    recorder: Arc<Recorder>,
    network: Network,
    id: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    fn start(options: Options, network: &Network) -> Node {
        network.heal(&options.node_id);
        let id = options.node_id.clone();
        let recorder = Arc::new(Recorder::default());
        let reach = Arc::new(Reach { me: id.clone(), network: network.clone() });
        let stop = CancellationToken::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn({
            let (stop, recorder) = (stop.clone(), Arc::clone(&recorder));
            move || {
                block_on(async {
                    let tracker = TaskTracker::new();
                    let membership = etcd::join(options, recorder, reach, &tracker, stop);
                    sender.send(membership.expect("the options are good")).expect("the test waits for it");
                    tracker.close();
                    tracker.wait().await;
                });
            }
        });
        let membership = receiver.recv().expect("the thread sends it");
        Node { membership, recorder, network: network.clone(), id, stop, thread: Some(thread) }
    }

    fn state(&self) -> Arc<State> {
        self.membership.state()
    }

    fn serves(&self) -> bool {
        self.membership.serves()
    }

    fn forgotten(&self) -> usize {
        self.recorder.forgotten.load(Ordering::SeqCst)
    }

    /// Is gone at once, without a word.
    fn vanish(mut self) {
        self.network.cut(&self.id);
        self.end();
    }

    fn end(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in there was shown already, and fails the test by what it waits for.
            let _ = thread.join();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}

fn options(endpoint: &str, id: &str) -> Options {
    Options {
        cluster: "test".to_owned(),
        endpoints: vec![endpoint.to_owned()],
        node_id: id.to_owned(),
        peer_addr: format!("{id}:11212"),
        memcached_addr: format!("{id}:11211"),
        lease_ttl: TTL,
        call_timeout: Duration::from_millis(300),
        forsake_after: Duration::from_secs(600),
        ..Options::default()
    }
}

fn start(etcd: &Etcd, network: &Network, ids: &[&str]) -> Vec<Node> {
    let nodes: Vec<_> = ids.iter().map(|id| Node::start(options(&etcd.endpoint(), id), network)).collect();
    await_agreement(&nodes, ids);
    nodes
}

/// Waits until all nodes serve in one view of exactly these members, and all know that all do.
fn await_agreement(nodes: &[Node], ids: &[&str]) {
    eventually(&format!("the nodes agree on {ids:?}"), || agree(nodes, ids));
}

fn agree(nodes: &[Node], ids: &[&str]) -> bool {
    let states: Vec<_> = nodes.iter().map(Node::state).collect();
    nodes.iter().all(Node::serves)
        && states.iter().all(|state| {
            state.epoch == states[0].epoch
                && state.owners.digest() == states[0].owners.digest()
                && state.view == states[0].view
                && state.view.members.keys().eq(ids)
                && state.is_settled()
        })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built")
        .block_on(future)
}

fn registered(etcd: &Etcd) -> usize {
    etcd.ctl(&["get", "--prefix", "--keys-only", "/filbert/test/members/"]).split_whitespace().count()
}

#[test]
fn nodes_join_and_agree() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;

    let changed = Instant::now();
    nodes.push(Node::start(options(&etcd.endpoint(), "d"), &network));
    await_agreement(&nodes, &["a", "b", "c", "d"]);
    assert!(changed.elapsed() < Duration::from_secs(1), "took {:?}", changed.elapsed());
    let state = nodes[0].state();
    assert_eq!(state.epoch, epoch + 1);
    assert_eq!(state.view.previous, ["a", "b", "c"]);
    assert!(nodes.iter().all(|node| node.forgotten() == 1), "only at its start");
}

#[test]
fn a_vanished_node_is_removed() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let vanished = Instant::now();
    nodes.pop().unwrap().vanish();
    await_agreement(&nodes, &["a", "b"]);
    assert!(vanished.elapsed() < TTL * 4, "took {:?}", vanished.elapsed());

    nodes.pop().unwrap().vanish();
    await_agreement(&nodes, &["a"]);
    assert!(nodes.iter().all(|node| node.forgotten() == 1), "who stays forgets nothing");
}

#[test]
fn a_stopped_etcd_changes_nothing() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let same = || nodes.iter().all(|node| node.serves() && node.state().epoch == epoch);

    etcd.signal(Signal::SIGSTOP);
    always("the last view stays, and everybody serves", TTL * 4, same);
    etcd.signal(Signal::SIGCONT);
    always("nothing flaps afterwards", TTL * 4, same);
    eventually("all are registered again", || registered(&etcd) == 3);
    assert!(same() && agree(&nodes, &["a", "b", "c"]));
}

#[test]
fn a_killed_etcd_changes_nothing() {
    let (mut etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let same = |nodes: &[Node]| nodes.iter().all(|node| node.serves() && node.state().epoch == epoch);

    etcd.kill();
    always("the last view stays, and everybody serves", TTL * 4, || same(&nodes));
    etcd.restart();
    always("nothing flaps afterwards", TTL * 4, || same(&nodes));
    eventually("all are registered again", || registered(&etcd) == 3);

    nodes.push(Node::start(options(&etcd.endpoint(), "d"), &network));
    await_agreement(&nodes, &["a", "b", "c", "d"]);
}

#[test]
fn losing_all_leases_at_once_removes_nobody() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    let leases = etcd.ctl(&["lease", "list"]);
    for lease in leases.lines().filter(|line| line.chars().all(|c| c.is_ascii_hexdigit()) && !line.is_empty())
    {
        etcd.ctl(&["lease", "revoke", lease]);
    }
    always("everybody serves in the same view", TTL * 3, || {
        nodes.iter().all(|node| node.serves() && node.state().epoch == epoch)
    });
    eventually("all are registered again", || registered(&etcd) == 3);
    await_agreement(&nodes, &["a", "b", "c"]);
}

#[test]
fn a_node_without_etcd_serves_while_it_reaches_most() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let proxy = Proxy::start(etcd.endpoint());
    nodes.push(Node::start(options(&proxy.endpoint(), "c"), &network));
    await_agreement(&nodes, &["a", "b", "c"]);
    let before = nodes[2].state();

    proxy.cut();
    eventually("its lease runs out", || registered(&etcd) == 2);
    always("it serves, and nobody removes it", TTL * 3, || {
        nodes.iter().all(|node| node.serves() && node.state().epoch == before.epoch)
    });

    network.cut("c");
    eventually("it is fenced", || nodes[2].state().standing == Standing::Fenced);
    assert!(!nodes[2].serves());
    assert_eq!(nodes[0].state().epoch, before.epoch, "it is fenced before it is removed");
    await_agreement(&nodes[..2], &["a", "b"]);
    assert_eq!(nodes[2].state().standing, Standing::Fenced);
    assert_eq!(nodes[2].forgotten(), 1);

    proxy.heal();
    network.heal("c");
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(nodes[2].state().incarnation > before.incarnation);
    assert_eq!(nodes[2].forgotten(), 3, "when it was removed, and when it joined again");
    assert!(nodes[..2].iter().all(|node| node.forgotten() == 1));
}

#[test]
fn a_lease_does_not_save_a_node_that_most_cannot_reach() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    network.cut("c");
    await_agreement(&nodes[..2], &["a", "b"]);
    eventually("it knows", || nodes[2].state().standing == Standing::Fenced);
    network.heal("c");
    await_agreement(&nodes, &["a", "b", "c"]);
}

#[test]
fn the_last_node_goes_on_when_most_are_lost_for_long() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let start =
        |id| Node::start(Options { forsake_after: TTL * 4, ..options(&etcd.endpoint(), id) }, &network);
    let mut nodes: Vec<_> = ["a", "b", "c"].into_iter().map(start).collect();
    await_agreement(&nodes, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    nodes.drain(1..).for_each(Node::vanish);
    always("one of three decides nothing yet", TTL * 3, || nodes[0].state().epoch == epoch);
    await_agreement(&nodes, &["a"]);
    assert_eq!(nodes[0].state().epoch, epoch + 2, "never more than half at once");
}

#[test]
fn a_restarted_node_replaces_itself_at_once() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let before = nodes[2].state();
    nodes.pop().unwrap().vanish();
    let restarted = Instant::now();
    nodes.push(Node::start(options(&etcd.endpoint(), "c"), &network));
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(restarted.elapsed() < TTL, "took {:?}", restarted.elapsed());
    let after = nodes[2].state();
    assert!(after.incarnation > before.incarnation);
    assert_eq!(after.epoch, before.epoch + 1);
}

#[test]
fn all_nodes_restart_at_once() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    nodes.into_iter().for_each(Node::vanish);
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    assert!(nodes[0].state().epoch > epoch);
}

#[test]
fn a_second_process_with_the_same_id_stays_out() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let elsewhere = Options { peer_addr: "elsewhere:11212".to_owned(), ..options(&etcd.endpoint(), "b") };
    let second = Node::start(elsewhere, &network);
    eventually("it sees the view", || second.state().epoch > 0);
    always("the first one stays", TTL * 2, || {
        second.state().standing == Standing::Joining && agree(&nodes, &["a", "b"])
    });
    nodes.pop().unwrap().end();
    nodes.push(second);
    await_agreement(&nodes, &["a", "b"]);
}

#[test]
fn a_successor_at_the_same_address_displaces_a_process() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let first = nodes.pop().unwrap();
    nodes.push(Node::start(options(&etcd.endpoint(), "b"), &network));
    await_agreement(&nodes, &["a", "b"]);
    eventually("the first one knows", || first.state().standing == Standing::Fenced);
    always("they do not take turns", TTL * 2, || !first.serves() && agree(&nodes, &["a", "b"]));
}

#[test]
fn a_leaving_node_is_out_at_once() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b", "c"]);
    let leaving = nodes.pop().unwrap();
    block_on(leaving.membership.leave(Duration::from_secs(5))).unwrap();
    assert_eq!(leaving.state().standing, Standing::Leaving);
    await_agreement(&nodes, &["a", "b"]);
    eventually("it hears of the view without it", || !leaving.state().is_member());
    assert_eq!(leaving.forgotten(), 1, "it still has what it may hand over");
    nodes.pop().unwrap().vanish();
    await_agreement(&nodes, &["a"]);
    eventually("it hears of later views", || leaving.state().view.members.len() == 1);
    block_on(leaving.membership.leave(Duration::from_secs(5))).unwrap();
}

#[test]
fn the_last_one_to_leave_empties_the_view() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a"]);
    block_on(nodes[0].membership.leave(Duration::from_secs(5))).unwrap();
    eventually("the view is empty", || nodes[0].state().view.members.is_empty());
    drop(nodes);
    start(&etcd, &network, &["b"]);
}

#[test]
fn leaving_without_etcd_says_so() {
    let (mut etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b"]);
    etcd.kill();
    let left = block_on(nodes[1].membership.leave(Duration::from_millis(300)));
    assert!(left.is_err());
    eventually("it does not serve any more", || nodes[1].state().standing == Standing::Leaving);
    etcd.restart();
    await_agreement(&nodes[..1], &["a"]);
}

#[test]
fn a_flush_generation_is_confirmed_by_all() {
    let (mut etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let raise = |node: &Node| block_on(node.membership.raise_flush_generation());
    assert_eq!(raise(&nodes[0]).unwrap(), 1);
    assert_eq!(raise(&nodes[2]).unwrap(), 2);
    await_agreement(&nodes, &["a", "b", "c"]);
    assert_eq!(nodes[1].state().view.flush_generation, 2);
    etcd.kill();
    assert!(raise(&nodes[0]).is_err());
    assert_eq!(nodes[1].state().view.flush_generation, 2);
}

#[test]
fn epochs_go_on_when_the_view_is_deleted() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let nodes = start(&etcd, &network, &["a", "b", "c"]);
    let epoch = nodes[0].state().epoch;
    etcd.ctl(&["del", "/filbert/test/view"]);
    eventually("the view is there again", || nodes.iter().all(|node| node.state().epoch > epoch));
    await_agreement(&nodes, &["a", "b", "c"]);
    etcd.ctl(&["put", "/filbert/test/view", "nonsense"]);
    eventually("the view is there again", || nodes.iter().all(|node| node.state().epoch > epoch + 1));
    await_agreement(&nodes, &["a", "b", "c"]);
    assert!(nodes.iter().all(|node| node.forgotten() == 1));
}

#[test]
fn a_node_waits_for_its_etcd_and_tries_every_endpoint() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let proxy = Proxy::start(etcd.endpoint());
    proxy.cut();
    let dead = format!("127.0.0.1:{}", free_port());
    let endpoints = vec![dead, proxy.endpoint()];
    let node = Node::start(Options { endpoints, ..options("", "a") }, &network);
    always("it stays outside", TTL, || node.state().standing == Standing::Joining && !node.serves());
    proxy.heal();
    await_agreement(&[node], &["a"]);
}

#[test]
fn a_compacted_history_is_read_anew() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let proxy = Proxy::start(etcd.endpoint());
    nodes.push(Node::start(options(&proxy.endpoint(), "c"), &network));
    await_agreement(&nodes, &["a", "b", "c"]);

    proxy.cut();
    for _ in 0..3 {
        block_on(nodes[0].membership.raise_flush_generation()).unwrap();
    }
    proxy.heal();
    await_agreement(&nodes, &["a", "b", "c"]);
    assert_eq!(nodes[2].forgotten(), 1, "what it missed was in etcd's history");

    proxy.cut();
    for _ in 0..3 {
        block_on(nodes[0].membership.raise_flush_generation()).unwrap();
    }
    let json = etcd.ctl(&["get", "/filbert/test/view", "--write-out", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    etcd.ctl(&["compact", &json["header"]["revision"].to_string()]);
    proxy.heal();
    await_agreement(&nodes, &["a", "b", "c"]);
    assert_eq!(nodes[2].forgotten(), 2, "what it missed is not known");
}

#[test]
fn a_node_without_etcd_learns_from_its_peers() {
    let (etcd, network) = (Etcd::start(), Network::default());
    let mut nodes = start(&etcd, &network, &["a", "b"]);
    let proxy = Proxy::start(etcd.endpoint());
    nodes.push(Node::start(options(&proxy.endpoint(), "c"), &network));
    await_agreement(&nodes, &["a", "b", "c"]);
    proxy.cut();
    nodes.push(Node::start(options(&etcd.endpoint(), "d"), &network));
    eventually("d has joined", || nodes[3].serves());
    let news = nodes[3].state();
    assert!(!news.is_settled(), "c may act on the view before");
    nodes[2].membership.learn(news.epoch, news.view.as_ref().clone());
    eventually("it is told", || nodes[2].state().epoch == news.epoch);
    assert!(nodes[2].serves() && nodes[2].forgotten() == 1);
    proxy.heal();
    await_agreement(&nodes, &["a", "b", "c", "d"]);
    assert_eq!(nodes[2].forgotten(), 1);
}

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
    assert_eq!(wrong.state().standing, Standing::Joining);
}

#[test]
fn etcd_is_reached_through_mutual_tls() {
    let dir = TempDir::new().unwrap();
    let tls = certificates(&dir);
    let (etcd, network) = (Etcd::start_with(Some(tls.clone())), Network::default());
    let with = |id: &str| Options {
        ca: Some(tls.ca.clone().into()),
        cert: Some(tls.cert.clone().into()),
        key: Some(tls.key.clone().into()),
        ..options(&etcd.endpoint(), id)
    };
    let stranger = Node::start(Options { cert: None, key: None, ..with("a") }, &network);
    let known = Node::start(with("b"), &network);
    await_agreement(&[known], &["b"]);
    assert_eq!(stranger.state().standing, Standing::Joining);
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

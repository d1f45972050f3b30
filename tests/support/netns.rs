//! Networks of our own, in network namespaces, that can be cut between any two hosts and in one direction only.
//!
//! A network is a router and hosts behind it, each host with its own link; the test's clients sit at the router. A cut
//! is a rule of the router that drops what one host sends to another: nobody is told, as when a cable is pulled. The
//! namespaces have no names. They are held by open files, and so they end with the test, however it ends.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::child::{is_root, program};
use super::site::Site;

/// The rules of a cut stand before those of the main table.
const PRIORITY: u32 = 100;

/// A network namespace, alive as long as a handle or a process in it.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// Makes one, with nothing in it.
    ///
    /// # Panics
    ///
    /// When not root.
    fn new() -> Namespace {
        assert!(is_root(), "network namespaces need root: run the tests of cuts as root (sudo)");
        // A thread's namespace is its own.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
        });
        Namespace(Arc::new(made.join().expect("the thread does not panic")))
    }

    /// Runs `f` in a thread within the namespace; the sockets it opens stay there.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let run = scope.spawn(|| {
                setns(&*self.0, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
                f()
            });
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A path that stands for it as long as this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    /// Runs lines such as `link set lo up`, each as arguments of `ip`.
    fn ip(&self, lines: &str) {
        self.within(|| {
            let mut child = Command::new(program("ip", "iproute2"))
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("ip starts");
            let mut stdin = child.stdin.take().expect("it is a pipe");
            stdin.write_all(lines.as_bytes()).expect("ip reads its lines");
            drop(stdin);
            let output = child.wait_with_output().expect("ip can be waited for");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "ip: {stderr}\n{lines}");
        });
    }
}

/// A router with hosts, numbered from 0.
pub struct Network {
    router: Namespace,
    hosts: Vec<Namespace>,
    /// The pairs that are cut: the first host cannot send to the second.
    cuts: Vec<(usize, usize)>,
}

impl Network {
    /// Makes a network with this number of hosts, 60 at most.
    ///
    /// # Panics
    ///
    /// When not root.
    pub fn new(hosts: usize) -> Network {
        assert!(hosts <= 60, "the addresses of one network of 256");
        let router = Namespace::new();
        router.ip("link set lo up");
        router.within(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("it is the namespace's own");
        let hosts = (0..hosts).map(|host| add_host(&router, host)).collect();
        Network { router, hosts, cuts: Vec::new() }
    }

    /// Where processes run that belong to a host.
    pub fn site(&self, host: usize) -> Site {
        Site::apart(address(host), self.hosts[host].clone(), self.router.clone())
    }

    /// From now on, what `from` sends does not reach `to`.
    pub fn cut(&mut self, from: usize, to: usize) {
        if from != to && !self.cuts.contains(&(from, to)) {
            self.cuts.push((from, to));
            self.router.ip(&rule("add", from, to));
        }
    }

    /// Lets everything through again.
    pub fn heal(&mut self) {
        for (from, to) in std::mem::take(&mut self.cuts) {
            self.router.ip(&rule("del", from, to));
        }
    }
}

/// The address of a host: the second of a net of four, whose first is the router's.
fn address(host: usize) -> Ipv4Addr {
    // RFC 5737: for documentation, so nobody's.
    Ipv4Addr::new(192, 0, 2, u8::try_from(host * 4 + 6).expect("60 hosts at most"))
}

fn add_host(router: &Namespace, host: usize) -> Namespace {
    let namespace = Namespace::new();
    let address = address(host);
    let gateway = Ipv4Addr::from_bits(address.to_bits() - 1);
    router.ip(&format!(
        "link add host{host} type veth peer name eth0 netns {path}\n\
         addr add {gateway}/30 dev host{host}\n\
         link set host{host} up\n",
        path = namespace.path()
    ));
    namespace.ip(&format!(
        "link set lo up\n\
         addr add {address}/30 dev eth0\n\
         link set eth0 up\n\
         route add default via {gateway}\n"
    ));
    namespace
}

fn rule(verb: &str, from: usize, to: usize) -> String {
    format!("rule {verb} priority {PRIORITY} from {} to {} blackhole\n", address(from), address(to))
}

mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// Nothing that is lost arrives; what is not lost may take its time on a busy machine.
    const LOST: Duration = Duration::from_millis(300);
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A connection from one host to another.
    fn connected(from: &Site, to: &Site) -> (TcpStream, TcpStream) {
        let listener = to.within(|| TcpListener::bind((to.ip, 0))).expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let client = from.within(|| TcpStream::connect(addr)).expect("nothing is cut yet");
        (client, listener.accept().expect("it connected").0)
    }

    fn passes(from: &mut TcpStream, to: &mut TcpStream, patience: Duration) -> bool {
        to.set_read_timeout(Some(patience)).expect("a deadline that is not zero");
        from.write_all(b"x").expect("the kernel takes it");
        match to.read(&mut [0; 16]) {
            Ok(len) => len > 0,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn a_network_is_cut_in_one_direction_and_healed() {
        let mut network = Network::new(3);
        let (near, far, other) = (network.site(0), network.site(1), network.site(2));
        let (mut a, mut b) = connected(&near, &far);
        let (mut c, mut d) = connected(&near, &other);
        assert!(passes(&mut a, &mut b, PATIENCE) && passes(&mut b, &mut a, PATIENCE));

        network.cut(0, 1);
        assert!(!passes(&mut a, &mut b, LOST), "cut");
        assert!(passes(&mut c, &mut d, PATIENCE) && passes(&mut d, &mut c, PATIENCE), "another host");
        network.heal();
        b.set_read_timeout(Some(PATIENCE)).expect("a deadline that is not zero");
        assert!(b.read(&mut [0; 16]).is_ok_and(|len| len > 0), "sent again");

        // Cut the way back: what is sent arrives, and is answered into nothing. The old connection is still slow.
        let (mut a, mut b) = connected(&near, &far);
        network.cut(1, 0);
        assert!(passes(&mut a, &mut b, PATIENCE));
        assert!(!passes(&mut b, &mut a, LOST));
    }

    #[test]
    fn clients_at_the_router_reach_every_host_and_nobody_else_does() {
        let network = Network::new(1);
        let site = network.site(0);
        let port = site.free_port();
        let _listener = site.within(|| TcpListener::bind((site.ip, port))).expect("the port is free");
        site.connect(port, PATIENCE).expect("it listens");
        TcpStream::connect_timeout(&(site.ip, port).into(), LOST).expect_err("another network");
    }
}

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use tokio::io::AsyncReadExt as _;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn addr(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

impl Table {
    fn come(&mut self, from: IpAddr) -> Option<(Arc<Guest>, Option<u64>)> {
        let (guest, ended) = self.admit(counted(from), PATIENCE, PATIENCE)?;
        Some((guest, ended.map(|guest| guest.number)))
    }

    /// Who has to end for one more.
    fn ends(&mut self, from: IpAddr) -> Option<u64> {
        self.come(from).expect("there is a place").1
    }
}

#[test]
fn one_address_takes_nobody_elses_places() {
    let mut table = Table::default();
    for _ in 0..STRANGERS_PER_ADDR {
        assert_eq!(table.ends(addr(1)), None);
    }
    assert_eq!(table.ends(addr(1)), Some(0), "its own oldest");
    assert_eq!(table.ends(addr(1)), Some(1), "and so on");
    assert_eq!(table.ends(addr(2)), None);
}

#[test]
fn with_no_place_left_who_has_the_most_gives_way() {
    let mut table = Table::default();
    for _ in 0..STRANGERS_PER_ADDR {
        table.ends(addr(1));
    }
    for number in STRANGERS_PER_ADDR as u32..STRANGERS_MAX as u32 {
        assert_eq!(table.ends(addr(number)), None);
    }
    assert_eq!(table.ends(addr(1_000)), Some(0));
    assert_eq!(table.ends(addr(1_001)), Some(1));
}

#[test]
fn members_have_places_of_their_own() {
    let mut table = Table { members: [addr(7)].into(), ..Table::default() };
    for number in 0..STRANGERS_MAX as u32 {
        table.ends(addr(1_000 + number));
    }
    for _ in 0..ARRIVALS_MAX {
        assert_eq!(table.ends(addr(7)), None);
    }
    assert_eq!(table.ends(addr(7)), Some(STRANGERS_MAX as u64), "its own oldest");
}

#[test]
fn a_member_may_call_from_another_address_than_it_is_reached_at() {
    let guests = Guests::new(1_000, Duration::from_secs(5), &Options::default());
    let first = guests.table.lock().come(addr(9)).expect("there is a place").0;
    guests.recognize(&first, "node-9");
    let mut table = guests.table.lock();
    for _ in 0..ARRIVALS_MAX {
        assert_eq!(table.ends(addr(9)), None);
    }
    table.leave(first.number);
    assert!(!table.is_members(addr(9)));
}

#[tokio::test(start_paused = true)]
async fn who_has_said_something_is_heard_before_the_silent() {
    let mut table = Table::default();
    let mut come = || table.come(addr(1));
    let first = come().expect("there is a place").0;
    assert!(first.hear(1));
    for _ in 1..STRANGERS_PER_ADDR {
        come();
    }
    assert_eq!(come().expect("there is a place").1, Some(1), "the oldest that keeps silent");
    let mut others = Table::default();
    for _ in 0..STRANGERS_PER_ADDR {
        others.come(addr(1)).expect("there is a place").0.hear(1);
    }
    assert!(others.come(addr(1)).is_none(), "all of them are at it");
    tokio::time::advance(HEARING).await;
    assert_eq!(others.ends(addr(1)), Some(0), "that one has had its time");
}

#[test]
fn who_is_ended_counts_until_it_is_closed() {
    let mut table = Table::default();
    for _ in 0..STRANGERS_PER_ADDR + ENDING_MAX {
        assert!(table.come(addr(1)).is_some());
    }
    assert!(table.come(addr(1)).is_none());
    table.leave(0);
    assert!(table.come(addr(1)).is_some());
}

#[test]
fn loopback_is_one_address_and_a_network_of_ipv6_too() {
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
    for loopback in ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.2"] {
        assert_eq!(counted(parse(loopback)), parse("127.0.0.1"));
    }
    assert_eq!(counted(parse("::ffff:10.0.0.1")), parse("10.0.0.1"));
    assert_eq!(network(parse("2001:db8:1:2:3:4:5:6")), parse("2001:db8:1:2::"));
    assert_eq!(network(parse("10.1.2.3")), parse("10.1.2.3"));
}

#[test]
fn of_too_many_peers_the_one_with_the_most_loses_one() {
    // As few files as can be.
    let guests = Guests::new(0, Duration::from_secs(5), &Options::default());
    let max = *PEERS.start();
    assert_eq!(guests.peers_max, max);
    let come = |id: &str| {
        let guest = guests.table.lock().come(addr(1)).expect("there is a place").0;
        guests.recognize(&guest, id);
        guest
    };
    let first = come("greedy");
    let busy = first.call();
    let second = come("greedy");
    let modest = come("modest");
    (3..max).for_each(|_| _ = come("greedy"));
    assert_eq!(guests.count(), (0, max));
    assert!(!second.is_ended());
    come("modest");
    assert!(second.is_ended() && !first.is_ended() && !modest.is_ended(), "one that does nothing");
    drop(busy);
    come("modest");
    assert!(first.is_ended() && !modest.is_ended());
}

#[test]
fn files_are_left_for_peers() {
    let peers = |files| Guests::new(files, Duration::from_secs(5), &Options::default()).peers_max;
    assert_eq!(peers(*FILES.start()), *PEERS.start());
    assert_eq!(peers(*FILES.end()), *PEERS.end());
    assert_eq!(peers(u64::MAX), *PEERS.end());
    assert_eq!(peers(*FILES.start() + 200), *PEERS.start() + 100);
}

/// A guest's socket, and its other end.
fn connection(guests: &Arc<Guests>) -> (GuestStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (socket, from) = listener.accept().expect("a client has come");
    socket.set_nonblocking(true).expect("a socket can be");
    let arrival = guests.admit(socket, from.ip()).expect("there is a place");
    (GuestStream::open(arrival).expect("a socket can be watched"), client)
}

fn hasty() -> Arc<Guests> {
    let guests = Guests::new(1_000, Duration::from_secs(5), &Options::default());
    let mut guests = Arc::into_inner(guests).expect("nobody else has it");
    (guests.hello_patience, guests.idle_patience) = (Duration::from_millis(50), Duration::from_millis(100));
    Arc::new(guests)
}

#[tokio::test]
async fn who_does_not_call_is_closed_in_time() {
    let guests = hasty();
    let (mut stream, mut client) = connection(&guests);
    let error = stream.read_u8().await.expect_err("nothing comes");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!((guests.count(), guests.turned_away()), ((1, 0), 1));
    drop(stream);
    assert_eq!(client.read(&mut [0]).expect("it is closed"), 0);
    assert_eq!(guests.count(), (0, 0));
}

#[tokio::test]
async fn a_peer_is_closed_when_it_has_no_call_for_long() {
    let guests = hasty();
    let (mut stream, _client) = connection(&guests);
    let guest = stream.guest().clone();
    guests.recognize(&guest, "node-1");
    let call = guest.call();
    let began = Instant::now();
    let ended = tokio::spawn(async move { stream.read_u8().await });
    tokio::time::sleep(guests.idle_patience * 3).await;
    assert!(!ended.is_finished(), "its call is under way");
    drop(call);
    assert!(ended.await.expect("no panic").is_err());
    assert!(began.elapsed() >= guests.idle_patience * 4 - Duration::from_millis(20));
    assert_eq!((guests.count(), guests.turned_away()), ((0, 0), 0));
}

#[tokio::test]
async fn who_is_ended_for_another_is_closed_at_once() {
    let guests = Guests::new(1_000, PATIENCE, &Options::default());
    let (mut stream, mut client) = connection(&guests);
    let guest = stream.guest().clone();
    let ended = tokio::spawn(async move { stream.read_u8().await });
    tokio::task::yield_now().await;
    guest.end();
    assert!(ended.await.expect("no panic").is_err());
    assert_eq!(client.read(&mut [0]).expect("it is closed"), 0);
}

#[tokio::test]
async fn a_stranger_may_say_little() {
    use std::io::Write as _;

    let guests = Guests::new(1_000, PATIENCE, &Options::default());
    let (mut stream, mut client) = connection(&guests);
    client.write_all(&vec![0; HELLO_BYTES_MAX as usize + 1]).expect("the socket has room");
    let mut heard = vec![0; HELLO_BYTES_MAX as usize + 1];
    let error = stream.read_exact(&mut heard).await.expect_err("too much");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

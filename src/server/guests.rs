//! The connections at the peers' port: how many there may be, for how long, and from where.
//!
//! A connection is a *stranger* until it has made a call that is for this node. With TLS, its certificate must also
//! match the node that it says it is. Strangers have little time and few places. Strangers from addresses of members
//! have places of their own, so that nobody from elsewhere can take them. Where many share one address, as on loopback,
//! a connection that has sent something is preferred to a silent one. A connection without a call under way is closed
//! after a while.

pub mod hosts;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::peer::options::Options;
pub use stream::GuestStream;

/// Strangers from addresses that are no member's.
const STRANGERS_MAX: usize = 128;

/// Of these, the ones from one address, or one network of IPv6.
const STRANGERS_PER_ADDR: usize = 32;

/// Strangers from addresses of members. A member opens one connection for each of its threads and
/// one for its pings, all at once when it hears of this node.
const ARRIVALS_MAX: usize = 256;

/// Connections that were told to end and have not ended yet, beyond the bounds above: their worker has not yet run
/// them.
const ENDING_MAX: usize = 64;

/// Connections of peers, as far as the limit of open files has room for them. A cluster needs members times their
/// threads.
const PEERS: RangeInclusive<usize> = 64..=4096;

/// The least and the most files that the peers' connections can use: incoming connections, and as many that this node
/// opens.
pub const FILES: RangeInclusive<u64> = {
    let strangers = (STRANGERS_MAX + ARRIVALS_MAX + 2 * ENDING_MAX) as u64;
    strangers + 2 * *PEERS.start() as u64..=strangers + 2 * *PEERS.end() as u64
};

/// How long a connection may take until its first call, TLS included. The caller gives up sooner.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);

/// How long a connection may be without a call. Pings come every few seconds at most.
const IDLE_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that may come before the first call is known: TLS with a chain of certificates, and a few
/// frames.
const HELLO_BYTES_MAX: u64 = 64 << 10;

/// A stranger that has sent something has this long before it may be ended for another one.
const HEARING: Duration = Duration::from_millis(250);

/// All connections at the peers' port.
#[derive(Debug)]
pub struct Guests {
    table: Mutex<Table>,
    peers_max: usize,
    hello_patience: Duration,
    idle_patience: Duration,
    turned_away: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    /// The number of the next one: earlier connections have lower numbers.
    next: u64,
    strangers: BTreeMap<u64, Arc<Guest>>,
    /// With the id that each has given.
    peers: BTreeMap<u64, (Arc<Guest>, String)>,
    /// How many of them come from each address.
    called_from: BTreeMap<IpAddr, usize>,
    /// Where the members are.
    members: BTreeSet<IpAddr>,
}

/// One connection.
#[derive(Debug)]
pub struct Guest {
    number: u64,
    /// Where it comes from, as it is counted.
    from: IpAddr,
    arrived: Instant,
    patience: Duration,
    idle_patience: Duration,
    is_peer: AtomicBool,
    bytes: AtomicU64,
    calls: AtomicUsize,
    idle_since: Mutex<Instant>,
    is_ended: AtomicBool,
    /// Of the task that has its socket.
    waker: Mutex<Option<Waker>>,
}

/// A guest's place in the table, given back when its connection is closed.
#[derive(Debug)]
pub struct Place {
    guests: Arc<Guests>,
    guest: Arc<Guest>,
}

/// A connection that was let in, on its way to the thread that serves it.
#[derive(Debug)]
pub struct Arrival {
    socket: std::net::TcpStream,
    place: Place,
}

/// A call that is under way.
#[derive(Debug)]
pub struct OpenCall(Arc<Guest>);

impl Guests {
    /// Nobody yet. `files` are those that the process may open for connections between nodes.
    pub fn new(files: u64, lease_ttl: Duration, options: &Options) -> Arc<Self> {
        let peers = usize::try_from(files.saturating_sub(*FILES.start()) / 2).unwrap_or(usize::MAX);
        Arc::new(Self {
            table: Mutex::default(),
            peers_max: peers.saturating_add(*PEERS.start()).min(*PEERS.end()),
            hello_patience: HELLO_PATIENCE.max(options.connect_timeout + options.operation_timeout),
            // A tenth of it lies between two pings.
            idle_patience: IDLE_PATIENCE.max(lease_ttl),
            turned_away: AtomicU64::new(0),
        })
    }

    /// Finds a place for a connection; another connection may lose its own. `None` when there is no place, and the
    /// connection is closed.
    pub fn admit(self: &Arc<Self>, socket: std::net::TcpStream, from: IpAddr) -> Option<Arrival> {
        let guest = self.table.lock().admit(counted(from), self.hello_patience, self.idle_patience);
        let Some((guest, ended)) = guest else {
            self.turn_away(from, "closed at once");
            return None;
        };
        if let Some(other) = ended {
            self.turn_away(other.from, "closed for another one");
        }
        Some(Arrival { socket, place: Place { guests: self.clone(), guest } })
    }

    /// This connection has made a valid call, as the node of this id.
    pub fn recognize(&self, guest: &Arc<Guest>, id: &str) {
        if guest.is_peer.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut table = self.table.lock();
        if table.strangers.remove(&guest.number).is_none() {
            return;
        }
        table.peers.insert(guest.number, (guest.clone(), id.to_owned()));
        *table.called_from.entry(guest.from).or_default() += 1;
        if let Some((other, id)) = table.surplus_peer(self.peers_max) {
            drop(table);
            warn!(peer = id, "has the most of too many connections of other nodes: one of them is closed");
            other.end();
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Where the members are from now on.
    pub fn expect(&self, members: impl IntoIterator<Item = IpAddr>) {
        self.table.lock().members = members.into_iter().map(counted).collect();
    }

    /// How many strangers there are, and how many connections of peers.
    pub fn count(&self) -> (usize, usize) {
        let table = self.table.lock();
        (table.strangers.len(), table.peers.len())
    }

    /// How many were closed because there was no place, or because they took too long.
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    fn turn_away(&self, from: IpAddr, what: &str) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
        warn!(%from, "too many connections to the peers' port that have not called yet: one was {what}");
    }
}

impl Table {
    /// A place for one more, and the connection that had to end for it.
    fn admit(
        &mut self,
        from: IpAddr,
        patience: Duration,
        idle_patience: Duration,
    ) -> Option<(Arc<Guest>, Option<Arc<Guest>>)> {
        let now = Instant::now();
        let is_member = self.is_members(from);
        let (max, per_addr) =
            if is_member { (ARRIVALS_MAX, ARRIVALS_MAX) } else { (STRANGERS_MAX, STRANGERS_PER_ADDR) };
        let mut groups = BTreeMap::<IpAddr, Vec<&Arc<Guest>>>::new();
        let (mut ending, mut open) = (0, 0);
        // Among members each address counts, else its network.
        let group_of = |from| if is_member { from } else { network(from) };
        for guest in self.strangers.values().filter(|guest| self.is_members(guest.from) == is_member) {
            if guest.is_ended() {
                ending += 1;
            } else {
                open += 1;
                groups.entry(group_of(guest.from)).or_default().push(guest);
            }
        }
        let crowded = match open >= max {
            // The address with the most connections gives way, even if it is the newcomer's own.
            true => groups.values().max_by_key(|group| group.len()),
            false => groups.get(&group_of(from)).filter(|group| group.len() >= per_addr),
        };
        let mut ended = None;
        if let Some(group) = crowded {
            if ending >= ENDING_MAX {
                return None;
            }
            // Oldest first, in the order of the table.
            let silent = group.iter().find(|guest| guest.is_silent());
            let slow = || group.iter().find(|guest| now >= guest.arrived + HEARING);
            let guest = Arc::clone(silent.or_else(slow)?);
            guest.end();
            ended = Some(guest);
        }
        let guest = Arc::new(Guest {
            number: self.next,
            from,
            arrived: now,
            patience,
            idle_patience,
            is_peer: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            idle_since: Mutex::new(now),
            is_ended: AtomicBool::new(false),
            waker: Mutex::default(),
        });
        self.next += 1;
        self.strangers.insert(guest.number, guest.clone());
        Some((guest, ended))
    }

    /// Whether members are at this address: it is known as a member's, or a member has called from there.
    fn is_members(&self, from: IpAddr) -> bool {
        self.members.contains(&from) || self.called_from.contains_key(&from)
    }

    /// When there are too many connections of peers, chooses one of the id that has the most: the oldest idle one, else
    /// the oldest.
    fn surplus_peer(&self, max: usize) -> Option<(Arc<Guest>, String)> {
        let open = || self.peers.values().filter(|(guest, _)| !guest.is_ended());
        if open().count() <= max {
            return None;
        }
        let mut counts = BTreeMap::<&str, usize>::new();
        open().for_each(|(_, id)| *counts.entry(id).or_default() += 1);
        let (most, _) = counts.into_iter().max_by_key(|&(_, count)| count)?;
        let of_most = open().filter(|(_, id)| id == most);
        of_most.min_by_key(|(guest, _)| (guest.calls.load(Ordering::Relaxed) > 0, guest.number)).cloned()
    }

    fn leave(&mut self, number: u64) {
        self.strangers.remove(&number);
        let Some((guest, _)) = self.peers.remove(&number) else { return };
        if let Some(count) = self.called_from.get_mut(&guest.from) {
            *count -= 1;
            if *count == 0 {
                self.called_from.remove(&guest.from);
            }
        }
    }
}

impl Guest {
    /// Notes that a call begins, until what is returned is dropped.
    pub fn call(self: &Arc<Self>) -> OpenCall {
        self.calls.fetch_add(1, Ordering::Relaxed);
        OpenCall(self.clone())
    }

    /// Closes its connection, as soon as its task runs.
    fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// Wakes the task that has its socket when it is ended.
    fn attend(&self, waker: &Waker) {
        let mut known = self.waker.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    fn is_silent(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) == 0
    }

    /// Notes bytes that came; returns whether they are allowed.
    fn hear(&self, bytes: usize) -> bool {
        if self.is_peer.load(Ordering::Relaxed) {
            return true;
        }
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64 <= HELLO_BYTES_MAX
    }

    /// When it must end if nothing happens.
    fn deadline(&self) -> Instant {
        if !self.is_peer.load(Ordering::Relaxed) {
            return self.arrived + self.patience;
        }
        let since =
            if self.calls.load(Ordering::Relaxed) > 0 { Instant::now() } else { *self.idle_since.lock() };
        since + self.idle_patience
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        *self.0.idle_since.lock() = Instant::now();
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.guests.table.lock().leave(self.guest.number);
    }
}

impl Place {
    fn took_too_long(&self) {
        if !self.guest.is_peer.load(Ordering::Relaxed) {
            self.guests.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        debug!(from = %self.guest.from, "a connection to the peers' port is closed: no call in time");
    }
}

/// The address under which a connection is counted: all of loopback is one machine.
fn counted(from: IpAddr) -> IpAddr {
    let from = from.to_canonical();
    if from.is_loopback() { Ipv4Addr::LOCALHOST.into() } else { from }
}

/// A host with an IPv6 address has all of its network.
fn network(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V6(from) => Ipv6Addr::from_bits(from.to_bits() & !u128::from(u64::MAX)).into(),
        from => from,
    }
}

#[cfg(test)]
mod tests;

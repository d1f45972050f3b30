//! The database behind the cluster, as its clients change it and as nodes load from it. Each of its keys has versions, which
//! only grow. It is a place in the network like any node, and answers late, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use filbert::groups::options::Options;
use filbert::groups::{Group, Groups};
use filbert::origin::{Failed, Fetched, Fetching, Loaded, Origin};
use filbert::testkit::network::Network;
use parking_lot::Mutex;
use tokio::time::sleep;

/// Where it is in the network.
pub const DATABASE: &str = "database";

/// What keys begin with that have a value there.
pub const PREFIX: &str = "db:";

const MS: Duration = Duration::from_millis(1);

/// A database, and the group of keys that are loaded from it.
pub struct Database {
    pub options: Options,
    network: Network,
    /// How long it takes at most to look.
    looks: Duration,
    /// How long it takes at most to answer what it saw.
    answers: Duration,
    /// Whether it answers at once and always.
    is_well: AtomicBool,
    /// By the keys without their prefix.
    rows: Mutex<BTreeMap<Vec<u8>, Row>>,
}

#[derive(Clone, Default)]
struct Row {
    version: u64,
    /// `None` where there is no value.
    value: Option<String>,
}

impl Database {
    /// An empty one; nodes load from it as chance will have it.
    pub fn new(network: Network, rng: &mut Rng) -> Arc<Self> {
        let mut one_of = |choices: [u32; 4]| rng.choice(choices).expect("there are some");
        let seconds = |number: u32| Duration::from_secs(number.into());
        let wait = MS * one_of([50, 100, 200, 400]);
        let options = Options {
            name: "database".to_owned(),
            prefix: PREFIX.into(),
            ttl: Some(seconds(one_of([1, 2, 2, 3]))),
            negative_ttl: seconds(one_of([0, 0, 0, 1])),
            stale_while_revalidate: seconds(one_of([0, 0, 1, 2])),
            stale_if_error: seconds(one_of([0, 0, 0, 1])),
            refresh_ahead: f64::from(one_of([0, 0, 5, 9])) / 10.0,
            wait,
            max_inflight: one_of([1, 4, 64, 64]) as usize,
            ..Options::default()
        };
        // Some answers come when nobody waits for them any more, and some too late.
        let (looks, answers) = (wait * one_of([1, 1, 5, 10]) / 10, wait * one_of([1, 5, 10, 25]) / 10);
        let (is_well, rows) = (AtomicBool::new(false), Mutex::default());
        Arc::new(Self { options, network, looks, answers, is_well, rows })
    }

    /// The groups of a node that loads from it.
    pub fn groups(self: &Arc<Self>, node: &str, rng: Rng) -> Groups {
        let connection = Connection { database: self.clone(), node: node.to_owned(), rng: Mutex::new(rng) };
        Groups::of(vec![Arc::new(Group::with_origin(self.options.clone(), Some(Arc::new(connection))))])
    }

    /// Gives a key its next version, which may have no value. `value` makes it of its number.
    pub fn change(&self, key: &str, value: impl FnOnce(u64) -> Option<String>) -> u64 {
        let key = key.strip_prefix(PREFIX).expect("it is one of the database");
        let mut rows = self.rows.lock();
        let row = rows.entry(key.into()).or_default();
        row.version += 1;
        row.value = value(row.version);
        row.version
    }

    /// Whether a value that has so many seconds left is loaded anew behind a reply.
    pub fn renews(&self, left: u32) -> bool {
        let Options { ttl, refresh_ahead, .. } = &self.options;
        let ahead = ttl.expect("it has one").mul_f64(*refresh_ahead);
        Duration::from_secs(left.into()) <= self.options.stale_span() + ahead && self.options.renews()
    }

    /// From now on it answers at once and always.
    pub fn get_well(&self) {
        self.is_well.store(true, Ordering::Relaxed);
    }

    /// How long after a change a value of before it may still be shown: a load may have seen it just before and have
    /// stored it at the last moment.
    pub fn outlives(&self) -> Duration {
        let Options { wait, ttl, .. } = &self.options;
        *wait * 3 + ttl.expect("it has one") + self.options.stale_span()
    }
}

/// A node's way to the database.
struct Connection {
    database: Arc<Database>,
    node: String,
    rng: Mutex<Rng>,
}

impl Origin for Connection {
    fn fetch<'a>(&'a self, key: &'a [u8]) -> Fetching<'a> {
        let mut rng = self.rng.lock().fork();
        let Database { network, looks, answers, is_well, rows, .. } = &*self.database;
        let failed = |why: filbert::peer::transport::Error| Failed(why.to_string());
        Box::pin(async move {
            network.carry(&self.node, DATABASE).await.map_err(failed)?;
            let is_well = is_well.load(Ordering::Relaxed);
            let luck = if is_well { u8::MAX } else { rng.u8(..32) };
            if luck == 0 {
                std::future::pending::<()>().await;
            }
            let mut pause = |most: &Duration| {
                let part = if is_well { 0.0 } else { rng.f64() };
                sleep(most.mul_f64(part))
            };
            pause(looks).await;
            let seen = rows.lock().get(key).cloned().unwrap_or_default();
            pause(answers).await;
            network.carry(DATABASE, &self.node).await.map_err(failed)?;
            if (1..4).contains(&luck) {
                return Err(Failed("bad luck".to_owned()));
            }
            Ok(seen.value.map_or(Fetched::Absent, |value| {
                // Now and then it says that nobody may keep it.
                let ttl = (luck == 4).then_some(Duration::ZERO);
                Fetched::Found(Loaded { value: Bytes::from(value), ttl, ..Loaded::default() })
            }))
        })
    }
}

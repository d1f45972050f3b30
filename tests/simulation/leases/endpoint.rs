//! An etcd whose every call takes its time, there and back. It does what it was asked for, whether the caller still
//! waits, stands still or is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use filbert::cluster::etcd::calls::{Calls, Connect, Watch};
use filbert::cluster::etcd::calls::{Change, Check, Error, Record, Write};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::simulation::leases::CALL_TIMEOUT;
use crate::simulation::leases::fault::Fault;

/// How often etcd looks for leases that are over.
const EXPIRY: Duration = Duration::from_millis(500);

/// Between two looks whether a cut is healed.
const RETRY: Duration = Duration::from_millis(5);

/// One etcd; cheap to clone.
#[derive(Clone)]
pub struct Etcd(Arc<Inside>);

struct Inside {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    rng: Rng,
    revision: i64,
    records: BTreeMap<String, Record>,
    /// Everything that ever changed, and when.
    past: Vec<(Instant, Change)>,
    /// How long each lives from each renewal on, and until when.
    leases: BTreeMap<i64, (Duration, Instant)>,
    last_lease: i64,
    latency: RangeInclusive<u64>,
    /// The nodes that do not reach it.
    cut: BTreeSet<String>,
    fault: Option<Fault>,
}

impl Etcd {
    pub fn new(seed: u64, fault: Option<Fault>) -> Self {
        let state = State {
            rng: Rng::with_seed(seed),
            revision: 1,
            records: BTreeMap::new(),
            past: Vec::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
            latency: 1..=3,
            cut: BTreeSet::new(),
            fault,
        };
        Self(Arc::new(Inside { state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Ends leases that are not renewed, for ever.
    pub async fn run(self) {
        loop {
            sleep(EXPIRY).await;
            self.apply(State::expire);
        }
    }

    /// How a node reaches it.
    pub fn line(&self, id: &str) -> Line {
        Line { etcd: self.clone(), id: id.to_owned(), renewed: Arc::default() }
    }

    /// How many milliseconds each way takes from now on.
    pub fn delay(&self, latency: RangeInclusive<u64>) {
        self.0.state.lock().latency = latency;
    }

    pub fn cut(&self, id: &str, cut: bool) {
        let mut state = self.0.state.lock();
        if cut {
            state.cut.insert(id.to_owned());
        } else {
            state.cut.remove(id);
        }
    }

    /// All leases end at once.
    pub fn lose_leases(&self) {
        self.apply(|state| {
            state.leases.clear();
            state.expire();
        });
    }

    fn apply<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.0.state.lock());
        self.0.changed.notify_waiters();
        done
    }

    fn breaks(&self, fault: Fault) -> bool {
        self.0.state.lock().fault == Some(fault)
    }

    fn latency(&self) -> Duration {
        let mut state = self.0.state.lock();
        let latency = state.latency.clone();
        Duration::from_millis(state.rng.u64(latency))
    }

    async fn reached_by(&self, id: &str) {
        while self.0.state.lock().cut.contains(id) {
            sleep(RETRY).await;
        }
    }
}

impl State {
    fn put(&mut self, key: String, record: Option<Record>) {
        match &record {
            Some(record) => _ = self.records.insert(key.clone(), record.clone()),
            None => _ = self.records.remove(&key),
        }
        self.past.push((Instant::now(), Change { key, revision: self.revision, record }));
    }

    fn expire(&mut self) {
        let now = Instant::now();
        self.leases.retain(|_, (_, ends)| *ends > now);
        let is_over = |record: &Record| record.lease != 0 && !self.leases.contains_key(&record.lease);
        let over: Vec<_> =
            self.records.iter().filter(|(_, it)| is_over(it)).map(|(key, _)| key.clone()).collect();
        if !over.is_empty() {
            self.revision += 1;
            over.into_iter().for_each(|key| self.put(key, None));
        }
    }

    fn holds(&self, check: &Check) -> bool {
        match check {
            Check::Unchanged(key, revision) => {
                self.records.get(key).map_or(0, |record| record.revision) == *revision
            }
            Check::NoneNewer(prefix, revision) => self
                .records
                .iter()
                .all(|(key, record)| !key.starts_with(prefix) || record.revision <= *revision),
        }
    }

    fn write(&mut self, mut checks: Vec<Check>, writes: Vec<Write>) -> Result<Option<i64>, Error> {
        let acks = |write: &Write| matches!(write, Write::Put(key, ..) if key.contains("/acks/"));
        if self.fault == Some(Fault::BlindAcks) && writes.iter().any(acks) {
            checks.clear();
        }
        if !checks.iter().all(|check| self.holds(check)) {
            return Ok(None);
        }
        let lives = |lease: i64| lease == 0 || self.leases.contains_key(&lease);
        if writes.iter().any(|write| matches!(write, Write::Put(_, _, lease) if !lives(*lease))) {
            return Err(Error::Refused("write", "requested lease not found".to_owned()));
        }
        self.revision += 1;
        let revision = self.revision;
        for write in writes {
            match write {
                Write::Put(key, value, lease) => self.put(key, Some(Record { value, revision, lease })),
                Write::Delete(key) if self.records.contains_key(&key) => self.put(key, None),
                Write::Delete(_) => {}
            }
        }
        Ok(Some(revision))
    }
}

/// A node's way to etcd.
#[derive(Clone)]
pub struct Line {
    etcd: Etcd,
    id: String,
    /// The answer to its last renewal, and of which lease; kept for [`Fault::RenewalsCountLater`].
    renewed: Arc<Mutex<Option<(i64, bool)>>>,
}

impl Line {
    /// Has something done in etcd, and waits for the answer.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        done: impl FnOnce(&mut State) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Self { etcd, id, .. } = self.clone();
        let call = tokio::spawn(async move {
            sleep(etcd.latency()).await;
            etcd.reached_by(&id).await;
            let answer = etcd.apply(done);
            sleep(etcd.latency()).await;
            etcd.reached_by(&id).await;
            answer
        });
        match timeout(CALL_TIMEOUT, call).await {
            Err(_) => Err(Error::Silent(what, CALL_TIMEOUT)),
            Ok(answer) => answer.expect("no call panics"),
        }
    }

    async fn renew(&self, id: i64) -> Result<bool, Error> {
        let answer = self.ask("lease renewal", move |state| {
            let now = Instant::now();
            let lease = state.leases.get_mut(&id).filter(|(_, ends)| *ends > now);
            Ok(lease.map(|(ttl, ends)| *ends = now + *ttl).is_some())
        });
        let answer = answer.await?;
        *self.renewed.lock() = Some((id, answer));
        Ok(answer)
    }
}

impl Connect for Line {
    type Calls = Line;

    async fn connect(&self, _: &str) -> Result<Line, Error> {
        self.ask("connect", |_| Ok(())).await?;
        Ok(self.clone())
    }
}

impl Calls for Line {
    type Watch = Changes;

    async fn read(&self, prefix: &str) -> Result<(i64, Vec<(String, Record)>), Error> {
        let prefix = prefix.to_owned();
        self.ask("read", move |state| {
            let records = state.records.iter().filter(|(key, _)| key.starts_with(&prefix));
            Ok((state.revision, records.map(|(key, record)| (key.clone(), record.clone())).collect()))
        })
        .await
    }

    async fn read_at(&self, key: &str, revision: i64) -> Result<Option<Record>, Error> {
        let key = key.to_owned();
        self.ask("read", move |state| {
            let mut changes = state.past.iter().rev().map(|(_, change)| change);
            let last = changes.find(|change| change.key == key && change.revision <= revision);
            Ok(last.and_then(|change| change.record.clone()))
        })
        .await
    }

    async fn write_if(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Option<i64>, Error> {
        self.ask("write", move |state| state.write(checks, writes)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<i64, Error> {
        self.ask("lease grant", move |state| {
            let ttl = Duration::from_secs(ttl.as_secs_f64().ceil() as u64);
            state.last_lease += 1;
            state.leases.insert(state.last_lease, (ttl, Instant::now() + ttl));
            Ok(state.last_lease)
        })
        .await
    }

    async fn keep_alive(&self, id: i64) -> Result<bool, Error> {
        let before = self.renewed.lock().take();
        if self.etcd.breaks(Fault::RenewalsCountLater)
            && let Some((_, answer)) = before.filter(|(lease, _)| *lease == id)
        {
            let line = self.clone();
            tokio::spawn(async move { line.renew(id).await });
            return Ok(answer);
        }
        self.renew(id).await
    }

    async fn revoke(&self, id: i64) -> Result<(), Error> {
        self.ask("lease revocation", move |state| {
            state.leases.remove(&id);
            state.expire();
            Ok(())
        })
        .await
    }

    async fn watch(&self, _: &str, from: i64) -> Result<Changes, Error> {
        let next =
            self.ask("watch", move |state| Ok(state.past.partition_point(|(_, it)| it.revision < from)));
        let next = next.await?;
        // Of a member of etcd that lags behind, now and then.
        let lags = self.etcd.0.state.lock().rng.u8(..8) == 0;
        let lag = self.etcd.latency() * if lags { 10 } else { 1 };
        Ok(Changes { line: self.clone(), next, lag })
    }
}

/// What a watch tells, in order and late.
pub struct Changes {
    line: Line,
    /// The next change of all that there ever were.
    next: usize,
    lag: Duration,
}

impl Watch for Changes {
    async fn next(&mut self) -> Result<Vec<Change>, Error> {
        let Line { etcd, id, .. } = &self.line;
        loop {
            let changed = etcd.0.changed.notified();
            let due = etcd.0.state.lock().past.get(self.next).map(|(at, _)| *at + self.lag);
            let Some(due) = due else {
                changed.await;
                continue;
            };
            sleep_until(due).await;
            if due < Instant::now() {
                // What has waited for a process that stood still is read a moment later than its timers are seen.
                sleep(RETRY).await;
            }
            etcd.reached_by(id).await;
            let now = Instant::now();
            let state = etcd.0.state.lock();
            let news = state.past[self.next..].iter().take_while(|(at, _)| *at + self.lag <= now);
            let news: Vec<_> = news
                .map(|(_, Change { key, revision, record })| Change {
                    key: key.clone(),
                    revision: *revision,
                    record: record.clone(),
                })
                .collect();
            self.next += news.len();
            return Ok(news);
        }
    }
}

//! The conversation with etcd: one endpoint after another, one session with each, which ends at
//! the first call that fails or is late.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cluster::Error;
use crate::cluster::etcd::Options;
use crate::cluster::etcd::client::{self, Change, Client, Record, Write};
use crate::cluster::etcd::ledger::{Ledger, Registration, Stored, parse, to_json};
use crate::cluster::propose;
use crate::cluster::view::View;

/// Pause after each endpoint has failed once; doubles up to [`PAUSE_LIMIT`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause before etcd is tried again.
const PAUSE_LIMIT: Duration = Duration::from_secs(1);

/// How often an etcd that stays away is spoken of.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// How far apart nodes propose: longer than a write usually takes, so that as a rule only the
/// first of them tries.
const RANK_STEP: Duration = Duration::from_millis(20);

/// The ranks after this one try together.
const RANK_LIMIT: usize = 15;

/// Views that are looked for in etcd's history before they count as missed.
const HISTORY_LIMIT: usize = 64;

/// Tries to raise the flush generation, when others change the view at the same time.
const FLUSH_TRIES: usize = 8;

type Reply = oneshot::Sender<Result<u64, Error>>;

/// The task that talks to etcd.
pub struct Node {
    options: Options,
    ledger: Arc<Mutex<Ledger>>,
    flushes: mpsc::Receiver<Reply>,
    leaving: CancellationToken,
    left: CancellationToken,
    /// The lease that outlives a session.
    lease: Option<i64>,
    /// When to propose what should be proposed.
    propose_at: Option<Instant>,
    /// Whether the present silence of etcd was spoken of.
    has_complained: bool,
}

impl Node {
    pub fn new(
        options: Options,
        ledger: Arc<Mutex<Ledger>>,
        flushes: mpsc::Receiver<Reply>,
        leaving: CancellationToken,
        left: CancellationToken,
    ) -> Self {
        Self { options, ledger, flushes, leaving, left, lease: None, propose_at: None, has_complained: false }
    }

    /// Talks to etcd for ever.
    pub async fn run(mut self) {
        let endpoints = self.options.endpoints.clone();
        let mut pause = FIRST_PAUSE;
        let mut complained_at = None;
        for (turn, endpoint) in endpoints.iter().cycle().enumerate() {
            let began = Instant::now();
            let Err(error) = self.session(endpoint).await;
            let lasted = began.elapsed() > self.options.call_timeout * 4;
            if lasted || complained_at.is_none_or(|at: Instant| at.elapsed() >= COMPLAINT_INTERVAL) {
                complained_at = Some(Instant::now());
                self.has_complained = true;
                warn!(endpoint, "etcd is out of reach, trying again: {error}");
            } else {
                debug!(endpoint, "etcd is out of reach: {error}");
            }
            if lasted {
                pause = FIRST_PAUSE;
            }
            if (turn + 1) % endpoints.len() == 0 {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_LIMIT);
            }
        }
    }

    async fn session(&mut self, endpoint: &str) -> Result<std::convert::Infallible, SessionError> {
        let target = self.options.endpoint(endpoint)?;
        let client = Client::connect(target, self.options.login(), self.options.call_timeout).await?;
        let mut read_to = self.read_all(&client).await?;
        let mut watch = client.watch(&self.prefix(), read_to + 1).await?;
        if std::mem::take(&mut self.has_complained) {
            info!(endpoint, "connected to etcd");
        }
        self.renew(&client).await?;

        let mut renewals = every(self.options.lease_ttl / 3);
        let mut readings = every(self.options.lease_ttl);
        let mut ticks = every(self.options.tick());
        loop {
            self.settle(&client).await?;
            let propose_at = self.propose_at;
            tokio::select! {
                changes = watch.next() => {
                    let changes = changes?;
                    read_to = read_to.max(changes.revision);
                    let mut ledger = self.ledger.lock();
                    changes.changes.into_iter().for_each(|change| ledger.change(change));
                }
                _ = renewals.tick() => self.renew(&client).await?,
                _ = readings.tick() => {
                    // What the watch should have told by now; when it did not, it may be stuck.
                    let (revision, records) = client.read(&self.prefix()).await?;
                    if revision > read_to && !self.ledger.lock().agrees_with(&records.into_iter().collect()) {
                        debug!(revision, "the watch is behind and starts anew");
                        read_to = self.read_all(&client).await?;
                        watch = client.watch(&self.prefix(), read_to + 1).await?;
                    }
                }
                _ = ticks.tick() => {}
                () = until(propose_at) => self.propose(&client).await?,
                Some(reply) = self.flushes.recv() => self.flush(&client, reply).await?,
                () = self.leaving.cancelled(), if !self.leaving_known() => self.ledger.lock().seat.leave(),
            }
        }
    }

    fn prefix(&self) -> String {
        self.ledger.lock().keys.prefix.clone()
    }

    fn leaving_known(&self) -> bool {
        self.ledger.lock().seat.is_leaving()
    }

    /// Reads everything, the views that were missed first, and returns the revision.
    async fn read_all(&self, client: &Client) -> Result<i64, client::Error> {
        let (revision, records) = client.read(&self.prefix()).await?;
        let records: BTreeMap<String, Record> = records.into_iter().collect();
        let (key, epoch) = {
            let ledger = self.ledger.lock();
            (ledger.keys.view.clone(), ledger.seat.state().epoch)
        };
        let mut missed = Vec::new();
        let mut oldest = records.get(&key).cloned();
        while let Some(record) = oldest
            && let Some(stored) = parse::<Stored>(&record)
            && stored.epoch > epoch + 1
            && missed.len() < HISTORY_LIMIT
        {
            oldest = match client.read_at(&key, record.revision - 1).await {
                Err(client::Error::Compacted) => None,
                before => before?,
            };
            missed.extend(oldest.as_ref().and_then(parse::<Stored>));
        }
        let mut ledger = self.ledger.lock();
        missed.into_iter().rev().for_each(|stored| ledger.take(stored));
        ledger.load(records);
        Ok(revision)
    }

    /// Keeps the lease alive.
    async fn renew(&mut self, client: &Client) -> Result<(), client::Error> {
        let Some(lease) = self.lease else { return Ok(()) };
        let began = Instant::now();
        if client.keep_alive(lease).await? {
            self.ledger.lock().renewed(began);
        } else {
            warn!("the lease in etcd has run out; registering again");
            self.lease = None;
        }
        Ok(())
    }

    /// Makes true in etcd what should be true of this node, as far as one write each can do it; a
    /// write that lost against another is tried again after the next event.
    async fn settle(&mut self, client: &Client) -> Result<(), client::Error> {
        if self.leaving_known() {
            self.propose_at = None;
            return if self.left.is_cancelled() { Ok(()) } else { self.withdraw(client).await };
        }
        let now = Instant::now();
        let lease = match self.lease {
            Some(lease) => lease,
            None => {
                let lease = client.grant(self.options.lease_ttl).await?;
                self.lease = Some(lease);
                self.ledger.lock().renewed(now);
                lease
            }
        };
        if self.ledger.lock().rests(now) {
            self.propose_at = None;
        } else {
            let registration = self.ledger.lock().registration(lease);
            let is_registered = match registration {
                Registration::Ours => true,
                Registration::Taken(_) => {
                    self.propose_at = None;
                    return Ok(());
                }
                Registration::Replaceable(revision) => self.register(client, lease, revision).await?,
            };
            if !is_registered {
                return Ok(());
            }
            self.plan_proposal(now);
        }
        let statements = self.ledger.lock().statements(now, lease);
        for (key, value) in statements {
            self.write(client, &[], vec![Write::Put(key, value, lease)]).await?;
        }
        Ok(())
    }

    /// Registers this incarnation, unless the view has changed since it was read: it may have been
    /// removed in between, and must then not come back.
    async fn register(&self, client: &Client, lease: i64, revision: i64) -> Result<bool, client::Error> {
        let (key, value, view, view_revision) = {
            let ledger = self.ledger.lock();
            let me = ledger.seat.me();
            (ledger.keys.member(&me.id), to_json(me), ledger.keys.view.clone(), ledger.derived(View::clone).1)
        };
        let unchanged = [(key.as_str(), revision), (view.as_str(), view_revision)];
        self.write(client, &unchanged, vec![Write::Put(key.clone(), value, lease)]).await
    }

    /// Sets or clears the moment of the next proposal.
    fn plan_proposal(&mut self, now: Instant) {
        let ledger = self.ledger.lock();
        let Some((next, _)) = ledger.proposal(now) else {
            self.propose_at = None;
            return;
        };
        let me = &ledger.seat.me().id;
        let rank = u32::try_from(ledger.rank().min(RANK_LIMIT)).unwrap_or(0);
        let jitter = Duration::from_millis(xxh3_64_with_seed(me.as_bytes(), next.epoch) % 10);
        self.propose_at.get_or_insert(now + RANK_STEP * rank + jitter);
    }

    async fn propose(&mut self, client: &Client) -> Result<(), client::Error> {
        self.propose_at = None;
        let proposal = self.ledger.lock().proposal(Instant::now());
        let Some((next, revision)) = proposal else { return Ok(()) };
        let members: Vec<_> = next.view.members.keys().cloned().collect();
        let epoch = next.epoch;
        let won = self.write_view(client, next, revision).await?;
        debug!(epoch, ?members, won, "proposed a view");
        Ok(())
    }

    /// Writes a view over the one of that revision, and takes the registrations of all who are
    /// not in it any more: an incarnation that was removed must not come back.
    async fn write_view(&self, client: &Client, next: Stored, revision: i64) -> Result<bool, client::Error> {
        let (key, removed) = {
            let ledger = self.ledger.lock();
            let kept: BTreeSet<_> = next.view.members.keys().collect();
            let removed = next.view.previous.iter().filter(|id| !kept.contains(id));
            let removed: Vec<_> = removed.map(|id| Write::Delete(ledger.keys.member(id))).collect();
            (ledger.keys.view.clone(), removed)
        };
        let mut writes = vec![Write::Put(key.clone(), to_json(&next), 0)];
        writes.extend(removed);
        self.write(client, &[(key.as_str(), revision)], writes).await
    }

    /// Takes this node out of the view, ends its lease, and says so.
    async fn withdraw(&mut self, client: &Client) -> Result<(), client::Error> {
        let (next, revision, me, was_member, key) = {
            let ledger = self.ledger.lock();
            let me = ledger.seat.me().id.clone();
            let mut was_member = false;
            let (next, revision) = ledger.derived(|view| {
                was_member = view.members.get(&me) == Some(ledger.seat.me());
                propose::without(view, &me)
            });
            let key = ledger.keys.member(&me);
            (next, revision, me, was_member, key)
        };
        if was_member && !self.write_view(client, next, revision).await? {
            return Ok(());
        }
        debug!(me, key, "withdrawn");
        if let Some(lease) = self.lease.take() {
            // The registration goes with the lease, unless another process has it by now. A lease
            // that is gone already is what was wanted.
            if let Err(error) = client.revoke(lease).await {
                debug!("the lease was not revoked and will run out: {error}");
            }
        }
        self.left.cancel();
        Ok(())
    }

    async fn flush(&mut self, client: &Client, reply: Reply) -> Result<(), client::Error> {
        for _ in 0..FLUSH_TRIES {
            if reply.is_closed() {
                return Ok(());
            }
            if self.ledger.lock().seat.state().epoch == 0 {
                _ = reply.send(Err(Error::NotJoined));
                return Ok(());
            }
            let (next, revision) = self.ledger.lock().derived(propose::flushed);
            let generation = next.view.flush_generation;
            if self.write_view(client, next, revision).await? {
                _ = reply.send(Ok(generation));
                return Ok(());
            }
            self.read_all(client).await?;
        }
        // The caller's patience ends the waiting, and says that nothing is confirmed.
        Ok(())
    }

    /// Writes all if nothing has changed, and takes over at once what it has written.
    async fn write(
        &self,
        client: &Client,
        unchanged: &[(&str, i64)],
        writes: Vec<Write>,
    ) -> Result<bool, client::Error> {
        let puts = writes.iter().filter_map(|write| match write {
            Write::Put(key, value, lease) => Some((key.clone(), value.clone(), *lease)),
            Write::Delete(_) => None,
        });
        let puts: Vec<_> = puts.collect();
        let Some(revision) = client.write_if(unchanged, writes).await? else { return Ok(false) };
        let mut ledger = self.ledger.lock();
        for (key, value, lease) in puts {
            ledger.change(Change { key, revision, record: Some(Record { value, revision, lease }) });
        }
        Ok(true)
    }
}

/// Why a session ended, or could not begin.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error(transparent)]
    Options(#[from] Error),
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

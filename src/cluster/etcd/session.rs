//! The conversation with etcd: one endpoint after another, one session with each, which ends at
//! the first call that fails or is late.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval_at, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cluster::etcd::calls::{self, Calls, Connect, Record, Watch as _, Write};
use crate::cluster::etcd::health::Health;
use crate::cluster::etcd::membership_state::MembershipState;
use crate::cluster::etcd::options::Options;
use crate::cluster::etcd::own_id::Registration;
use crate::cluster::etcd::records::{Stored, parse};
use crate::cluster::etcd::txns::{Proposal, Txn};
use crate::cluster::moment::now;
use crate::cluster::propose;
use crate::cluster::{Error, Task};

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

/// Versions of the view that are looked for in etcd's history before they count as missed; there are up to two of each view.
/// A new process looks for none.
const HISTORY_LIMIT: usize = 128;

type WatchOf<C> = <<C as Connect>::Calls as Calls>::Watch;

type Reply = oneshot::Sender<Result<u64, Error>>;

/// The task that talks to etcd.
pub struct EtcdTask<C> {
    options: Options,
    connect: C,
    state: Arc<Mutex<MembershipState>>,
    health: Arc<Health>,
    flushes: mpsc::Receiver<Reply>,
    /// The caller that waits for the next flush generation.
    flush: Option<Reply>,
    heard: Arc<Notify>,
    leaving: CancellationToken,
    left: CancellationToken,
    /// The lease that outlives a session.
    lease: Option<i64>,
    /// When to propose what should be proposed.
    propose_at: Option<Instant>,
    /// Whether the present silence of etcd was spoken of.
    has_complained: bool,
    /// Whether a thread of this node stood still.
    was_stuck: bool,
}

impl<C: Connect> EtcdTask<C> {
    pub fn new(
        options: Options,
        connect: C,
        state: Arc<Mutex<MembershipState>>,
        health: Arc<Health>,
        flushes: mpsc::Receiver<Reply>,
        task: &Task,
    ) -> Self {
        Self {
            options,
            connect,
            state,
            health,
            flushes,
            flush: None,
            heard: task.heard.clone(),
            leaving: task.leaving.clone(),
            left: task.left.clone(),
            lease: None,
            propose_at: None,
            has_complained: false,
            was_stuck: false,
        }
    }

    /// Talks to etcd for ever.
    pub async fn run(mut self) {
        let endpoints = self.options.endpoints.clone();
        let mut pause = FIRST_PAUSE;
        let mut complained_at = None;
        for (turn, endpoint) in endpoints.iter().cycle().enumerate() {
            let began = now();
            let Err(error) = self.session(endpoint).await;
            self.health.disconnected();
            let lasted = now() > began + self.options.call_timeout * 4;
            if lasted || complained_at.is_none_or(|at: Instant| now() >= at + COMPLAINT_INTERVAL) {
                complained_at = Some(now());
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

    async fn session(&mut self, endpoint: &str) -> Result<std::convert::Infallible, calls::Error> {
        let client = self.connect.connect(endpoint).await?;
        let prefix = self.state.lock().keys().prefix.clone();
        let mut watch = self.read_all(&client, &prefix).await?;
        self.health.connected();
        if std::mem::take(&mut self.has_complained) {
            info!(endpoint, "connected to etcd");
        }
        self.renew(&client).await?;

        let mut renewals = every(self.options.timing().renewal_interval());
        let mut readings = every(self.options.lease_ttl);
        let mut ticks = every(self.options.tick());
        loop {
            self.reconcile(&client).await?;
            let propose_at = self.propose_at;
            tokio::select! {
                changes = watch.next() => {
                    let changes = changes?;
                    let mut state = self.state.lock();
                    state.follow(changes);
                    self.health.read_up_to(state.records.revision());
                }
                _ = renewals.tick() => self.renew(&client).await?,
                _ = readings.tick() => {
                    // What the watch should have told by now; when it did not, it may be stuck.
                    let (revision, records) = client.read(&prefix).await?;
                    if !self.state.lock().records.agree_with(&records.into_iter().collect()) {
                        debug!(revision, "the watch is behind and starts anew");
                        self.health.watch_restarted();
                        watch = self.read_all(&client, &prefix).await?;
                    }
                }
                _ = ticks.tick() => {}
                () = self.heard.notified() => self.state.lock().tick(now()),
                () = until(propose_at) => self.propose(&client).await?,
                Some(reply) = self.flushes.recv(), if self.flush.is_none() => self.flush = Some(reply),
                () = self.leaving.cancelled(), if !self.leaving_known() => self.state.lock().local.leave(),
            }
        }
    }

    fn leaving_known(&self) -> bool {
        self.state.lock().local.is_leaving()
    }

    /// Reads everything, the views that were missed first, and watches what follows.
    async fn read_all(&self, client: &C::Calls, prefix: &str) -> Result<WatchOf<C>, calls::Error> {
        let (revision, records) = client.read(prefix).await?;
        let records: BTreeMap<String, Record> = records.into_iter().collect();
        let (key, epoch, is_new) = {
            let state = self.state.lock();
            (state.keys().view.clone(), state.local.state().epoch, state.local.is_new())
        };
        let mut missed = Vec::new();
        let mut oldest = records.get(&key).filter(|_| !is_new).cloned();
        while let Some(record) = oldest
            && let Some(stored) = parse::<Stored>(&record)
            && stored.epoch > epoch + 1
            && missed.len() < HISTORY_LIMIT
        {
            oldest = match client.read_at(&key, record.revision - 1).await {
                Err(calls::Error::Compacted) => None,
                before => before?,
            };
            missed.extend(oldest.as_ref().and_then(parse::<Stored>));
        }
        {
            let mut state = self.state.lock();
            missed.into_iter().rev().for_each(|stored| state.take_past(stored.epoch, stored.view));
            state.load(revision, records);
            self.health.read_up_to(revision);
        }
        client.watch(prefix, revision + 1).await
    }

    /// Keeps the lease alive, unless a thread of this node stands still: then it is not alive, and
    /// others should have its keys.
    async fn renew(&mut self, client: &C::Calls) -> Result<(), calls::Error> {
        let Some(lease) = self.lease.filter(|_| self.options.watchdog.stuck().is_none()) else {
            return Ok(());
        };
        let began = now();
        if client.keep_alive(lease).await? {
            self.state.lock().renewed(lease, began);
            self.health.renewed(began);
        } else {
            warn!("the lease in etcd has run out; registering again");
            self.lease = None;
            self.health.lost_lease();
        }
        Ok(())
    }

    /// Makes true in etcd what should be true of this node, as far as one write each can do it; a
    /// write that lost against another is tried again after the next event.
    async fn reconcile(&mut self, client: &C::Calls) -> Result<(), calls::Error> {
        let is_well = self.options.watchdog.stuck().is_none();
        if std::mem::replace(&mut self.was_stuck, !is_well) && is_well {
            // What became of the lease meanwhile is not known.
            self.renew(client).await?;
        }
        let now = now();
        let has_business = self.leaving_known() || is_well && self.take_part(client, now).await?;
        if !has_business {
            self.propose_at = None;
            return Ok(());
        }
        if let Some(lease) = self.lease {
            self.say(client, now, lease).await?;
        }
        if self.leaving_known() {
            self.propose_at = None;
            if !self.left.is_cancelled() {
                self.withdraw(client).await?;
            }
        }
        self.raise_flush_generation(client).await
    }

    /// Sees to this node's lease and registration. Whether it has any business in etcd.
    async fn take_part(&mut self, client: &C::Calls, now: Instant) -> Result<bool, calls::Error> {
        let lease = match self.lease {
            Some(lease) => lease,
            None => {
                let lease = client.grant(self.options.timing().lives_in_etcd()).await?;
                self.lease = Some(lease);
                self.state.lock().renewed(lease, now);
                self.health.renewed(now);
                lease
            }
        };
        if self.state.lock().rests(now) {
            self.propose_at = None;
            return Ok(true);
        }
        let registration = self.state.lock().registration(lease, now);
        match registration {
            Registration::Ours => self.plan_proposal(now),
            Registration::Taken(_) => return Ok(false),
            Registration::Replaceable => {
                let (txn, suspicions) = self.state.lock().register(now, lease);
                if self.write(client, txn).await? {
                    self.state.lock().peers.has_said(suspicions);
                    self.plan_proposal(now);
                }
            }
        }
        Ok(true)
    }

    /// Says which view this node has acknowledged, and whom it suspects.
    async fn say(&self, client: &C::Calls, now: Instant, lease: i64) -> Result<(), calls::Error> {
        let ack = self.state.lock().ack(lease);
        if let Some(txn) = ack {
            self.write(client, txn).await?;
        }
        let suspicions = self.state.lock().news_of_suspicions(now, lease);
        if let Some((txn, suspicions)) = suspicions
            && self.write(client, txn).await?
        {
            self.state.lock().peers.has_said(suspicions);
        }
        let reach = self.state.lock().news_of_reach(now, lease);
        if let Some(txn) = reach {
            self.write(client, txn).await?;
        }
        Ok(())
    }

    /// Sets or clears the moment of the next proposal.
    fn plan_proposal(&mut self, now: Instant) {
        let state = self.state.lock();
        let Some(Proposal { next, .. }) = state.proposal(now) else {
            self.propose_at = None;
            return;
        };
        let me = &state.local.me().id;
        let rank = u32::try_from(state.rank().min(RANK_LIMIT)).unwrap_or(0);
        let jitter = Duration::from_millis(xxh3_64_with_seed(me.as_bytes(), next.epoch) % 10);
        self.propose_at.get_or_insert(now + RANK_STEP * rank + jitter);
    }

    async fn propose(&mut self, client: &C::Calls) -> Result<(), calls::Error> {
        self.propose_at = None;
        let proposal = self.state.lock().proposal(now());
        let Some(Proposal { next, txn }) = proposal else { return Ok(()) };
        let won = self.write(client, txn).await?;
        let members: Vec<_> = next.view.members.keys().collect();
        debug!(next.epoch, ?members, next.confirmed, won, "proposed a view");
        Ok(())
    }

    /// Takes this node out of the view, and when it has acknowledged the view without it, ends its
    /// lease and says so.
    async fn withdraw(&mut self, client: &C::Calls) -> Result<(), calls::Error> {
        let (is_member, proposal) = {
            let state = self.state.lock();
            (state.is_member(), state.withdrawal(now()))
        };
        if is_member {
            if let Some(Proposal { txn, .. }) = proposal {
                self.write(client, txn).await?;
            }
            return Ok(());
        }
        if let Some(lease) = self.lease.take() {
            self.health.lost_lease();
            // The registration goes with the lease, unless another process has it by now. A lease
            // that is gone already is what was wanted.
            if let Err(error) = client.revoke(lease).await {
                debug!("the lease was not revoked and will run out: {error}");
            }
        }
        self.left.cancel();
        Ok(())
    }

    /// Does what [`Membership::raise_flush_generation`] asks for, unless it must wait until the
    /// present view may be followed.
    ///
    /// [`Membership::raise_flush_generation`]: crate::cluster::Membership::raise_flush_generation
    async fn raise_flush_generation(&mut self, client: &C::Calls) -> Result<(), calls::Error> {
        self.flush = self.flush.take().filter(|reply| !reply.is_closed());
        if self.flush.is_none() {
            return Ok(());
        }
        let (has_joined, proposal) = {
            let state = self.state.lock();
            (state.local.state().epoch > 0, state.derived(propose::flushed))
        };
        let answer = match proposal {
            _ if !has_joined => Err(Error::NotJoined),
            None => return Ok(()),
            Some(Proposal { next, txn }) => {
                if !self.write(client, txn).await? {
                    return Ok(());
                }
                Ok(next.view.flush_generation)
            }
        };
        if let Some(reply) = self.flush.take() {
            // A caller that has waited for too long has been told so.
            _ = reply.send(answer);
        }
        Ok(())
    }

    /// Writes all if nothing has changed, and takes over what it has written.
    async fn write(&self, client: &C::Calls, txn: Txn) -> Result<bool, calls::Error> {
        let puts = txn.writes.iter().filter_map(|write| match write {
            Write::Put(key, value, lease) => Some((key.clone(), value.clone(), *lease)),
            Write::Delete(_) => None,
        });
        let puts: Vec<_> = puts.collect();
        let revision = client.write_if(txn.checks, txn.writes).await?;
        if let Some(revision) = revision {
            self.state.lock().wrote(revision, puts);
        }
        Ok(revision.is_some())
    }
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

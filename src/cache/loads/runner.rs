//! Runs loads: asks origins, stores what they say, and answers who waits. All in one thread, which serves no client.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::cache::Cache;
use crate::cache::loads::life::Life;
use crate::cache::loads::{Loads, Started, not_found};
use crate::cache::turn::Turn;
use crate::command::{Command, Found, Outcome, Unavailable, Verb};
use crate::groups::Group;
use crate::groups::stats::Result as Ended;
use crate::item::ItemView;
use crate::origin::{Failed, Fetched, Loaded, Origin};
use crate::pb;
use crate::peer::PendingOp;
use crate::store::LoadEnd;

/// A load goes on for so many times as long as a client waits for it: then it has failed.
const PATIENCE: u32 = 3;

/// Runs what has started until `stop`. `cache` is of the thread that calls this; what it counts, nobody reads.
pub async fn run(
    loads: Arc<Loads>,
    cache: Cache,
    mut started: mpsc::UnboundedReceiver<Started>,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let runner = Arc::new(Runner { loads, cache });
    while let Some(Some(started)) = stop.run_until_cancelled(started.recv()).await {
        let runner = runner.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { runner.load(started).await }));
    }
    // What would start from here on is a miss.
    drop(started);
    tasks.close();
    tasks.wait().await;
    runner.loads.give_up();
}

struct Runner {
    loads: Arc<Loads>,
    cache: Cache,
}

/// What came of asking.
enum Answer {
    Found(Loaded),
    /// What was to be replaced lives on, or was replaced otherwise and nobody waits.
    Unchanged,
    Absent,
    /// Nothing: that is how the load ends.
    Nothing(Ended),
}

/// A load that is under way. One that is dropped before its end, because the node stops or its task has failed, is over
/// all the same.
struct Underway<'a> {
    runner: &'a Runner,
    started: &'a Started,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let Started { key, load, .. } = self.started;
        self.runner.begin().end_load(key, load, false);
        // Whoever still waits is answered as it is dropped.
        drop(self.runner.loads.take(load.number));
    }
}

impl Runner {
    async fn load(&self, started: Started) {
        let underway = Underway { runner: self, started: &started };
        let answer = self.ask(&started).await;
        self.finish(&started, answer);
        // Nothing is left to end.
        std::mem::forget(underway);
    }

    async fn ask(&self, started: &Started) -> Answer {
        let group = &started.group;
        let Some(origin) = &group.origin else { return Answer::Nothing(Ended::Dropped) };
        if group.is_broken() {
            return Answer::Nothing(Ended::Refused);
        }
        // Held until the origin has answered.
        let _permit = {
            let permit = group.permits.clone().acquire_owned();
            tokio::select! {
                biased;
                permit = permit => permit,
                () = self.deserted(started) => return Answer::Nothing(Ended::Dropped),
            }
        };
        if !group.may_ask() {
            return Answer::Nothing(Ended::Refused);
        }
        let inflight = InFlight::of(group);
        let began = Instant::now();
        let limit = group.options.wait * PATIENCE;
        let fetched = {
            let mut fetch = pin!(timeout(limit, self.fetch(started, &**origin)));
            loop {
                // Whoever comes from now on waits for no shorter time.
                let next = self.expire(started).unwrap_or_else(|| Instant::now() + group.options.wait);
                tokio::select! {
                    biased;
                    fetched = &mut fetch => break fetched,
                    () = sleep_until(next) => {}
                }
            }
        };
        group.stats.took(began.elapsed());
        drop(inflight);
        match fetched {
            Ok(Ok(fetched)) => answered(started, fetched),
            Ok(Err(failed)) => failure(started, &failed.to_string()),
            Err(_) => failure(started, &format!("no answer within {limit:?}")),
        }
    }

    /// Asks the origin; where it is remembered what it knows the value by that is to be replaced, only for another one.
    async fn fetch(&self, started: &Started, origin: &dyn Origin) -> Result<Fetched, Failed> {
        let Started { group, key, load, .. } = started;
        let suffix = group.suffix(key);
        let Some(known) = self.loads.validators.find(key, load, group) else {
            return origin.fetch(suffix).await;
        };
        match origin.fetch_if_changed(suffix, &known).await? {
            // What it was asked about is here no more: whoever waits is to be shown a value all the same.
            Fetched::Unchanged { ttl } if !self.renew(started, ttl) && self.loads.is_awaited(load.number) => {
                origin.fetch(suffix).await
            }
            fetched => Ok(fetched),
        }
    }

    /// Lets the value live on that was to be replaced; whether it does. From here on nobody joins the load.
    fn renew(&self, started: &Started, ttl: Option<Duration>) -> bool {
        let Started { group, key, load, .. } = started;
        let life = Life::new(group, load.number, ttl);
        let mut turn = self.begin();
        if life.is_none() {
            turn.end_load(key, load, true);
            return false;
        }
        turn.renew_load(key, load, life.kept_seconds(group), life.is_renewed)
    }

    /// Returns when nobody waits for a load any more; of one that nobody need wait for, when somebody would not have.
    async fn deserted(&self, started: &Started) {
        let until = Instant::now() + started.group.options.wait;
        loop {
            match self.expire(started) {
                Some(next) => sleep_until(next).await,
                None if started.is_refresh && Instant::now() < until => sleep_until(until).await,
                None => return,
            }
        }
    }

    /// Answers those who have waited for too long. When the next one will have; `None` when nobody waits.
    fn expire(&self, started: &Started) -> Option<Instant> {
        let (expired, next) = self.loads.take_expired(started.load.number);
        if !expired.is_empty() {
            started.group.stats.timeouts.fetch_add(expired.len() as u64, Ordering::Relaxed);
            self.answer(self.begin(), expired, false, None);
        }
        next
    }

    fn begin(&self) -> Turn<'_> {
        self.cache.begin(self.cache.store().clock().now(), 0)
    }

    /// Stores what was loaded, and answers who waits.
    fn finish(&self, started: &Started, answer: Answer) {
        let Started { group, key, load, .. } = started;
        let mut turn = self.begin();
        let mut shown = None;
        let ended = match answer {
            Answer::Found(mut loaded) => {
                let life = Life::new(group, load.number, loaded.ttl);
                let stored = store(&mut turn, started, &loaded, life);
                if let (Some(cas), true) = (stored, life.is_renewed) {
                    self.loads.validators.note(key, cas, group, loaded.validator.take());
                }
                shown = Some((loaded, life));
                if stored.is_some() { Ended::Stored } else { Ended::Shown }
            }
            Answer::Unchanged => Ended::Unchanged,
            Answer::Absent => {
                // In this order, so that a write in between is not passed over.
                self.loads.note_absent(key, group, load.generation);
                if !turn.end_load(key, load, true) {
                    self.loads.forget_negative(key);
                }
                Ended::Absent
            }
            Answer::Nothing(ended) => {
                turn.end_load(key, load, false);
                ended
            }
        };
        group.stats.ended(ended);
        // From here on nobody joins it: the store has forgotten it.
        let waiting = self.loads.take(load.number);
        let is_here = matches!(ended, Ended::Stored | Ended::Unchanged);
        self.answer(turn, waiting, is_here, shown.as_ref().map(|(loaded, life)| (loaded, *life)));
    }

    /// Answers reads with what lies under their key now, or else with what was loaded. Says nothing when this node may not
    /// answer for the key by now. Only what was `stored` or renewed by their load gets the time to live that they give.
    fn answer(
        &self,
        mut turn: Turn<'_>,
        waiting: impl IntoIterator<Item = PendingOp>,
        stored: bool,
        loaded: Option<(&Loaded, Life)>,
    ) {
        let mut answered = Vec::new();
        for op in waiting {
            let result = outcome(&mut turn, &op, stored, loaded);
            answered.push((op, result));
        }
        let may_answer = turn.finish().is_ok();
        for (op, result) in answered {
            op.answer(if may_answer { result } else { Err(Unavailable::Unanswered) });
        }
    }
}

/// Counts a load that asks the origin, until it is dropped.
struct InFlight<'a>(&'a Group);

impl<'a> InFlight<'a> {
    fn of(group: &'a Group) -> Self {
        group.stats.inflight.fetch_add(1, Ordering::Relaxed);
        Self(group)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.stats.inflight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The origin has answered.
fn answered(started: &Started, fetched: Fetched) -> Answer {
    let group = &started.group;
    if matches!(fetched, Fetched::Unaskable(_)) {
        group.note_unasked();
    } else if group.note_answer(true) {
        info!(group = group.options.name, "the origin answers again");
    }
    let (answer, how) = match fetched {
        Fetched::Found(loaded) => (Answer::Found(loaded), "loaded".to_owned()),
        Fetched::Unchanged { .. } => (Answer::Unchanged, "loaded: it is unchanged".to_owned()),
        Fetched::Absent => (Answer::Absent, "loaded: there is none".to_owned()),
        Fetched::Refused(why) | Fetched::Unaskable(why) => {
            (Answer::Nothing(Ended::Failed), format!("not loaded: {why}"))
        }
    };
    debug!(group = group.options.name, key = %started.key.escape_ascii(), "{how}");
    answer
}

/// The origin has failed.
fn failure(started: &Started, why: &str) -> Answer {
    let group = &started.group;
    debug!(group = group.options.name, key = %started.key.escape_ascii(), "not loaded: {why}");
    if group.note_answer(false) {
        warn!(
            group = group.options.name,
            "the origin fails, and is asked less often until it answers: {why}"
        );
    }
    Answer::Nothing(Ended::Failed)
}

/// Stores what was loaded; the CAS token of its item, if it lies here now.
fn store(turn: &mut Turn<'_>, started: &Started, loaded: &Loaded, life: Life) -> Option<u64> {
    let Started { group, key, key_binary, load, .. } = started;
    if life.is_none() {
        // What was there before is not to be shown any more, either.
        turn.end_load(key, load, true);
        return None;
    }
    let kept = life.kept_seconds(group);
    let item = ItemView { ttl_seconds: kept, loaded: life.is_renewed, ..view(key, *key_binary, loaded) };
    match turn.finish_load(load, &item) {
        Some(LoadEnd::Stored { cas }) => Some(cas),
        _ => None,
    }
}

fn outcome(
    turn: &mut Turn<'_>,
    op: &PendingOp,
    stored: bool,
    loaded: Option<(&Loaded, Life)>,
) -> Result<pb::Outcome, Unavailable> {
    let operation = op.operation().open();
    let Some(mut command) = operation.ok().and_then(|operation| pb::command(&operation).ok()) else {
        return Err(Unavailable::Unanswered);
    };
    if let (false, Verb::Get(get)) = (stored, &mut command.verb) {
        get.touch = None;
    }
    // In a group that shows what is stale, too: there was nothing better.
    let there = turn.execute_as_is(&command, |outcome| match outcome {
        Outcome::Found(_) => Some(pb::outcome(0, &outcome)),
        _ => None,
    });
    match there {
        Ok(Some(outcome)) => Ok(outcome),
        // It owns the key no more; a miss is always right.
        Err(_) => Err(Unavailable::Refused),
        Ok(None) => Ok(loaded.map_or_else(not_found, |loaded| show(&command, loaded))),
    }
}

/// A value that does not lie here, as a read would have found it.
fn show(command: &Command<'_>, (loaded, life): (&Loaded, Life)) -> pb::Outcome {
    let item = view(command.key, command.key_binary, loaded);
    let found = Found::plain(ItemView { ttl_seconds: life.seconds(), ..item }, life.seconds());
    pb::outcome(0, &Outcome::Found(found))
}

fn view<'a>(key: &'a [u8], key_binary: bool, loaded: &'a Loaded) -> ItemView<'a> {
    ItemView {
        key,
        value: &loaded.value,
        value_len: loaded.value.len(),
        flags: loaded.flags,
        key_binary,
        ..ItemView::default()
    }
}

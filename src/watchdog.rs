//! Whether every thread that must act still does.
//!
//! Each of them beats, from a timer of its own. A caller can ask for a thread that has not beaten for too long. No
//! member can count on a node with a thread that stands still: it would answer pings and keep its lease while its
//! clients wait.
//!
//! Time is counted in which this process ran. When all of it was stopped, no thread is stuck.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info};

/// Of a node that is alone, how long a thread may stand still: a usual lease.
const BOUND: Duration = Duration::from_secs(5);

/// Watches over threads.
#[derive(Debug)]
pub struct Watchdog {
    bound: Duration,
    threads: Mutex<Threads>,
    /// Where tests say which thread is to stand still.
    held_by: Option<PathBuf>,
}

#[derive(Debug)]
struct Threads {
    /// When somebody last looked at the clock, and how long this process had run by then.
    seen: Instant,
    lived: Duration,
    beats: Vec<Beat>,
    next_id: u64,
    is_over: bool,
}

#[derive(Debug)]
struct Beat {
    id: u64,
    thread: String,
    /// What had been lived at the last beat.
    at: Duration,
    /// Whether it was said that it is late.
    is_told: bool,
}

/// A thread that does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Its name.
    pub thread: String,
    /// For how long.
    pub age: Duration,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the thread {} has stood still for {:.1} s", self.thread, self.age.as_secs_f64())
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new(BOUND)
    }
}

impl Watchdog {
    /// Nobody is watched yet. A thread is stuck after standing still for longer than `bound`.
    pub fn new(bound: Duration) -> Self {
        let threads = Threads {
            seen: Instant::now(),
            lived: Duration::ZERO,
            beats: Vec::new(),
            next_id: 0,
            is_over: false,
        };
        Self { bound, threads: Mutex::new(threads), held_by: None }
    }

    /// The same, but in debug builds a thread stands still at its beat for as long as this folder
    /// has a file of its name.
    pub fn held_by(self, held_by: Option<PathBuf>) -> Self {
        Self { held_by, ..self }
    }

    /// Stands still while a test wants what is called `name` to.
    pub fn hold(&self, name: &str) {
        if let Some(folder) = self.held_by.as_ref().filter(|_| cfg!(debug_assertions)) {
            while folder.join(name).is_file() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Watches one more thread, or task of one, from now on: until the [`Heartbeat`] is dropped, but
    /// not if that is because of a panic.
    pub fn watch(self: &Arc<Self>, thread: impl Into<String>) -> Heartbeat {
        let mut threads = self.threads.lock();
        let at = threads.live(Instant::now(), self.step());
        let (id, thread) = (threads.next_id, thread.into());
        threads.next_id += 1;
        threads.beats.push(Beat { id, thread: thread.clone(), at, is_told: false });
        Heartbeat { watchdog: Arc::clone(self), id, thread }
    }

    /// How often a thread beats.
    pub fn interval(&self) -> Duration {
        (self.bound / 10).clamp(Duration::from_millis(20), Duration::from_millis(500))
    }

    /// The thread that has stood still for longest, if that is too long.
    pub fn stuck(&self) -> Option<Stuck> {
        self.stuck_as_of(Instant::now())
    }

    fn stuck_as_of(&self, now: Instant) -> Option<Stuck> {
        let mut threads = self.threads.lock();
        let lived = threads.live(now, self.step());
        let oldest = threads.beats.iter().min_by_key(|beat| beat.at).filter(|_| !threads.is_over)?;
        let age = lived.saturating_sub(oldest.at);
        (age > self.bound).then(|| Stuck { thread: oldest.thread.clone(), age })
    }

    /// How long ago each thread beat.
    pub fn ages(&self) -> Vec<(String, Duration)> {
        let mut threads = self.threads.lock();
        let lived = threads.live(Instant::now(), self.step());
        let age = |beat: &Beat| (beat.thread.clone(), lived.saturating_sub(beat.at));
        threads.beats.iter().map(age).collect()
    }

    /// The node stops: from here on, threads end and wait for one another.
    pub fn end(&self) {
        self.threads.lock().is_over = true;
    }

    /// When nobody has looked for this long, no thread ran.
    fn step(&self) -> Duration {
        self.interval() * 2
    }

    fn beat(&self, id: u64, now: Instant) {
        let (mut late, mut on_time) = (Vec::new(), Vec::new());
        {
            let mut threads = self.threads.lock();
            let lived = threads.live(now, self.step());
            let is_over = threads.is_over;
            for beat in &mut threads.beats {
                let age = lived.saturating_sub(beat.at);
                if beat.id == id {
                    beat.at = lived;
                    if std::mem::take(&mut beat.is_told) {
                        on_time.push((beat.thread.clone(), age));
                    }
                } else if age > self.bound && !beat.is_told && !is_over {
                    beat.is_told = true;
                    late.push((beat.thread.clone(), age));
                }
            }
        }
        for (thread, age) in late {
            let seconds = tenths(age);
            error!(thread, seconds, "a thread does not go on: until it does, this node is not alive");
        }
        for (thread, age) in on_time {
            let seconds = tenths(age);
            info!(thread, seconds, "a thread that had stood still goes on");
        }
    }
}

/// In seconds, as people read them.
fn tenths(age: Duration) -> f64 {
    (age.as_secs_f64() * 10.0).round() / 10.0
}

impl Threads {
    /// How long this process has run.
    fn live(&mut self, now: Instant, step: Duration) -> Duration {
        self.lived += now.saturating_duration_since(self.seen).min(step);
        self.seen = self.seen.max(now);
        self.lived
    }
}

/// What a thread, or a task, shows with that it goes on.
#[derive(Debug)]
pub struct Heartbeat {
    watchdog: Arc<Watchdog>,
    id: u64,
    thread: String,
}

impl Heartbeat {
    /// The thread goes on. To be called every [`Watchdog::interval`].
    pub fn beat(&self) {
        self.watchdog.hold(&self.thread);
        self.watchdog.beat(self.id, Instant::now());
    }

    /// Beats in a task of its own, for the thread that this is polled in.
    pub async fn keep(self) {
        self.along(std::future::pending()).await
    }

    /// Beats in one task with `work`, which has its say between any two beats.
    pub async fn along<T>(self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = interval(self.watchdog.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => self.beat(),
                done = work.as_mut() => return done,
            }
        }
    }

    /// Sleeps for so long, and beats meanwhile.
    pub fn sleep(&self, duration: Duration) {
        let until = Instant::now() + duration;
        loop {
            self.beat();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(self.watchdog.interval()));
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // What has panicked does not go on.
        if !std::thread::panicking() {
            self.watchdog.threads.lock().beats.retain(|beat| beat.id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second is the bound; a thread beats every tenth.
    fn watchdog() -> (Arc<Watchdog>, Instant) {
        let watchdog = Arc::new(Watchdog::new(Duration::from_secs(1)));
        let start = watchdog.threads.lock().seen;
        (watchdog, start)
    }

    fn name(stuck: Option<Stuck>) -> Option<String> {
        stuck.map(|stuck| stuck.thread)
    }

    #[test]
    fn who_does_not_beat_is_stuck_until_it_does() {
        let (watchdog, start) = watchdog();
        let (a, b) = (watchdog.watch("a"), watchdog.watch("b"));
        let at = |tenths: u32| start + Duration::from_millis(100) * tenths;
        for tenth in 1..=10 {
            watchdog.beat(a.id, at(tenth));
            assert_eq!(watchdog.stuck_as_of(at(tenth)), None, "{tenth}");
        }
        watchdog.beat(a.id, at(11));
        assert_eq!(name(watchdog.stuck_as_of(at(11))).as_deref(), Some("b"));
        watchdog.beat(b.id, at(12));
        assert_eq!(watchdog.stuck_as_of(at(12)), None);
        assert_eq!(watchdog.ages().len(), 2);
    }

    #[test]
    fn a_process_that_stood_still_has_no_stuck_thread() {
        let (watchdog, start) = watchdog();
        let (a, _b) = (watchdog.watch("a"), watchdog.watch("b"));
        let woken = start + Duration::from_secs(60);
        assert_eq!(watchdog.stuck_as_of(woken), None);
        watchdog.beat(a.id, woken);
        assert_eq!(watchdog.stuck_as_of(woken + Duration::from_millis(100)), None, "b will beat, too");
    }

    #[test]
    fn who_ends_is_not_missed_and_who_panics_is() {
        let (watchdog, start) = watchdog();
        let a = watchdog.watch("a");
        drop(watchdog.watch("ended"));
        let beside = watchdog.clone();
        let panicked = std::thread::spawn(move || {
            let _heart = beside.watch("panicked");
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panicked.join().is_err());
        let mut now = start;
        for _ in 0..20 {
            now += Duration::from_millis(100);
            watchdog.beat(a.id, now);
        }
        assert_eq!(name(watchdog.stuck_as_of(now)).as_deref(), Some("panicked"));
        watchdog.end();
        assert_eq!(watchdog.stuck_as_of(now), None, "at the end nobody is");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_beats_while_it_waits() {
        let watchdog = Arc::new(Watchdog::new(Duration::from_secs(1)));
        let heartbeat = watchdog.watch("task");
        heartbeat.along(tokio::time::sleep(Duration::from_secs(60))).await;
        assert!(watchdog.ages().is_empty(), "it has ended");
    }
}

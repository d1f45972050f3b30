//! How a node gets on with its etcd, for metrics and people.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What has gone well and what has not since the start. Written by the task that talks to etcd.
#[derive(Debug)]
pub struct Health {
    lease_ttl: Duration,
    connected: AtomicBool,
    session_failures: AtomicU64,
    lease_renewals: AtomicU64,
    watch_restarts: AtomicU64,
    revision: AtomicI64,
    lease_ends: Mutex<Option<Instant>>,
}

/// A [`Health`] at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Whether there is a session: everything was read, and is watched.
    pub connected: bool,
    /// How long the lease lasts in etcd unless it is renewed.
    pub lease_ttl: Duration,
    /// How long it still lasts; zero without one.
    pub lease_remaining: Duration,
    /// Times the lease was granted or renewed.
    pub lease_renewals: u64,
    /// Sessions that ended or did not come about.
    pub session_failures: u64,
    /// Times the watch was behind and was begun anew.
    pub watch_restarts: u64,
    /// etcd's revision up to which everything is known.
    pub revision: i64,
}

impl Health {
    pub(super) fn new(lease_ttl: Duration) -> Self {
        Self {
            lease_ttl,
            connected: AtomicBool::default(),
            session_failures: AtomicU64::default(),
            lease_renewals: AtomicU64::default(),
            watch_restarts: AtomicU64::default(),
            revision: AtomicI64::default(),
            lease_ends: Mutex::default(),
        }
    }

    /// What is so now.
    pub fn report(&self) -> Report {
        let lease_ends = *self.lease_ends.lock();
        Report {
            connected: self.connected.load(Ordering::Relaxed),
            lease_ttl: self.lease_ttl,
            lease_remaining: lease_ends
                .map_or(Duration::ZERO, |ends| ends.saturating_duration_since(Instant::now())),
            lease_renewals: self.lease_renewals.load(Ordering::Relaxed),
            session_failures: self.session_failures.load(Ordering::Relaxed),
            watch_restarts: self.watch_restarts.load(Ordering::Relaxed),
            revision: self.revision.load(Ordering::Relaxed),
        }
    }

    pub(super) fn connected(&self) {
        self.connected.store(true, Ordering::Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.connected.store(false, Ordering::Relaxed);
        self.session_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The lease was granted or renewed by a call that began then.
    pub(super) fn renewed(&self, began: Instant) {
        self.lease_renewals.fetch_add(1, Ordering::Relaxed);
        *self.lease_ends.lock() = Some(began + self.lease_ttl);
    }

    /// The lease is gone.
    pub(super) fn lost_lease(&self) {
        *self.lease_ends.lock() = None;
    }

    pub(super) fn watch_restarted(&self) {
        self.watch_restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read_up_to(&self, revision: i64) {
        self.revision.store(revision, Ordering::Relaxed);
    }
}

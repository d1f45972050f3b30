//! Groups: named parts of the keys, each by its prefix, and what is special about them.
//!
//! A group may have an origin, from which a missing value is loaded. The cache decides when; this says how.

pub mod breaker;
pub mod options;
pub mod stats;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::groups::breaker::Breaker;
use crate::groups::options::{Options, OriginOptions};
use crate::groups::stats::Stats;
use crate::origin::{Invalid, Origin};
use crate::prefixes::Prefixes;
use crate::store::KeyGroup;

/// A group, as it is run.
pub struct Group {
    /// What it was configured to be.
    pub options: Options,
    /// Where its values come from; `None` where they come from clients alone.
    pub origin: Option<Arc<dyn Origin>>,
    /// What it has done.
    pub stats: Stats,
    /// One permit for each load that may run at the same time.
    pub permits: Arc<Semaphore>,
    /// For how long before its time is over a value that is asked for is loaded anew.
    pub refresh_span: Duration,
    breaker: Mutex<Breaker>,
}

impl Group {
    /// A group that has done nothing yet.
    ///
    /// # Errors
    /// Its origin cannot be used as it is configured.
    pub fn new(options: Options) -> Result<Self, Invalid> {
        let origin = options.origin.as_ref().map(OriginOptions::open).transpose()?;
        Ok(Self::with_origin(options, origin))
    }

    /// A group that asks this origin.
    pub fn with_origin(options: Options, origin: Option<Arc<dyn Origin>>) -> Self {
        let permits = Arc::new(Semaphore::new(options.max_inflight));
        let refresh_span = options.own_ttl().unwrap_or_default().mul_f64(options.refresh_ahead);
        Self { origin, stats: Stats::default(), permits, refresh_span, breaker: Mutex::default(), options }
    }

    /// A loaded value that is kept for more seconds than these is shown as it is.
    pub fn due_seconds(&self) -> u32 {
        let span = self.options.stale_span().saturating_add(self.refresh_span);
        u32::try_from(span.as_secs().saturating_add(1)).unwrap_or(u32::MAX)
    }

    /// A key without the prefix of this group, as the origin knows it.
    pub fn suffix<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        key.get(self.options.prefix.len()..).unwrap_or_default()
    }

    /// Whether the origin is not to be asked for now, because it failed too often.
    pub fn is_broken(&self) -> bool {
        self.breaker.lock().is_open()
    }

    /// Whether a load may ask the origin: always, unless it failed too often; then one at a time, now and then.
    pub fn may_ask(&self) -> bool {
        self.breaker.lock().may_try()
    }

    /// Notes that a load that might have asked the origin ([`Group::may_ask`]) has not.
    pub fn note_unasked(&self) {
        self.breaker.lock().give_back();
    }

    /// Notes whether the origin has answered. Returns whether that has changed anything: it is asked again, or no more.
    pub fn note_answer(&self, answered: bool) -> bool {
        let mut breaker = self.breaker.lock();
        if answered { breaker.succeed() } else { breaker.fail() }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("options", &self.options).finish_non_exhaustive()
    }
}

/// All groups of a node.
#[derive(Debug, Default)]
pub struct Groups {
    all: Prefixes<Arc<Group>>,
    digest: u64,
}

impl Groups {
    /// These groups. Of those before, one whose options are the same goes on with what it has.
    ///
    /// # Errors
    /// The name of the group whose origin cannot be used, and why.
    pub fn new(options: &[Options], before: &Self) -> Result<Self, (String, Invalid)> {
        let group = |options: &Options| match before.iter().find(|group| group.options == *options) {
            Some(group) => Ok(group.clone()),
            None => {
                Group::new(options.clone()).map(Arc::new).map_err(|invalid| (options.name.clone(), invalid))
            }
        };
        options.iter().map(group).collect::<Result<Vec<_>, _>>().map(Self::of)
    }

    /// These groups.
    pub fn of(all: Vec<Arc<Group>>) -> Self {
        let mut said: Vec<String> = all.iter().map(|group| group.options.said()).collect();
        said.sort_unstable();
        let digest = if said.is_empty() { 0 } else { xxhash_rust::xxh3::xxh3_64(said.join("\n").as_bytes()) };
        let all = Prefixes::new(all.iter().map(|group| (&*group.options.prefix, group.clone())));
        Self { all, digest }
    }

    /// The group of a key: the one with the longest prefix that fits.
    pub fn find(&self, key: &[u8]) -> Option<&Arc<Group>> {
        self.all.get(key)
    }

    /// The group of a key, if its values can be loaded.
    pub fn find_loadable(&self, key: &[u8]) -> Option<&Arc<Group>> {
        self.find(key).filter(|group| group.origin.is_some())
    }

    /// All of them, those with the longest prefix first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.all.values()
    }

    /// What the store needs to know of them.
    pub fn key_groups(&self) -> Vec<KeyGroup> {
        let of = |group: &Arc<Group>| KeyGroup {
            prefix: group.options.prefix.clone(),
            max_bytes: group.options.max_bytes,
        };
        self.iter().map(of).collect()
    }

    /// The longest time for which a client of any group waits for a load.
    pub fn longest_wait(&self) -> Duration {
        self.iter().map(|group| group.options.wait).max().unwrap_or_default()
    }

    /// What all nodes should have in common: a hash of the options of all groups; 0 where there is none.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, prefix: &str) -> Options {
        Options { name: name.into(), prefix: prefix.into(), ..Options::default() }
    }

    #[test]
    fn the_longest_prefix_that_fits_wins() {
        let options = [group("all", "a"), group("scores", "a:scores:"), group("users", "a:users:")];
        let groups = Groups::new(&options, &Groups::default()).expect("no origins");
        let found = |key: &str| groups.find(key.as_bytes()).map(|group| group.options.name.clone());
        assert_eq!(found("a:scores:Tom").as_deref(), Some("scores"));
        assert_eq!(found("a:scores").as_deref(), Some("all"));
        assert_eq!(found("a:users:").as_deref(), Some("users"));
        assert_eq!(found("b"), None);
        let tom = groups.find(b"a:scores:Tom").expect("there");
        assert_eq!(tom.suffix(b"a:scores:Tom"), b"Tom");
    }

    #[test]
    fn a_group_that_stays_as_it_was_goes_on() {
        let options = [group("a", "a"), group("b", "b")];
        let before = Groups::new(&options, &Groups::default()).expect("no origins");
        let changed = [options[0].clone(), Options { max_inflight: 1, ..options[1].clone() }];
        let after = Groups::new(&changed, &before).expect("no origins");
        let same = |key: &[u8]| match (before.find(key), after.find(key)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        assert!(same(b"a") && !same(b"b"));
        assert_ne!(before.digest(), after.digest());
        let turned = [options[1].clone(), options[0].clone()];
        assert_eq!(before.digest(), Groups::new(&turned, &before).expect("no origins").digest());
    }
}

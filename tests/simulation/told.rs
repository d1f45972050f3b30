//! What came of the histories of a run.

use crate::support::history::{Ending, Found, History, What, Write};

/// What came of a history.
#[derive(Debug, Default)]
pub struct Told {
    pub seed: u64,
    /// What was wrong, and all that happened; empty when nothing was.
    pub wrong: String,
    /// The same whenever the same happened.
    pub digest: u64,
    pub reads: usize,
    pub hits: usize,
    /// Hits with a value of the database.
    pub loaded: usize,
    pub writes: usize,
    pub acknowledged: usize,
    pub views: usize,
    /// What `World::moved` says.
    pub moved: [u64; 4],
}

impl Told {
    /// Counts what one key's clients did.
    pub fn count(&mut self, history: &History) {
        self.reads += history.reads.len();
        let loaded = history.reads.iter().filter(|read| matches!(read.found, Found::Loaded(_))).count();
        let written = history.reads.iter().filter(|read| matches!(read.found, Found::Value(_))).count();
        self.loaded += loaded;
        self.hits += loaded + written;
        let is_clients = |write: &&Write| matches!(write.what, What::Store | What::Delete);
        self.writes += history.writes.iter().filter(is_clients).count();
        let is_acknowledged = |write: &&Write| write.ending == Ending::Acknowledged;
        self.acknowledged += history.writes.iter().filter(is_clients).filter(is_acknowledged).count();
    }
}

/// Prints what happened in all histories together.
pub fn summarize(told: &[Told]) {
    let sum = |count: fn(&Told) -> usize| told.iter().map(count).sum::<usize>();
    let [items, found, absent, failed] = moved(told);
    println!(
        "{} histories: {} reads, {} hits, {} of them loaded, {} writes, {} acknowledged, {} views, \
         {items} items moved; {found} commands waited for one that came, {absent} for none, {failed} in vain",
        told.len(),
        sum(|told| told.reads),
        sum(|told| told.hits),
        sum(|told| told.loaded),
        sum(|told| told.writes),
        sum(|told| told.acknowledged),
        sum(|told| told.views),
    );
}

/// Items were moved, and commands waited for them in vain and not in vain.
pub fn moves_happened(told: &[Told]) {
    let (least, moved) = (told.len() as u64, moved(told));
    let [items, found, absent, failed] = moved;
    let enough = items > least * 4 && found * 2 > least && absent * 2 > least && failed * 10 > least;
    assert!(least < 100 || enough, "{moved:?}");
}

fn moved(told: &[Told]) -> [u64; 4] {
    std::array::from_fn(|what| told.iter().map(|told| told.moved[what]).sum())
}

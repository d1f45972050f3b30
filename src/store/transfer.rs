//! Taking items out, for another node.

use std::ops::{ControlFlow, RangeInclusive};

use crate::clock::Seconds;
use crate::store::commands;
use crate::store::context::{Context, Request, ScanContext};
use crate::store::moving::MovingItem;
use crate::store::{Before, Caller, Store};

/// In what use an item is.
#[derive(Debug, Clone)]
pub struct Usage {
    /// When it was used last.
    pub last: RangeInclusive<Seconds>,
    /// How often it was asked for at least, as far as that is counted.
    pub uses: u8,
}

impl Store {
    /// Whether a live item lies under a key.
    pub fn is_live(&self, caller: &Caller<'_>, key: &[u8]) -> bool {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let rq = Request { cx: Context::new(&self.shards.shared, caller), key, key_binary: false };
        commands::live(&mut table, &rq).is_some()
    }

    /// Takes the live item under a key out, which `show` is shown while it still lies here. Whether there was one. No command
    /// is counted.
    pub fn take(&self, caller: &Caller<'_>, key: &[u8], show: impl FnOnce(&MovingItem<'_>)) -> bool {
        let (key, index) = self.shards.locate(key);
        let mut table = self.shards.lock(index);
        let before = Before::of(&table);
        let rq = Request { cx: Context::new(&self.shards.shared, caller), key, key_binary: false };
        let taken = commands::take(&mut table, &rq, show);
        self.count(&mut table, &before);
        taken
    }

    /// Takes live items of one part of the memory out that are in such `usage` and whose keys are `wanted`: each is shown to
    /// `take`, until that breaks off, and then stays. Returns how many items were looked at; eight count as one that were in
    /// other use. The keys of a slot of a cluster lie in all parts. No command is counted.
    pub fn take_part(
        &self,
        caller: &Caller<'_>,
        part: usize,
        usage: &Usage,
        wanted: impl Fn(&[u8]) -> bool,
        mut take: impl FnMut(&MovingItem<'_>) -> ControlFlow<()>,
    ) -> usize {
        let (mut passed, mut looked_at) = (0, 0);
        let (shard, piece) = self.shards.part(part);
        let mut table = self.shards.lock(shard);
        let before = Before::of(&table);
        let scan = ScanContext::new(&self.shards.shared, caller);
        let in_use = |last, uses| {
            passed += 1;
            usage.last.contains(&last) && uses >= u64::from(usage.uses)
        };
        table.take_out(piece, in_use, |key, facts, value, uses| {
            looked_at += 1;
            if !wanted(key) || scan.dead(key, facts).is_some() {
                return ControlFlow::Continue(false);
            }
            take(&MovingItem::new(&scan.cx, key, facts, value, uses)).map_continue(|()| true)
        });
        self.count(&mut table, &before);
        looked_at + passed / 8
    }
}

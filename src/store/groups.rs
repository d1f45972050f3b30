//! Groups of keys: what the store is told of them, and what it tells of each.

use std::collections::HashMap;

use crate::store::{GroupUse, KeyGroup, Store};

impl Store {
    /// Other groups of keys from now on. One that is given memory of its own makes room among its own items; what lay
    /// elsewhere before moves when it is written, or when its turn comes.
    pub fn set_groups(&self, groups: &[KeyGroup]) {
        let _one_at_a_time = self.setting_groups.lock();
        self.shards.set_groups(groups);
    }

    /// What each group has in memory, by its prefix.
    pub fn group_uses(&self) -> HashMap<Box<[u8]>, GroupUse> {
        let groups = self.shards.shared.groups();
        let mut uses: Vec<_> = groups.prefixes().map(|prefix| (prefix.into(), GroupUse::default())).collect();
        for table in &self.shards.tables {
            let table = table.lock();
            // Other groups may be being set.
            if table.has_groups(&groups) {
                uses.iter_mut().zip(table.group_uses()).for_each(|((_, sum), of_shard)| sum.add(of_shard));
            }
        }
        uses.into_iter().collect()
    }
}

//! Groups of keys, by prefix: each is counted apart, and may have memory of its own with a bound.
//!
//! Memory with a bound is a partition: it has segments and queues of its own in every shard, and makes room among its own
//! items. All other keys share the first partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::prefixes::Prefixes;
use crate::store::table::pool::Pool;

/// A group of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGroup {
    /// What its keys begin with, unless a longer prefix fits.
    pub prefix: Vec<u8>,
    /// Bytes that its items may take; `None` where it shares the memory with all other keys.
    pub max_bytes: Option<u64>,
}

/// What a group has in memory, and what its reads have found. Counts go back to 0 when other groups are set and its prefix
/// is not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupUse {
    /// Items, dead ones that nobody has met yet included.
    pub items: u64,
    /// Bytes of the items, without the index.
    pub bytes: u64,
    /// Reads that found an item.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Items that gave way.
    pub evictions: u64,
}

impl GroupUse {
    /// Adds what another shard has.
    pub(in crate::store) fn add(&mut self, other: &Self) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.hits += other.hits;
        self.misses += other.misses;
        self.evictions += other.evictions;
    }
}

/// All groups, as the shards know them.
#[derive(Debug)]
pub(in crate::store) struct KeyGroups {
    /// Each with the partition in which its items lie.
    prefixes: Prefixes<usize>,
    /// By number. The first is of all keys that have no memory of their own, and counts nothing here.
    partitions: Vec<Partition>,
}

/// Memory with a bound.
#[derive(Debug, Clone)]
pub(in crate::store) struct Partition {
    prefix: Box<[u8]>,
    /// None once the group has gone, or has no bound any more: what is left gives way before anything else.
    limit: i64,
    used: Arc<AtomicI64>,
    /// Bytes that were taken apart since the bound held.
    pub(in crate::store) taken: Arc<AtomicI64>,
    pool: Arc<Pool>,
}

impl Partition {
    /// Bytes that it may take.
    pub(in crate::store) fn limit(&self) -> i64 {
        self.limit
    }

    /// Bytes that it takes, in all shards.
    pub(in crate::store) fn used(&self) -> i64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes by which its bound does not hold; none or less where it does.
    pub(in crate::store) fn missing(&self) -> i64 {
        self.used() - self.limit
    }

    pub(super) fn used_changed(&self, bytes: i64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl KeyGroups {
    /// No groups: all keys share the memory, whose segments come from this pool.
    pub(in crate::store) fn none(pool: Arc<Pool>) -> Self {
        let all_others = Partition {
            prefix: Box::default(),
            limit: i64::MAX,
            used: Arc::default(),
            taken: Arc::default(),
            pool,
        };
        Self { prefixes: Prefixes::default(), partitions: vec![all_others] }
    }

    /// These groups in place of those before. A group that had memory of its own and has a bound again keeps it. `pool`
    /// makes one for the segments of memory with so many bytes.
    pub(in crate::store) fn new<'g>(
        groups: &'g [KeyGroup],
        before: &Self,
        mut pool: impl FnMut(u64) -> Pool,
    ) -> Self {
        let mut partitions = before.partitions.clone();
        partitions.iter_mut().skip(1).for_each(|partition| partition.limit = 0);
        let mut bind = |prefix: &[u8], max_bytes: u64| {
            let limit = i64::try_from(max_bytes).unwrap_or(i64::MAX);
            let new = Partition {
                prefix: prefix.into(),
                limit,
                used: Arc::default(),
                taken: Arc::default(),
                pool: Arc::new(pool(max_bytes)),
            };
            let mut others = partitions.iter().skip(1);
            let own = others.clone().position(|other| *other.prefix == *prefix);
            let own = own.or_else(|| others.position(|other| other.limit == 0 && other.used() == 0));
            let Some(number) = own.map(|at| at + 1) else {
                partitions.push(new);
                return partitions.len() - 1;
            };
            let there = &mut partitions[number];
            // Its segments are as they are: another pool would not take them back.
            let pool =
                if there.pool.segment_bytes() == new.pool.segment_bytes() { &there.pool } else { &new.pool };
            *there =
                Partition { pool: pool.clone(), used: there.used.clone(), taken: there.taken.clone(), ..new };
            number
        };
        let with_partition = |group: &'g KeyGroup| {
            (&*group.prefix, group.max_bytes.map_or(0, |max_bytes| bind(&group.prefix, max_bytes)))
        };
        let prefixes = Prefixes::new(groups.iter().map(with_partition));
        Self { prefixes, partitions }
    }

    /// Whether there is none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Prefixes of all groups, by their numbers.
    pub(in crate::store) fn prefixes(&self) -> impl Iterator<Item = &[u8]> {
        self.prefixes.iter()
    }

    /// The number of the group of a key.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        self.prefixes.find(key)
    }

    /// The number of the partition in which a key's item lies.
    #[inline]
    pub(in crate::store) fn partition_of(&self, key: &[u8]) -> usize {
        self.prefixes.get(key).copied().unwrap_or(0)
    }

    /// Partitions there are, with what is left of former ones.
    #[inline]
    pub(in crate::store) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    #[inline]
    pub(in crate::store) fn partition(&self, number: usize) -> &Partition {
        &self.partitions[number]
    }

    /// One that is above its bound. What is left of a group that has gone is none: nobody asks for its memory.
    pub(in crate::store) fn overfull(&self) -> Option<usize> {
        let is_over = |partition: &Partition| partition.limit > 0 && partition.missing() > 0;
        self.partitions.iter().skip(1).position(is_over).map(|at| at + 1)
    }

    /// Bytes that all partitions with a bound take.
    pub(in crate::store) fn bounded_bytes(&self) -> i64 {
        self.partitions.iter().skip(1).map(Partition::used).sum()
    }

    /// Whether keys have memory of their own.
    pub(in crate::store) fn are_bounded(&self) -> bool {
        self.partitions.iter().skip(1).any(|partition| partition.limit > 0)
    }

    /// The partition that takes most, when `used` bytes are taken in all.
    pub(in crate::store) fn largest(&self, used: i64) -> usize {
        let of = |number: usize| match number {
            0 => used - self.bounded_bytes(),
            _ => self.partitions[number].used(),
        };
        (0..self.partitions.len()).max_by_key(|number| of(*number)).unwrap_or(0)
    }

    /// The partition that is furthest above its share of `limit` bytes, when `used` are taken in all. That share is its
    /// bound, or less where all bounds together are more than there is; what they leave is the share of all other keys.
    pub(in crate::store) fn greediest(&self, limit: i64, used: i64) -> usize {
        if self.partitions.len() == 1 {
            return 0;
        }
        let bounds: i64 =
            self.partitions.iter().skip(1).map(|partition| partition.limit).fold(0, i64::saturating_add);
        let share = |bound: i64| {
            if bounds <= limit {
                bound
            } else {
                (i128::from(bound) * i128::from(limit) / i128::from(bounds)) as i64
            }
        };
        let mut left = (limit, used);
        let mut excesses = Vec::with_capacity(self.partitions.len());
        excesses.push(0);
        for partition in self.partitions.iter().skip(1) {
            let (share, used) = (share(partition.limit), partition.used());
            excesses.push(used - share);
            left = (left.0 - share, left.1 - used);
        }
        excesses[0] = left.1 - left.0;
        (0..excesses.len()).max_by_key(|number| excesses[*number]).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(prefix: &str, max_bytes: Option<u64>) -> KeyGroup {
        KeyGroup { prefix: prefix.into(), max_bytes }
    }

    fn none() -> KeyGroups {
        KeyGroups::none(Arc::new(Pool::new(1024)))
    }

    fn with(groups: &[KeyGroup], before: &KeyGroups) -> KeyGroups {
        KeyGroups::new(groups, before, |_| Pool::new(1024))
    }

    #[test]
    fn the_longest_prefix_says_where_an_item_lies() {
        let groups = with(&[group("a:", Some(100)), group("a:b:", None), group("c:", Some(200))], &none());
        let of = |key: &str| groups.partition_of(key.as_bytes());
        assert_eq!((of("a:1"), of("a:b:1"), of("c:1"), of("d")), (1, 0, 2, 0));
        assert_eq!(groups.prefixes().next(), Some(&b"a:b:"[..]));
    }

    #[test]
    fn a_partition_stays_with_its_prefix_and_an_empty_one_is_used_again() {
        let first = with(&[group("a:", Some(100)), group("b:", Some(100))], &none());
        first.partition(1).used_changed(50);
        let second = with(&[group("c:", Some(70)), group("a:", Some(80))], &first);
        assert_eq!((second.partition_of(b"a:"), second.partition_of(b"c:"), second.partitions()), (1, 2, 3));
        assert_eq!((second.partition(1).used(), second.partition(1).limit()), (50, 80));
        let third = with(&[group("d:", Some(10))], &second);
        assert_eq!(
            (third.partition_of(b"d:"), third.partition(1).limit()),
            (2, 0),
            "what is left of a: is above its bound"
        );
    }

    #[test]
    fn whoever_is_furthest_above_its_share_gives_way() {
        let groups = with(&[group("a:", Some(300)), group("b:", Some(300))], &none());
        groups.partition(1).used_changed(300);
        groups.partition(2).used_changed(100);
        assert_eq!(groups.greediest(1000, 1010), 0, "all others take 610 of 400");
        assert_eq!(groups.greediest(400, 410), 1, "200 are its share, as the other's");
        groups.partition(2).used_changed(150);
        assert_eq!(groups.greediest(400, 610), 1);
        groups.partition(1).used_changed(-100);
        assert_eq!(groups.greediest(400, 460), 2);
    }
}

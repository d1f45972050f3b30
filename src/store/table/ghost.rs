//! The keys that gave way lately, as fingerprints: a key that comes back soon is worth more than its first visit showed.

/// Fingerprints in a row: one cache line.
const ROW: usize = 32;

/// Rows that it grows by at once, or a quarter where that is more: what gives way for them is not to be much.
const STEP_ROWS: usize = 256;

/// Fingerprints of 16 bits, in rows by hash; in each, the latest stands in front and pushes the oldest out.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    rows: Box<[[u16; ROW]]>,
}

impl Ghost {
    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<[u16; ROW]>()
    }

    /// Makes it anew, to remember about as many keys as there are items, unless it is about that large; a step towards it,
    /// where that is far.
    pub(super) fn fit(&mut self, items: usize) {
        let rows = self.rows.len();
        let wanted = items.div_ceil(ROW).min(rows + STEP_ROWS.max(rows / 4 + 1));
        if wanted > rows + rows / 4 || wanted < rows / 2 {
            let mut fitted: Box<[_]> = vec![[0; ROW]; wanted].into();
            // A row takes over what an old one remembers that covers the same hashes.
            if rows > 0 {
                for (at, row) in fitted.iter_mut().enumerate() {
                    *row = self.rows[at * rows / wanted];
                }
            }
            self.rows = fitted;
        }
    }

    /// Remembers a key by its hash.
    pub(super) fn insert(&mut self, hash: u64) {
        if let Some(row) = self.row(hash) {
            row.copy_within(..ROW - 1, 1);
            row[0] = fingerprint(hash);
        }
    }

    /// Forgets a key; whether it was remembered.
    pub(super) fn remove(&mut self, hash: u64) -> bool {
        let Some(row) = self.row(hash) else { return false };
        let Some(at) = row.iter().position(|&other| other == fingerprint(hash)) else { return false };
        row.copy_within(at + 1.., at);
        row[ROW - 1] = 0;
        true
    }

    /// Reads from the row in which a key of this hash would be, so that it is near.
    pub(super) fn touch(&self, hash: u64) -> u64 {
        self.rows.get(self.row_at(hash)).map_or(0, |row| row[0].into())
    }

    fn row_at(&self, hash: u64) -> usize {
        ((hash >> 48) as usize * self.rows.len()) >> 16
    }

    fn row(&mut self, hash: u64) -> Option<&mut [u16; ROW]> {
        let at = self.row_at(hash);
        self.rows.get_mut(at)
    }
}

/// Never 0, which stands for none.
fn fingerprint(hash: u64) -> u16 {
    ((hash >> 24) as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::table::tests::mixed as hash;

    #[test]
    fn it_remembers_the_latest_and_each_once() {
        let mut ghost = Ghost::default();
        ghost.insert(hash(0));
        assert!(!ghost.remove(hash(0)), "it has no row yet");
        ghost.fit(3200);
        (0..10_000).for_each(|number| ghost.insert(hash(number)));
        let remembered = |ghost: &mut Ghost, from, to| (from..to).filter(|&n| ghost.remove(hash(n))).count();
        assert!(remembered(&mut ghost, 0, 3000) < 10);
        assert!(remembered(&mut ghost, 8000, 10_000) > 1900);
        assert!(remembered(&mut ghost, 8000, 10_000) < 10, "they were taken out");
    }

    #[test]
    fn it_keeps_what_it_knows_when_it_grows() {
        let mut ghost = Ghost::default();
        ghost.fit(1000);
        (0..500).for_each(|number| ghost.insert(hash(number)));
        ghost.fit(2000);
        assert_eq!(ghost.bytes(), 63 * 64);
        assert!((0..500).filter(|&number| ghost.remove(hash(number))).count() > 300);
        ghost.fit(1900);
        assert_eq!(ghost.bytes(), 63 * 64, "it is about that large");
    }
}

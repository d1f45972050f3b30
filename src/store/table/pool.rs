//! Memory for segments. What one shard gives back, another takes.

use parking_lot::Mutex;

/// Segments that are kept for the next shard that needs one; others go back to the system.
const SPARE_MAX: usize = 4;

/// Memory for segments of one size.
#[derive(Debug)]
pub(in crate::store) struct Pool {
    segment_bytes: usize,
    spare: Mutex<Vec<Box<[u8]>>>,
}

impl Pool {
    pub(in crate::store) fn new(segment_bytes: usize) -> Self {
        Self { segment_bytes, spare: Mutex::new(Vec::with_capacity(SPARE_MAX)) }
    }

    pub(in crate::store) fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    pub(super) fn take(&self) -> Box<[u8]> {
        let spare = self.spare.lock().pop();
        spare.unwrap_or_else(|| vec![0; self.segment_bytes].into())
    }

    /// Takes memory back. Such of another size, from before the bound of a partition changed, goes to the system.
    pub(super) fn give(&self, bytes: Box<[u8]>) {
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_MAX && bytes.len() == self.segment_bytes {
            spare.push(bytes);
        }
    }
}

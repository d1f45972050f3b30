//! The lease (S1): until when does this node serve by it?

use std::time::{Duration, Instant};

/// What is known of this node's lease.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Its id, and until when this node may serve by it; it lives a little longer in etcd.
    held: Option<(i64, Instant)>,
    /// Until when a lease let this node serve.
    served_until: Option<Instant>,
}

impl Lease {
    /// A call that began before `until` less the time of serving has granted or renewed the lease.
    pub(super) fn renewed(&mut self, id: i64, until: Instant) {
        self.held = Some((id, until));
    }

    /// Until when this node may serve by the lease, if it is the one that what it has `written` goes with.
    pub(super) fn until(&self, written: Option<i64>) -> Option<Instant> {
        self.held.filter(|&(id, _)| written == Some(id)).map(|(_, until)| until)
    }

    /// Serves by the lease, under the same condition. Until when.
    pub(super) fn serve(&mut self, written: Option<i64>) -> Option<Instant> {
        let until = self.until(written)?;
        self.served_until = Some(until);
        Some(until)
    }

    /// When serving by a lease ends or has ended, from `early` before that on.
    pub(super) fn ends(&self, now: Instant, early: Duration) -> Option<Instant> {
        self.served_until.filter(|&until| now + early >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_serves_only_once_what_goes_with_it_is_written() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut lease = Lease::default();
        assert_eq!(lease.serve(Some(7)), None, "there is none");
        lease.renewed(7, start + second * 3);
        assert_eq!(lease.serve(Some(8)), None, "another lease");
        assert_eq!(lease.ends(start + second * 9, second), None, "it never served");
        assert_eq!(lease.serve(Some(7)), Some(start + second * 3));
        assert_eq!(lease.ends(start + second, second), None);
        assert_eq!(lease.ends(start + second * 2, second), Some(start + second * 3));
    }
}

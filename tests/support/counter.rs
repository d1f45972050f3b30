//! What a counter may be that one client counts up, by what it was told.
//!
//! The rule: an `incr` by one that was answered with a number found the counter at one less, so no two are answered
//! with the same number and none is forgotten; one that failed may have counted or not, but not later. A counter that
//! is gone is stored again with a number above all before, so that numbers go up for ever.

use std::ops::RangeInclusive;

/// What its only writer knows of a counter.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    /// It is in this, or gone. `None`: it must be stored before anything is known.
    possible: Option<RangeInclusive<u64>>,
    /// Where the last one began that was to be stored.
    base: u64,
}

/// How far apart the numbers are with which a counter begins: farther than anybody counts.
const STEP: u64 = 1_000_000;

impl Counter {
    /// A counter that is not there; its numbers are those above `base`.
    pub fn new(base: u64) -> Counter {
        Counter { possible: None, base }
    }

    /// Whether it can be counted; otherwise it has to be stored.
    pub fn is_stored(&self) -> bool {
        self.possible.is_some()
    }

    /// The number to store next, above all before. Until it [is stored](Counter::stored), nothing is known.
    pub fn next_base(&mut self) -> u64 {
        self.possible = None;
        self.base += STEP;
        self.base
    }

    /// It was stored.
    pub fn stored(&mut self) {
        self.possible = Some(self.base..=self.base);
    }

    /// An `incr` was answered with a number.
    ///
    /// # Errors
    ///
    /// A sentence, when it cannot be.
    pub fn counted(&mut self, number: u64) -> Result<(), String> {
        let before = number.checked_sub(1);
        let fits = |possible: &RangeInclusive<u64>| before.is_some_and(|before| possible.contains(&before));
        if !self.possible.as_ref().is_some_and(fits) {
            return Err(format!("incr gave {number}, but the counter was in {:?}", self.possible));
        }
        self.possible = Some(number..=number);
        Ok(())
    }

    /// An `incr` failed. Returns the numbers that it may have made.
    pub fn perhaps_counted(&mut self) -> Option<RangeInclusive<u64>> {
        let (low, high) = self.possible.take()?.into_inner();
        self.possible = Some(low..=high + 1);
        Some(low + 1..=high + 1)
    }

    /// An `incr` was told that there is no counter.
    pub fn gone(&mut self) {
        self.possible = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter_at(number: u64) -> Counter {
        let mut counter = Counter::new(number - STEP);
        assert_eq!(counter.next_base(), number);
        counter.stored();
        counter
    }

    const AT: u64 = 5 * STEP;

    #[test]
    fn each_number_follows_the_one_before() {
        let mut counter = counter_at(AT);
        assert_eq!(counter.counted(AT + 1), Ok(()));
        assert_eq!(counter.counted(AT + 2), Ok(()));
    }

    #[test]
    fn a_number_twice_is_caught() {
        let mut counter = counter_at(AT);
        assert_eq!(counter.counted(AT + 1), Ok(()));
        assert!(counter.counted(AT + 1).is_err());
    }

    #[test]
    fn a_number_left_out_is_caught() {
        assert!(counter_at(AT).counted(AT + 2).is_err(), "counted twice");
        assert!(counter_at(AT).counted(AT).is_err(), "an earlier one was lost");
    }

    #[test]
    fn a_failure_may_have_counted() {
        for (number, is_legal) in [(AT, false), (AT + 1, true), (AT + 2, true), (AT + 3, false)] {
            let mut counter = counter_at(AT);
            assert_eq!(counter.perhaps_counted(), Some(AT + 1..=AT + 1));
            assert_eq!(counter.counted(number).is_ok(), is_legal, "{number}");
        }
        let mut counter = counter_at(AT);
        counter.perhaps_counted();
        assert_eq!(counter.perhaps_counted(), Some(AT + 1..=AT + 2));
        assert_eq!(counter.counted(AT + 1), Ok(()), "none of the two");
        assert_eq!(counter.counted(AT + 2), Ok(()));
        assert!(counter.counted(AT + 4).is_err(), "a failure that counted later");
    }

    #[test]
    fn a_counter_that_was_gone_does_not_come_back() {
        let mut counter = counter_at(AT);
        counter.gone();
        assert!(!counter.is_stored());
        assert!(counter.counted(AT + 1).is_err());
        assert_eq!(counter.perhaps_counted(), None);
        let base = counter.next_base();
        assert!(base > AT && !counter.is_stored());
        assert!(counter.counted(base + 1).is_err(), "nobody knows whether it was stored");
        counter.stored();
        assert_eq!(counter.counted(base + 1), Ok(()));
    }
}
